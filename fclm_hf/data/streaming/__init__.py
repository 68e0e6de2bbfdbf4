"""Endless streams of training batches that resume exactly."""
