"""What run_distill.py does: one student distilled without a search."""
