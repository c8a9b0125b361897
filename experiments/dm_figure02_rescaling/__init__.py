"""Decoupled Mixup Figure A2, middle and right: xi and t of DM(BCE)."""
