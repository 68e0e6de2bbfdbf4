"""Command line of fclm_hf: one module per command. Heavy imports wait until a command runs."""
