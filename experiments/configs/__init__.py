"""Configurations of large teachers, and their plans."""
