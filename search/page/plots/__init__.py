"""Plots of a report: each a figure with its title, a sentence that says it, and its values."""
