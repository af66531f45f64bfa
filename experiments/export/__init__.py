"""run_export: a copy of a per-layer student for other software."""
