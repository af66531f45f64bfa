"""Inputs of a study, read and checked, and the students that are looked for."""

from search.inputs.inputs import Inputs

__all__ = [
    "Inputs",
]
