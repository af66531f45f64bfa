"""What proves the path on a GPU: one command, and what it measures."""
