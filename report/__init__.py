"""Results to files, tables and pictures."""
