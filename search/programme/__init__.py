"""Mixed-integer programme: one variant for every layer, under all limits of a budget."""

from search.programme.controls import CONTROLS
from search.programme.programme import Choice, Limits, Programme, Solution, Variant, distance
from search.programme.settings import SolverSettings
from search.programme.solver import Solved, solve

__all__ = [
    "CONTROLS",
    "Choice",
    "Limits",
    "Programme",
    "Solution",
    "SolverSettings",
    "Solved",
    "Variant",
    "distance",
    "solve",
]
