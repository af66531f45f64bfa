"""Benchmark of inference engines: which cuts of which types each of them takes."""
