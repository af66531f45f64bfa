"""Names of the kinds of target formats, and the amounts that they have by default."""

FULL, TOPK, SAMPLED = "full", "topk", "sampled"
KINDS = (FULL, TOPK, SAMPLED)
"""Kinds of formats."""
MOST_DRAWS = 2**16 - 1
TRAINING_TOPK = 64
"""Entries of a training token, by default."""
DRAWS = 50
"""Draws of a training token, by default."""
