"""Proofs: sorted, full and smaller models against the model itself, in float64."""
