"""Choice of the students that are compared under a limit: candidates of both kinds, controls."""

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from common.files import write_file_atomically
from experiments.benchmarks.per_layer.setting import UNUSED, WIDE, Limit, study_of
from pruning import Architecture, Checkpoint, architecture_of
from search.inputs import Inputs
from search.library import BlockScores
from search.per_layer import Depth, Solving
from search.space import measure, setting_here
from search.trials import pool
from search.workers import SearchAssets

LOGGER = logging.getLogger(__name__)
LATENCY = "decode_ms"
SECONDS = 30.0
"""To time some students in turns, about."""
CORRECTIONS, NEAR = 3, 0.02
"""How often a limit on predicted times is corrected at most, and how near measured ones must come.
"""
ZeroShot = Callable[[Sequence[Architecture]], dict[Architecture, float]]
"""Students -> KL before training."""


@dataclass(frozen=True)
class Choice:
    """What is compared under one limit; architectures as text."""

    most: float
    """The limit, in the cost's own unit."""
    uniform: list[str]
    """Uniform students with a short run: the best before training first, and then those that a
    person would try, since what is cut evenly gains most from training."""
    per_layer: list[str]
    """Students whose layers differ, likewise."""
    controls: dict[str, str]
    """Name of a control of the paper -> the student that it chose."""
    notes: list[str]
    """Sentences on what there is not."""


class Chooser:
    """Chooses under one limit after the other; what is chosen is kept in a file."""

    def __init__(
        self,
        path: Path,
        options: argparse.Namespace,
        *,
        assets: SearchAssets,
        scores: BlockScores,
        zero_shot: ZeroShot,
    ):
        """Args:
        path: File of the choices.
        options: Of the benchmark.
        assets: With the library that per-layer students are cut from.
        scores: Of its blocks.
        zero_shot: Measures students before training.
        """
        self.path, self.options = path, options
        self.assets, self.scores, self.zero_shot = assets, scores, zero_shot
        self.choices = read(path)

    def choose(self, limit: Limit) -> Choice:
        """Students of both kinds and controls."""
        if limit.name in self.choices:
            return self.choices[limit.name]
        notes = []
        if limit.cost == LATENCY:
            most = limit.share * latency_of_teacher(self.options)
            uniform, first = self._at_measured(limit, self._uniform, most=most)
            per_layer, inputs = self._at_measured(limit, self._per_layer, most=most)
            notes += [_predicted("uniform", first, most), _predicted("per-layer", inputs, most)]
        else:
            inputs = self._inputs(limit, None)
            first = inputs
            uniform, per_layer = self._uniform(inputs), self._per_layer(inputs)
            most = _most(inputs, limit.cost)
        layers = per_layer[0].layers
        controls, missing = self._controls(inputs, layers)
        if missing:
            given = _most(inputs, limit.cost)
            more, still = self._controls(self._inputs(limit, given, unused=WIDE), layers)
            added = {name: shape for name, shape in more.items() if name not in controls}
            controls |= added
            notes += still + [
                f"{name}: none uses {1 - UNUSED:.0%} of the limit; this one uses at least "
                f"{1 - WIDE:.0%}"
                for name in added
            ]
        choice = Choice(
            most,
            list(dict.fromkeys(map(str, [*uniform, *_anchors(first)]))),
            [str(shape) for shape in per_layer],
            {name: str(shape) for name, shape in controls.items()},
            notes,
        )
        self._keep(limit, choice)
        return choice

    def _keep(self, limit: Limit, choice: Choice) -> None:
        self.choices[limit.name] = choice
        kept = {name: asdict(one) for name, one in self.choices.items()}
        write_file_atomically(self.path, json.dumps(kept, indent=1) + "\n")

    def _at_measured(
        self, limit: Limit, choose: Callable[[Inputs], list[Architecture]], *, most: float
    ) -> tuple[list[Architecture], Inputs]:
        """Students that take the limit when they are measured, and the study that they are of.

        They are chosen by predicted times; where the measured ones are others, they are chosen
        again with the limit corrected, a few times at most. Those that take clearly more are left
        out in the end.
        """
        teacher = architecture_of(Checkpoint(self.options.teacher).config)
        predicted = most
        for _ in range(CORRECTIONS):
            inputs = self._inputs(limit, predicted)
            shapes = choose(inputs)
            whole, *measured = timed(self.options, [teacher, *shapes])
            ratio = median(measured) / (limit.share * whole)
            if abs(ratio - 1) <= NEAR:
                break
            predicted /= ratio
        most = (1 + 2 * NEAR) * limit.share * whole
        inside = [shape for shape, ms in zip(shapes, measured, strict=True) if ms <= most]
        return inside or shapes, inputs

    def _inputs(self, limit: Limit, most: float | None, *, unused: float = UNUSED) -> Inputs:
        """Of the study with this limit, in the cost's own unit where it is given."""
        return Inputs.read(study_of(self.options, limit, most=most, unused=unused))

    def _uniform(self, inputs: Inputs) -> list[Architecture]:
        """The best before training."""
        return self._best(pool(inputs.space, self.options.pool, seed=inputs.config.seed))

    def _per_layer(self, inputs: Inputs) -> list[Architecture]:
        """The best solutions of all depths before training."""
        solving = self._solving(inputs)
        found = [solving.solved(depth)[0] for depth in self._depths(inputs)]
        return self._best(one.architecture for solutions in found for one in solutions)

    def _controls(self, inputs: Inputs, layers: int) -> tuple[dict[str, Architecture], list[str]]:
        """The controls of this depth by name, and why there are not all."""
        (depth,) = (depth for depth in self._depths(inputs) if len(depth.kept) == layers)
        found, missing = self._solving(inputs).controls(depth)
        return {one.control: one.architecture for one in found if one.control}, missing

    def _depths(self, inputs: Inputs) -> list[Depth]:
        plan, source = inputs.per_layer, self.assets.source
        assert plan is not None
        kept = {layers: source.kept_layers(plan.shape(layers)) for layers in plan.depths}
        return plan.chosen(kept, self.scores.of)

    def _solving(self, inputs: Inputs) -> Solving:
        return Solving(inputs.config.per_layer, self.path.parent, inputs.config.seed)

    def _best(self, shapes: Iterable[Architecture]) -> list[Architecture]:
        """As many of these as there are candidates, the best before training first."""
        scored = self.zero_shot(list(dict.fromkeys(shapes)))
        finite = [shape for shape in scored if np.isfinite(scored[shape])]
        return sorted(finite, key=scored.__getitem__)[: self.options.candidates]


