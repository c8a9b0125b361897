"""Decoupled Mixup Figure A2, left: eta of DM(CE)."""
