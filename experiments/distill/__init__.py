"""run_distill: one student distilled without a search."""
