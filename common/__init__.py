"""Errors, files, logs, progress and intervals that all packages share; nothing of the field."""
