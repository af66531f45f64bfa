"""Replays of searches on a table of architectures: strategies, simulation and report."""