def _anchors(inputs: Inputs) -> list[Architecture]:
    """The shapes that a person would try first."""
    return [shape for shape in inputs.space.anchors().values() if shape is not None]


def _most(inputs: Inputs, cost: str) -> float:
    """The limit of a study, in the cost's own unit."""
    most = inputs.members[0].budget.most(cost)
    assert most is not None
    return most


def _predicted(kind: str, inputs: Inputs, most: float) -> str:
    return (
        f"{kind} students: at most {_most(inputs, LATENCY):.4g} ms by the predicted times, so that "
        f"they take about {most:.4g} ms when measured"
    )


def timed(options: argparse.Namespace, shapes: Sequence[Architecture]) -> list[float]:
    """Measured milliseconds of a decoding step of each, in turns."""
    setting = setting_here(
        options.device, 1, batch=options.batch, context=options.context, dtype=options.dtype
    )
    config = Checkpoint(options.teacher).config
    table = measure(config, shapes, setting=setting, times=[LATENCY], seconds=SECONDS)
    return list(table.times[LATENCY])


def latency_of_teacher(options: argparse.Namespace) -> float:
    """Milliseconds of a decoding step, measured once."""
    path = options.output / "teacher_latency.json"
    if not path.exists():
        teacher = architecture_of(Checkpoint(options.teacher).config)
        (ms,) = timed(options, [teacher])
        write_file_atomically(path, json.dumps({LATENCY: ms}) + "\n")
    return float(json.loads(path.read_text())[LATENCY])


def read(path: Path) -> dict[str, Choice]:
    """The choices of earlier starts, by the limit's name."""
    if not path.exists():
        return {}
    return {name: Choice(**one) for name, one in json.loads(path.read_text()).items()}
