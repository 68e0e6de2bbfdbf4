"""Training images composed from foregrounds and backgrounds, with simulated prompts."""
