"""Figures of the models side by side, as they are shown and written."""
