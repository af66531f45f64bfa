"""Names of the losses that a student is trained on."""

FORWARD_KL, REVERSE_KL, JENSEN_SHANNON = "forward-kl", "reverse-kl", "jensen-shannon"
MEAN_SQUARES = "mse"
"""Of logits."""
CROSS_ENTROPY = "ce"
"""The text alone: no teacher is asked."""
LOSSES = (FORWARD_KL, REVERSE_KL, JENSEN_SHANNON, MEAN_SQUARES, CROSS_ENTROPY)
