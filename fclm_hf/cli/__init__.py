"""Command line of fclm_hf: one module per command."""
