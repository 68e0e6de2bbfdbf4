"""Training objective of the paper (Eq. 1-9)."""
