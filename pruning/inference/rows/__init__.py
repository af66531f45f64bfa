"""Inferred rows: made of what was understood and proven, once for all sizes of a type."""
