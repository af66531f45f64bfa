"""Benchmarks, each a command that prints a table and one line of JSON."""
