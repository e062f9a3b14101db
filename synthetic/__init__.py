"""Invented images and networks for the demo, the tests and the benchmarks: nothing here is real data."""
