"""Endless streams of samples, pairs and batches that resume bit-exactly."""
