"""Synthetic images and stand-in networks for demo, tests and benchmarks; no real data."""
