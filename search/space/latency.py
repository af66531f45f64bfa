"""Latency of architectures on a device, from a small table of measured ones.

A table has some tens of shapes. Between them, latency is a sum of physical terms (calls, weights
read, products, attention) with coefficients that are not negative, fitted to the relative error.
The shapes are the corners of the space and a spread of it, so that a prediction interpolates. Times
are those of stock models in PyTorch (`search.space.latency_benchmark`); for another engine,
bring its table.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from transformers import PretrainedConfig

from common.errors import SearchError, require
from pruning import AXES, Architecture, ArchitectureGrid, architecture_of, is_legal
from pruning.families import DENSE_AXES, Sizes

PREFILL, DECODE = "prefill_ms", "decode_ms"
TIMES = (PREFILL, DECODE)
"""Milliseconds to read a batch of whole contexts, and of one decoding step after them."""
FEWEST_ROWS = 6
"""A table made by hand must have as many."""
SHAPES = 24
"""Shapes to measure: the 16 corners of four axes, and a spread between them."""


@dataclass(frozen=True)
class LatencySetting:
    """Device and workload that latency is measured with."""

    device: str
    """cpu or cuda."""
    threads: int
    """CPU threads."""
    batch: int
    """Sequences at once."""
    context: int
    """Tokens of each, in the prompt and in the cache."""
    dtype: str
    """Type of weights and cache, such as bfloat16."""
    name: str = ""
    """What the device calls itself."""

    def fingerprint_parts(self) -> dict[str, Any]:
        """All that a measured table depends on besides the model's configuration."""
        return asdict(self)

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return (
            f"{self.name or self.device}{threads}, batch {self.batch}, context {self.context}, "
            f"{self.dtype}"
        )


@dataclass(frozen=True)
class FitError:
    """Relative errors of predicting each row of a table from all the others."""

    median: float
    """Over the rows."""
    worst: float
    """Of any row."""

    def __str__(self) -> str:
        return f"{self.median:.1%} in the median, {self.worst:.1%} at worst"


