"""The papers' experiments: tables, claims, scales, and the command `python -m experiments`. Imports no torch."""
