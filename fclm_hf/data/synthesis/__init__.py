"""Training images made from cut-out objects, photos and backgrounds, with simulated prompts."""
