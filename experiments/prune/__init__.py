"""What run_prune.py does: one student cut and measured before any training."""
