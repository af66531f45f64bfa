"""Training of a block library in one process: some of its layers, at all sizes.

Block-wise distillation as in Puzzle (arXiv 2411.19146), nested: each step draws a size for each
layer, which is a prefix of one weight. Layers are independent of each other, so that which of them
are trained together changes nothing.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.files import write_directory_atomically
from common.progress import Throttle
from common.signals import parent_watch
from distill import Corpus
from distill.loss import with_fast_products
from distill.recipes import BlockAlignment, BlockMap, BlockwiseSettings
from distill.train import TrainingData, gathered_weights, write_model
from pruning import (
    ATTENTION,
    FFN,
    Architecture,
    Block,
    Checkpoint,
    architecture_of,
    family_of,
    parameter_count,
)
from pruning.slicing import ALONE, NestedLayers
from search.library.draws import DrawSampler, draws_of
from search.space.variants import NOTHING, LayerVariants, loadable
from search.workers.candidate import SearchAssets

CHECKS = 10
"""Errors of all sizes are measured so often, evenly spaced, besides at the beginning."""
FIRST_STOP, WINDOW = 5, 3
"""The first of them after which a layer may stop, since errors may rise at the beginning, where the
learning rate is high; and over how many of them errors are compared."""
PROBES = 8
"""Selection sequences that they are measured on, at most."""
LEAST_ERROR = 1e-12
ALONE_SHARE = 1 / 3
"""Of the tokens, for FFNs of layers without attention."""
REPORT = "block-errors.json"
"""In the folder of trained layers."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a library is trained from, and how. A value: any process can take a job of it up."""

    assets: SearchAssets
    """Sorted teacher and corpus."""
    variants: tuple[LayerVariants, ...]
    """Sizes of each of the teacher's layers."""
    settings: BlockwiseSettings
    """Of all schedules together; the learning rate is given."""
    separate: bool
    """Whether each attention and FFN is trained in a run of its own; else all nested in one, and
    those FFNs in another that are for layers without attention."""
    plateau: float
    """A layer stops when its errors fell by less than this share over `WINDOW` checks; 0: never."""
    checkpoint_seconds: float
    """Least seconds between two checkpoints."""

    @property
    def schedules(self) -> dict[str, list[int]]:
        """The layers that have something to train in each schedule, as `draws_of` has them."""
        names = {draw.name for variants in self.variants for draw in draws_of(variants)}
        layers = {
            name: [i for i, variants in enumerate(self.variants) if draws_of(variants, name)]
            for name in (sorted(names) if self.separate else ("", ALONE))
        }
        return {name: trained for name, trained in layers.items() if trained}

    def settings_of(self, schedule: str) -> BlockwiseSettings:
        """The settings of one schedule, with its share of the tokens."""
        schedules = self.schedules
        share = ALONE_SHARE if schedule == ALONE else 1 - ALONE_SHARE
        if self.separate or len(schedules) == 1:
            share = 1 / len(schedules)
        return replace(self.settings, tokens=max(1, int(self.settings.tokens * share)))


@dataclass(frozen=True)
class TrainingJob:
    """Layers that are trained together in one process."""

    layers: tuple[int, ...]
    """The teacher's layers, in order."""
    schedule: str = ""
    """What is trained of them, as `draws_of` has it."""

    @property
    def name(self) -> str:
        """Of its files."""
        first, last = self.layers[0], self.layers[-1]
        return f"{folder_of(self.schedule)}-layers-{first}-{last}"


def folder_of(schedule: str) -> str:
    """The folder of a schedule in a library, and the beginning of the names of its jobs."""
    return schedule.replace("/", "-").replace(" ", "-") or "nested"


