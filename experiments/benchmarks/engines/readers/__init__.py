"""Readers: one engine each, run in an environment of its own."""
