"""Benchmark of a BOS before every document."""
