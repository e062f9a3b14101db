"""Kills of every script: `make faults` for all of them, a few in `make test`."""
