"""The ranks of one training run: who they are, what they report, and what becomes of them."""
