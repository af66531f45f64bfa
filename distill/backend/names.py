"""Names of what a run computes in."""

PRECISIONS = ("auto", "bf16", "tf32", "fp32")
"""Of products; auto is bf16 where the hardware multiplies it."""
