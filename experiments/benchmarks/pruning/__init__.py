"""Benchmarks of cutting."""
