"""Data sets on the Hub or on disk: their rows, read and decoded."""
