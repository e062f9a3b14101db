"""Scoring one's own images and scans: files found, read, scored, written (predict.py)."""
