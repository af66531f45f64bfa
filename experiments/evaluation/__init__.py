"""run_evaluate: models side by side, on tasks, on a text, and on this device."""
