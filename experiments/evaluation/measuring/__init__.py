"""Measuring of models, part by part: on tasks, on a text, and on this device."""
