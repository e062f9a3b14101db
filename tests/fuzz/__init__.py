"""Damaged and hostile files for every reader: `python -m tests.fuzz.run`."""
