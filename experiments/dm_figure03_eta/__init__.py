"""Decoupled Mixup Figure A3: eta of DM(CE) on three data sets."""