class BlockTraining:
    """Run of block-wise distillation of some layers, from its beginning or its checkpoint."""

    def __init__(self, plan: TrainingPlan, job: TrainingJob):
        """Loads the layers, and the teacher as far as they need it."""
        self.plan, self.job = plan, job
        assets, config = plan.assets, Checkpoint(plan.assets.sorted_teacher).config
        corpus, device = Corpus(assets.corpus), torch.device(assets.device)
        narrow = plan.settings.precision == "bf16"
        dtype = torch.bfloat16 if narrow else getattr(torch, assets.teacher_dtype)
        teacher: Any = assets.source.layers(
            loadable(config, range(job.layers[-1] + 1)), dtype=dtype
        )
        student: Any = assets.source.layers(job.layers, dtype=torch.float32)
        self.teacher = with_fast_products(teacher.to(device)).requires_grad_(False)
        self.student = student.to(device)
        if assets.training.gradient_checkpointing:
            self.student.gradient_checkpointing_enable()
        self.family = family_of(config)
        self.nested, self.whole = NestedLayers(self.student), NestedLayers(self.teacher)
        self.variants = [plan.variants[layer] for layer in job.layers]
        self.draws = [draws_of(variants, job.schedule) for variants in self.variants]
        self.samplers = [
            DrawSampler(draws, layer, parameters=_counting(config, layer), seed=assets.seed)
            for layer, draws in zip(job.layers, self.draws, strict=True)
        ]
        self.run = BlockAlignment(
            self.student,
            self.teacher,
            mapping=BlockMap(job.layers, tuple(range(config.hidden_size))),
            data=TrainingData(corpus.blocks("train"), None, assets.seed),
            settings=plan.settings_of(job.schedule),
        )
        self.run.before_step = self._draw
        probes = corpus.blocks("selection")[:PROBES]
        self.probes = torch.from_numpy(np.asarray(probes).astype(np.int64))
        total = self.run.total_steps
        self.checks = sorted({round(check * total / CHECKS) for check in range(CHECKS + 1)})
        self.curve: list[dict[str, Any]] = []
        """Errors by optimiser step, as JSON has them."""

    def train(self, checkpoint: Path, after_save: Callable[[], None] = lambda: None) -> None:
        """Train to the end, from `checkpoint` where there is one."""
        if checkpoint.exists():
            self.curve[:] = self.run.restore(checkpoint)["curve"]
        due, orphaned = Throttle(self.plan.checkpoint_seconds), parent_watch()

        def after_step() -> None:
            if due():
                orphaned()
                self.run.save(checkpoint, curve=self.curve)
                after_save()

        with self.nested:
            while True:
                self._check()
                if self.run.finished:
                    return
                coming = min(check for check in self.checks if check > self.run.step)
                self.run.advance(coming - self.run.step, after_step)

    def write(self, directory: Path) -> None:
        """Write the trained layers, as files of a model have them, and the errors on the way."""
        prefix = self.family.layer_prefix
        weights = gathered_weights(self.student, torch.float32)
        layers = {name: weights[name] for name in weights if name.startswith(prefix)}
        report = {
            "layers": list(self.job.layers),
            "schedule": self.job.schedule,
            "tokens": self.run.tokens,
            "stopped": {self.job.layers[place]: step for place, step in self.stops()},
            "curve": self.curve,
        }

        def fill(aside: Path) -> None:
            write_model(self.student, layers, aside)
            (aside / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

        write_directory_atomically(directory, fill)

    def _draw(self, step: int) -> None:
        """Have every layer run at the sizes of a step."""
        for place, sampler in enumerate(self.samplers):
            self.resize(place, sampler.at(step).block)

    def resize(self, place: int, block: Block) -> None:
        """Have a layer run at these sizes; beside an attention, an FFN of full size is the
        teacher's, and the other way round."""
        own = self.variants[place].parent
        whole = dict(self.whole.layers[self.job.layers[place]].named_parameters())
        full = {
            kind: block.part(kind) == own.part(kind) and block.has_attention
            for kind in (ATTENTION, FFN)
        }
        parameters: dict[str, Tensor] = dict(self.nested.layers[place].named_parameters())
        for name, parameter in parameters.items():
            if full[self.family.sub_block(name)]:
                parameters[name] = whole[name].to(parameter.dtype)
        self.nested.resize(place, block, parameters=parameters)

    def _check(self) -> None:
        """Measure the errors of all sizes where that is due, and stop layers on their plateau."""
        step = self.run.step
        if step not in self.checks or (self.curve and self.curve[-1]["step"] == step):
            return
        count = max(map(len, self.draws))
        arrangements = [partial(self._arrange, number) for number in range(count)]
        found = self.run.errors(self.probes, arrangements).tolist()
        errors = {
            str(layer): {draw.name: found[i][place] for i, draw in enumerate(draws)}
            for place, (layer, draws) in enumerate(zip(self.job.layers, self.draws, strict=True))
        }
        self.curve.append({"step": step, "errors": errors})
        self.run.stopped.update(place for place, stop in self.stops() if stop == step)

    def _arrange(self, number: int) -> None:
        """Have every layer run at the size of this number, if it has so many."""
        for place, draws in enumerate(self.draws):
            if number < len(draws):
                self.resize(place, draws[number].block)

    def stops(self) -> list[tuple[int, int]]:
        """(place of a layer, the step that it stopped at) of those on their plateau."""
        stops: list[tuple[int, int]] = []
        if not self.plan.plateau:
            return stops
        for place, layer in enumerate(self.job.layers):
            logs = [_mean_log(row["errors"][str(layer)]) for row in self.curve]
            for check in range(FIRST_STOP, len(logs)):
                if 1 - math.exp(logs[check] - logs[check - WINDOW]) < self.plan.plateau:
                    stops.append((place, self.curve[check]["step"]))
                    break
        return stops


def _mean_log(errors: Mapping[str, float]) -> float:
    return float(np.mean([math.log(max(error, LEAST_ERROR)) for error in errors.values()]))


def _counting(config: PretrainedConfig, layer: int) -> Callable[[Block], int]:
    """Counts the parameters of an attention or FFN of a layer."""
    hidden = architecture_of(config).hidden

    def count(part: Block) -> int:
        return parameter_count(config, Architecture.of_blocks(hidden, [part]), kept=[layer])

    outside = count(NOTHING)
    return lambda part: count(part) - outside
