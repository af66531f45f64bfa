"""Latency of students whose layers differ: a sum of the measured times of their sub-blocks.

The time of a student is that of all outside its layers, of each layer as it would be without
sub-blocks, and of each attention and each FFN on top of that. How well such sums agree with whole
students that were measured beside them is part of the table (`errors`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from common.errors import SearchError, require
from common.files import write_file_atomically
from pruning import ATTENTION, FFN, Architecture, Block
from pruning.families import text_of_blocks, windows_of
from search.space.latency import FitError, LatencySetting
from search.space.variants import NOTHING

Times = Mapping[str, float]
"""Name of the time, of `TIMES` -> milliseconds."""


def sub_block(block: Block, kind: str, *, windowed: bool) -> Block:
    """The attention or the FFN of a layer alone.

    An attention has `window` 1 where it attends to no more than the window (`windowed` or its own
    choice): one that the teacher's layer has and one that a student took cost the same.
    """
    if kind == FFN:
        return replace(block, heads=0, kv_heads=0, window=0)
    if not block.has_attention:
        return NOTHING
    return Block(block.heads, block.kv_heads, 0, window=int(windowed or bool(block.window)))


def windowed_layers(config: PretrainedConfig, context: int) -> tuple[bool, ...]:
    """Whether each layer of the teacher attends to fewer than `context` tokens, and last, whether
    one that took the model's window would."""
    return tuple(tokens < context for tokens in windows_of(config, context))


@dataclass(frozen=True)
class MeasuredStudent:
    """A student with layers of its own that was timed as a whole."""

    architecture: Architecture
    """Its shape; it keeps all of the teacher's layers."""
    times: Times
    """Milliseconds."""


@dataclass(frozen=True)
class BlockLatencyTable:
    """Milliseconds of the sub-blocks of students, and of what is around them."""

    setting: LatencySetting
    """How they were measured."""
    windows: tuple[bool, ...]
    """Which of the teacher's layers have a window, as `windowed_layers` says."""
    outside: Times
    """Embedding, last norm, head, and what is called once: the median over the measured students of
    what they take more than the sum of their layers."""
    layer: Times
    """A layer without sub-blocks."""
    sub_blocks: Mapping[Block, Times]
    """Attention or FFN, as `sub_block` writes it -> what it adds to a layer; windowed attention
    with its window."""
    noise: Mapping[Block, Times]
    """Standard errors of `sub_blocks`."""
    students: tuple[MeasuredStudent, ...]
    """Whole students that were measured, to hold sums against."""

    @classmethod
    def fitted(cls, *, students: tuple[MeasuredStudent, ...], **parts: Any) -> "BlockLatencyTable":
        """The table of these `students` and `parts`, all fields but `outside`."""
        nothing = dict.fromkeys(parts["layer"], 0.0)
        table = cls(outside=nothing, students=students, **parts)
        outside = {name: float(np.median(table._surplus(name))) for name in nothing}
        return replace(table, outside=outside)

    def of(self, kind: str, block: Block, layer: int) -> Times:
        """What the `ATTENTION` or the `FFN` of a student's `block`, cut from the teacher's `layer`,
        adds; 0 where it is left out. Raises SearchError for one that was not measured."""
        wanted = self._key(block, kind, windowed=self.windows[layer])
        if wanted == NOTHING:
            return dict.fromkeys(self.outside, 0.0)
        require(
            wanted in self.sub_blocks,
            f"the latency of {kind} {text_of_blocks([wanted])} was not measured; measure a table "
            "of sub-blocks with it",
        )
        return self.sub_blocks[wanted]

    def around(self, layers: int) -> Times:
        """All of a student of so many layers but its sub-blocks."""
        return {name: ms + layers * self.layer[name] for name, ms in self.outside.items()}

    def predict(
        self, architecture: Architecture, *, kept: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Milliseconds of a student by name of the time.

        `kept` are the teacher's layers that it keeps; not given, and with fewer layers than the
        teacher, its attentions are taken for those without a window.
        """
        total = dict(self.around(architecture.layers))
        for index, layer in enumerate(self._layers(architecture.layers, kept)):
            block = architecture.block(index)
            for kind in (ATTENTION, FFN):
                for name, ms in self.of(kind, block, layer).items():
                    total[name] += ms
        return total

    @cached_property
    def errors(self) -> dict[str, FitError]:
        """By name of the time: relative errors of the sums for the students that were measured.

        For each, what is outside the layers is told from the others alone.
        """
        errors = {}
        for name in self.outside:
            surplus = self._surplus(name)
            off = np.full(max(1, len(surplus)), np.inf)
            for place in range(len(surplus) if len(surplus) > 1 else 0):
                others = float(np.median(np.delete(surplus, place)))
                off[place] = abs(others - surplus[place]) / self.students[place].times[name]
            errors[name] = FitError(float(np.median(off)), float(off.max()))
        return errors

    def _surplus(self, name: str) -> NDArray[np.float64]:
        """Milliseconds that the measured students take more than predicted."""
        return np.array([s.times[name] - self.predict(s.architecture)[name] for s in self.students])

    def save(self, path: Path) -> None:
        """A JSON file."""
        blocks = [
            {**asdict(block), "ms": dict(times), "error_ms": dict(self.noise[block])}
            for block, times in self.sub_blocks.items()
        ]
        students = [
            {"architecture": str(student.architecture), "ms": dict(student.times)}
            for student in self.students
        ]
        values = {
            "setting": asdict(self.setting),
            "windows": list(self.windows),
            "outside_ms": dict(self.outside),
            "layer_ms": dict(self.layer),
            "sub_blocks": blocks,
            "students": students,
        }
        write_file_atomically(path, json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "BlockLatencyTable":
        """A table as `save` writes it. Raises SearchError for any other file."""
        try:
            values = json.loads(path.read_text("utf-8"))
            rows = [(_block(row), row) for row in values["sub_blocks"]]
            return cls(
                setting=LatencySetting(**values["setting"]),
                windows=tuple(values["windows"]),
                outside=values["outside_ms"],
                layer=values["layer_ms"],
                sub_blocks={block: row["ms"] for block, row in rows},
                noise={block: row["error_ms"] for block, row in rows},
                students=tuple(
                    MeasuredStudent(Architecture.parse(row["architecture"]), row["ms"])
                    for row in values["students"]
                ),
            )
        except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as problem:
            raise SearchError(
                f"{path} is no table of sub-block latencies ({problem!r}); delete it, and it is "
                "measured again"
            ) from problem

    def _layers(self, count: int, kept: Sequence[int] | None) -> Iterable[int]:
        depth = len(self.windows) - 1
        if kept is not None:
            return kept
        if count == depth:
            return range(depth)
        own = self.windows[:-1]
        return [own.index(min(own))] * count  # False, where any is, comes first

    def _key(self, block: Block, kind: str, *, windowed: bool) -> Block:
        took = bool(block.window) and self.windows[-1]
        return sub_block(replace(block, window=int(took)), kind, windowed=windowed)


def _block(row: Mapping[str, Any]) -> Block:
    names = ("heads", "kv_heads", "ffn", "experts", "expert_ffn", "window")
    return Block(**{name: int(row[name]) for name in names})
