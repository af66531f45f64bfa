"""Loading by transformers: which tensors of a checkpoint the model's class takes.

Asked of transformers itself rather than of a list, since the answer depends on the class, on the
configuration and on the version.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from common.errors import PruningError, reason_of


@dataclass(frozen=True)
class Loading:
    """Use that transformers makes of the tensors of a checkpoint."""

    known: frozenset[str]
    """Names of the tensors that the model has."""
    missing: tuple[str, ...]
    """Tensors of the model that the files do not have: transformers would fill them at random."""
    left_aside: tuple[str, ...]
    """Tensors of the files, by the names that transformers gives them, that the model has not."""


def loading_of(directory: Path) -> Loading:
    """What the model's class takes from a checkpoint, without reading a value.

    Raises PruningError, with the library's reason, where the model cannot be built or a tensor has
    another shape.
    """
    with quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=torch.float32,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            model, report = loaded
        except Exception as problem:  # configurations break in as many ways as there are models
            raise PruningError(
                f"transformers cannot build the model of {directory}: {reason_of(problem)}; mend "
                "its files"
            ) from problem
    for name, *shapes in sorted(report["mismatched_keys"]):
        stored, wanted = (tuple(shape) for shape in shapes)
        raise PruningError(f"{name} in {directory} is {stored}, but config.json asks for {wanted}")
    return Loading(
        frozenset(model.state_dict()),
        tuple(sorted(report["missing_keys"])),
        tuple(sorted(report["unexpected_keys"])),
    )


def misfit(report: Mapping[str, Any]) -> str:
    """The first tensor that a model and its weights do not both have in one shape, such as "missing
    keys lm_head.weight"; empty where all fit. `report` is transformers' own of a loading."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            return f"{kind.replace('_', ' ')} {min(map(str, report[kind]))}"
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines and bars that transformers prints while it loads."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def shown_names(names: tuple[str, ...], most: int = 3) -> str:
    """The first few of many names, and how many there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
