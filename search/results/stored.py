"""Architectures as they are stored in JSON files."""

from typing import Annotated

from pydantic import PlainValidator

from pruning import Architecture

StoredArchitecture = Annotated[Architecture, PlainValidator(Architecture.from_dict)]
"""Read from JSON by the architecture itself."""
