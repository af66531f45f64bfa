"""What is computed once and kept: corpus, corrected and sorted teacher, targets.

Shared by the search and by the commands that cut or distil a single student.
"""
