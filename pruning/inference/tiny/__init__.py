"""Tiny types: models of a type with few channels, and how their tensors grow."""
