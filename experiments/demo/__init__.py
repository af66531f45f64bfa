"""Demo: its configuration, teacher, tasks and script."""
