"""Workspace: corpus, corrected and sorted teacher, and targets, computed once and kept.

Shared by the search and by the commands that cut or distil a single student.
"""
