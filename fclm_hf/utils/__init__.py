"""Helpers that are not specific to matting."""