@dataclass(frozen=True)
class LatencyTable:
    """Measured architectures, and a prediction for all others."""

    shapes: tuple[Architecture, ...]
    """Those that were measured."""
    times: Mapping[str, tuple[float, ...]]
    """Of `TIMES` -> milliseconds of each shape; one of them may be missing."""
    setting: LatencySetting | None = None
    """How it was measured; None in a file that does not say it."""

    def predict(self, sizes: Sizes[Any]) -> dict[str, Any]:
        """Milliseconds by name of the time; elementwise for a grid."""
        terms = _terms(sizes)
        return {
            name: sum(weight * term for weight, term in zip(weights, terms, strict=True))
            for name, weights in self._weights.items()
        }

    @cached_property
    def errors(self) -> dict[str, FitError]:
        """By name of the time: each row predicted from all the others; infinite for one row."""
        errors = {}
        for name, measured in self.times.items():
            times, rows = np.array(measured), self._rows
            off = np.full(len(times), np.inf)
            for row in range(len(times) if len(times) > 1 else 0):
                others = np.arange(len(times)) != row
                off[row] = abs(rows[row] @ _fit(rows[others], times[others]) / times[row] - 1)
            errors[name] = FitError(float(np.median(off)), float(off.max()))
        return errors

    @cached_property
    def _rows(self) -> NDArray[np.float64]:
        return np.stack([np.array(_terms(shape), dtype=np.float64) for shape in self.shapes])

    @cached_property
    def _weights(self) -> dict[str, NDArray[np.float64]]:
        return {name: _fit(self._rows, np.array(times)) for name, times in self.times.items()}

    def require_fits(
        self,
        config: PretrainedConfig,
        names: Sequence[str],
        *,
        batch: int,
        context: int,
        dtype: str,
    ) -> None:
        """Raises SearchError for a table of another model or setting, or without a time needed."""
        for name in names:
            require(name in self.times, f"the latency table has no column {name}; measure it too")
        for shape in self.shapes:
            require(
                bool(is_legal(config, shape)),
                f"the latency table has {shape}, which cannot be cut out of the teacher "
                f"({architecture_of(config)}); measure shapes of this teacher",
            )
        if self.setting is not None:
            wanted = {"batch": batch, "context": context, "dtype": dtype}
            for name, value in wanted.items():
                measured = getattr(self.setting, name)
                require(
                    measured == value,
                    f"the latency table was measured with {name} {measured}, and the budget is "
                    f"for {value}; measure it again, or set --budget.{name} {measured}",
                )

    def save(self, path: Path) -> None:
        """A CSV file, one shape a row, whose first line is the setting as a comment."""
        more = [a for a in AXES if any(getattr(shape, a) for shape in self.shapes)]
        axes = [axis for axis in AXES if axis in DENSE_AXES or axis in more]
        with path.open("w", newline="") as file:
            if self.setting is not None:
                file.write(f"# {json.dumps(asdict(self.setting))}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*axes, *self.times])
            for place, shape in enumerate(self.shapes):
                sizes = [getattr(shape, axis) for axis in axes]
                writer.writerow(
                    [*sizes, *(f"{column[place]:.6g}" for column in self.times.values())]
                )

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """A table from a file as `save` writes it, or made by hand without the first line.

        It needs the columns layers, hidden, heads, kv_heads and ffn, and prefill_ms or decode_ms;
        those of further axes for models that have them, such as experts and expert_ffn. Read by
        `csv` and not pandas: errors quote a field as it is written, and tell an empty one from a
        missing one.

        Raises:
            SearchError: The file is no such table.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as problem:
            raise SearchError(f"the latency table {path} cannot be read ({problem})") from problem
        setting = _setting(lines[0], path) if lines and lines[0].startswith("#") else None
        table = csv.DictReader(line for line in lines if line.strip() and line[0] != "#")
        names = [name.strip() for name in table.fieldnames or []]
        table.fieldnames = names
        missing = [axis for axis in DENSE_AXES if axis not in names]
        missing += [] if any(name in names for name in TIMES) else [" or ".join(TIMES)]
        require(
            not missing,
            f"the latency table {path} has no column {', '.join(missing)}; a row needs "
            f"{', '.join(DENSE_AXES)} and {' or '.join(TIMES)}",
        )
        rows = list(table)
        fewest = FEWEST_ROWS if setting is None else 1  # a small space has few architectures
        require(
            len(rows) >= fewest,
            f"the latency table {path} has {len(rows)} rows; it needs at least {fewest}",
        )
        axes = [axis for axis in AXES if axis in names]
        shapes = [
            Architecture.from_dict({axis: _number(path, row, column=axis) for axis in axes})
            for row in rows
        ]
        times = {
            name: tuple(_number(path, row, column=name) for row in rows)
            for name in TIMES
            if name in names
        }
        return cls(tuple(shapes), times, setting)


def choose_shapes(grid: ArchitectureGrid, count: int = SHAPES) -> list[Architecture]:
    """`count` of the architectures of a grid: corners first, then a spread.

    Each next one is the farthest from all before it, every axis scaled to [0, 1]; the first is the
    largest. None comes twice; all of them where there are no more than `count`.
    """
    columns = [getattr(grid, axis).astype(np.float32) for axis in AXES]
    places = np.stack(columns, axis=1)
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / np.maximum(high - low, 1)
    chosen = [int(places.sum(axis=1).argmax())]
    distance = np.full(len(places), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((places - places[chosen[-1]]) ** 2).sum(axis=1))
        if not distance.any():
            break
        chosen.append(int(distance.argmax()))
    return [replace(grid[index], contiguous=0) for index in chosen]


def _terms(a: Sizes[Any]) -> list[Any]:
    """What latency is a sum of; what all students share (context, vocabulary) is in the weights."""
    return [
        np.ones_like(a.layers, dtype=np.float64),
        a.hidden,  # output head, final norm
        a.layers,  # calls of kernels
        a.layers * a.hidden,  # norms and residuals
        a.layers * a.hidden * (a.heads + a.kv_heads),  # projections of attention
        a.layers * a.heads,  # attention
        a.layers * a.kv_heads,  # the cache
        a.layers * a.hidden * a.ffn,
        a.layers * a.experts,  # routing
        a.layers * a.hidden * a.expert_ffn * np.maximum(a.experts_per_token, 1),  # of a token
        a.layers * a.hidden * a.expert_ffn * a.experts,  # all experts that a batch touches
        a.layers * a.hidden * a.shared_ffn,
        a.layers * a.hidden * a.ssm_heads * a.ssm_head_dim,  # projections of recurrent layers
        a.layers * a.hidden * a.ssm_groups * a.ssm_state,
        a.layers * a.ssm_heads * a.ssm_head_dim * a.ssm_state,  # their state
    ]


def _fit(rows: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights >= 0 of the terms with the least squares of predicted / measured - 1."""
    relative = rows / times[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(np.float64).tiny)
    weights, _ = nnls(relative / scale, np.ones(len(times)))
    return np.asarray(weights / scale)


def _setting(line: str, path: Path) -> LatencySetting | None:
    """The setting of a table's first line; None where that is a comment of another kind."""
    try:
        values = json.loads(line.lstrip("# "))
    except json.JSONDecodeError:
        return None
    try:
        return LatencySetting(**values)
    except TypeError as problem:
        raise SearchError(
            f"the first line of the latency table {path} is no setting ({problem}); leave it out"
        ) from problem


def _number(path: Path, row: Mapping[str, str], *, column: str) -> float:
    """A size (a whole number, from 0 for what a model may lack) or a time (above 0)."""
    text = row[column]
    try:
        value = float(text)
    except (TypeError, ValueError) as problem:
        raise SearchError(
            f"the latency table {path} has {text!r} for {column}, which is no number"
        ) from problem
    if column in TIMES:
        require(
            np.isfinite(value) and value > 0,
            f"the latency table {path} has {text} for {column}; it must be above 0",
        )
    else:
        least = 0 if column == "ffn" or column not in DENSE_AXES else 1
        require(
            value >= least and value == int(value),
            f"the latency table {path} has {text} for {column}; it must be a whole number, at "
            f"least {least}",
        )
    return value
