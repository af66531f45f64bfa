"""run_prune: one student cut and measured before any training."""
