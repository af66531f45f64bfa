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
from experiments.benchmarks.per_layer.setting import Limit, study_of
from pruning import Architecture, Checkpoint, architecture_of
from search.inputs import Inputs
from search.library import BlockScores
from search.per_layer import Solving
from search.space import measure, setting_here
from search.trials import pool
from search.workers import SearchAssets

LOGGER = logging.getLogger(__name__)
LATENCY = "decode_ms"
SECONDS = 45.0
"""To time the candidates of a limit on the latency."""
ZeroShot = Callable[[Sequence[Architecture]], dict[Architecture, float]]
"""Students -> KL before training."""


@dataclass(frozen=True)
class Choice:
    """What is compared under one limit; architectures as text."""

    most: float
    """The limit, in the cost's own unit."""
    uniform: list[str]
    """Uniform students with a short run, the best before training first."""
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
        """Students of both kinds and controls.

        A limit on the latency is one on what is measured: where the students chosen by predicted
        times take more or less of it, the two kinds are chosen again with the limit corrected for
        each.
        """
        if limit.name in self.choices:
            return self.choices[limit.name]
        first = limit.share * latency_of_teacher(self.options) if limit.cost == LATENCY else None
        inputs = self._inputs(limit, first)
        most = inputs.members[0].budget.most(limit.cost)
        assert most is not None
        uniform = self._uniform(inputs)
        per_layer, controls, notes = self._per_layer(inputs)
        if limit.cost == LATENCY:
            corrected = [
                self._corrected(inputs, shapes, most=most) for shapes in (uniform, per_layer)
            ]
            uniform = self._uniform(self._inputs(limit, corrected[0]))
            per_layer, controls, notes = self._per_layer(self._inputs(limit, corrected[1]))
            for kind, ms in zip(("uniform", "per-layer"), corrected, strict=True):
                notes.append(
                    f"{kind} students were chosen with {ms:.4g} ms as the limit of their predicted "
                    f"times, so that they take {most:.4g} ms when measured"
                )
        choice = Choice(
            most,
            [str(shape) for shape in uniform],
            [str(shape) for shape in per_layer],
            {name: str(shape) for name, shape in controls.items()},
            notes,
        )
        self.choices[limit.name] = choice
        kept = {name: asdict(one) for name, one in self.choices.items()}
        write_file_atomically(self.path, json.dumps(kept, indent=1) + "\n")
        return choice

    def _inputs(self, limit: Limit, most: float | None) -> Inputs:
        """Of the study with this limit, in the cost's own unit where it is given."""
        return Inputs.read(study_of(self.options, limit, most=most))

    def _uniform(self, inputs: Inputs) -> list[Architecture]:
        """The best before training."""
        return self._best(pool(inputs.space, self.options.pool, seed=inputs.config.seed))

    def _per_layer(
        self, inputs: Inputs
    ) -> tuple[list[Architecture], dict[str, Architecture], list[str]]:
        """The best solutions of all depths before training, the controls of the depth of the best,
        and notes."""
        plan, config, source = inputs.per_layer, inputs.config, self.assets.source
        assert plan is not None
        kept = {layers: source.kept_layers(plan.shape(layers)) for layers in plan.depths}
        depths = plan.chosen(kept, self.scores.of)
        solving = Solving(config.per_layer, self.path.parent, config.seed)
        found, notes = [], []
        for depth in depths:
            solutions, why = solving.solved(depth)
            found += [one.architecture for one in solutions]
            notes += why
        best = self._best(found)
        (deep,) = (depth for depth in depths if len(depth.kept) == best[0].layers)
        controls, why = solving.controls(deep)
        named = {one.control: one.architecture for one in controls if one.control is not None}
        return best, named, notes + why

    def _best(self, shapes: Iterable[Architecture]) -> list[Architecture]:
        """As many of these as there are candidates, the best before training first."""
        scored = self.zero_shot(list(dict.fromkeys(shapes)))
        finite = [shape for shape in scored if np.isfinite(scored[shape])]
        return sorted(finite, key=scored.__getitem__)[: self.options.candidates]

    def _corrected(self, inputs: Inputs, shapes: Sequence[Architecture], *, most: float) -> float:
        """The limit of predicted times at which students of this kind take `most` in truth."""
        costs = inputs.space.costs
        predicted = [costs.costs(shape, [LATENCY])[LATENCY] for shape in shapes]
        measured = timed(self.options, shapes)
        ratio = median(p / m for p, m in zip(predicted, measured, strict=True))
        return most * float(ratio)


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
