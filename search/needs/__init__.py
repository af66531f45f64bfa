"""Needs of work that is planned: memory by part."""

from search.needs.memory import MemoryParts

__all__ = [
    "MemoryParts",
]
