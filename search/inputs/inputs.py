"""The inputs of a study: all that the user gave, read and checked before anything is computed."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import SearchError
from common.fingerprint import fingerprint
from distill import Corpus, resolve_precision
from distill.evaluation import TaskSet, check_tasks, named_fingerprint
from distill.train import LIVE, MINIMUM_STEPS, ResolvedTraining, check_optimizer
from pruning import architecture_of, layers_alike
from pruning.exports import MULTIMODAL, check_type
from pruning.families import EXPERT_AXES, SSM_AXES
from pruning.importance import OUTPUT_NORM
from search.cluster.fitting import Need
from search.config.objectives import Objectives, require_tasks
from search.config.plugins import is_import_path
from search.config.study import SearchConfig
from search.inputs.members import (
    Member,
    cost_model,
    members_of,
    plan_of,
    timed_members,
    times_wanted,
)
from search.inputs.outline import StudyOutline, block_of, training_of
from search.per_layer.planning import PerLayerPlan, layer_variants
from search.samplers.factory import make_sampler
from search.space.space import Space
from search.study.stopping import load_pruner
from workspace.corpus import NEEDED, planned_text, require_known_reading
from workspace.layout import Workspace
from workspace.models import ModelSource
from workspace.settings import resolve_device
from workspace.sources import Sources

NEWER_AXES = (*EXPERT_AXES[2:], *SSM_AXES)
"""Axes that studies begun before there were any do not name."""


@dataclass(frozen=True, kw_only=True)
class Inputs(Sources):
    """Teacher, text and configuration of a study, with the space of each student."""

    config: SearchConfig
    """What the user set."""
    members: tuple[Member, ...]
    """What is looked for: one student, or a family's, the largest first."""
    precision: str
    """Type that products are computed in while students train: fp32, tf32 or bf16."""
    per_layer: PerLayerPlan | None = None
    """Students whose layers differ; None where the layers of all are alike."""

    @classmethod
    def read(cls, config: SearchConfig) -> "Inputs":
        """Read and check what `config` names.

        Where latencies are budgets or objectives and are not given, this measures them as its last
        step and writes them into the workspace: no space can be told without them.

        Raises:
            SearchError, PruningError, DistillError: Something cannot be used.
        """
        device = resolve_device(config.device)
        _check_plugins(config)
        _check_spread(config)
        precision = resolve_precision(config.training.precision, device)
        teacher = ModelSource.open(config.teacher)
        check_type(config.export, teacher.config, part=teacher.part)
        _check_hidden(config, teacher)
        block = block_of(config, teacher)
        members: tuple[Member, ...] = ()
        timed = bool(times_wanted(config))
        variants = layer_variants(config, teacher.config, block=block)
        plan: PerLayerPlan | None = None
        if not timed:  # first, since the text takes longer to read
            costs = cost_model(config, teacher.config, block=block)
            members = members_of(config, costs, device=device.type)
            plan = plan_of(config, variants, members[0])
        text = planned_text(config, teacher, block=block, assistant_only=config.assistant_only)
        teacher = teacher.placed(Workspace(config.workspace.expanduser().absolute()))
        teacher.check()
        if config.task_names:
            known = check_tasks(TaskSet.of(config.task_names))
            wanted = Objectives.of(config.objectives).tasks
            require_tasks(wanted, known, given=config.task_names)
        if timed:  # takes a minute, and so comes after everything that may be refused
            members = timed_members(
                config, teacher.config, variants=variants, block=block, device=device.type
            )
            plan = plan_of(config, variants, members[0])
        return cls(
            config=config,
            teacher=teacher,
            text=text,
            members=members,
            device=device,
            teacher_precision=config.teacher_precision,
            spread=config.spread,
            precision=precision,
            per_layer=plan,
        )

    @property
    def space(self) -> Space:
        """The space of the largest student that is looked for."""
        return self.members[0].space

    @property
    def tasks(self) -> TaskSet:
        """Those that the user named."""
        return TaskSet.of(self.config.task_names)

    def fingerprint_parts(self, training: ResolvedTraining) -> dict[str, Any]:
        """What must not change in a study, by name; content, never paths."""
        config = self.config
        return {
            "teacher": self.teacher.weights_fingerprint(),
            "tokenizer": self.teacher.tokenizer_fingerprint(),
            "block": self.block,
            "splits": asdict(config.splits),
            "assistant_only": config.assistant_only,
            "calibration": config.calibration_sequences,
            "importance": self._importance_fingerprint(),
            "correction": asdict(config.correction),
            "space": {
                axis: sizes
                for axis, sizes in self.space.choices.items()
                if sizes != [0] or axis not in NEWER_AXES
            },
            "serve_with": config.serve_with or None,
            "budget": [str(member.budget) for member in self.members],
            "limits": asdict(config.budget) | {"latency_table": None},
            "served": str(self.space.costs),
            "latency": self._latency_fingerprint(),
            "per_layer": self._per_layer_fingerprint(),
            "objectives": config.objectives,
            "tasks": self._tasks_fingerprint(),
            "scratch_tokens": config.scratch_tokens,
            "training": asdict(training),
            "short_tokens": config.short_tokens,
            "halving": asdict(config.halving),
            "sampler": asdict(config.sampler),
            "funnel": asdict(config.funnel),
            "seed": config.seed,
            "precision": self.precision,
            "device": self.device.type,
            **self.precision_part,
        }

    def _importance_fingerprint(self) -> dict[str, Any]:
        """Of the scores; those of parts that the teacher has not do not count."""
        settings, whole = asdict(self.config.importance), architecture_of(self.teacher.config)
        if not whole.ssm_heads:
            del settings["ssm_score"]
        if not whole.experts or settings["experts"] == OUTPUT_NORM:  # as before there was another
            del settings["experts"]
        if layers_alike(self.teacher.config):
            del settings["least_layers"]
        return settings

    def _latency_fingerprint(self) -> str | None:
        """Of the measured times, since the feasible architectures hang on them."""
        table = self.space.costs.latency
        if table is None:
            return None
        return fingerprint([shape.to_dict() for shape in table.shapes], dict(table.times))

    def _per_layer_fingerprint(self) -> dict[str, Any] | None:
        """Of the blocks that layers may be, how they learn and how they are chosen."""
        plan, config = self.per_layer, self.config
        if plan is None:
            return None
        times = self.space.costs.block_latency
        return asdict(config.per_layer) | {
            "sub_blocks": sorted(config.space.per_layer),
            "variants": fingerprint([asdict(variants) for variants in plan.variants]),
            "latency": None if times is None else fingerprint(str(times)),
        }

    def _tasks_fingerprint(self) -> str | None:
        """Of tasks that are objectives: their files, what lm-eval's own ask, and how many questions
        are asked."""
        config, tasks = self.config, self.tasks
        if not Objectives.of(config.objectives).tasks:
            return None
        named = [named_fingerprint(tasks.names)] if tasks.names else []
        return fingerprint(tasks.files_fingerprint, config.task_questions, *named)

    def going_on(self, recorded: dict[str, Any] | None) -> "Inputs":
        """These, with what the study's first start recorded where the user leaves it open."""
        if recorded is None or self.config.calibration is not None:
            return self
        return replace(self, config=replace(self.config, calibration=recorded["calibration"]))

    def needed_tokens(self, recorded: dict[str, Any] | None) -> int | None:
        """Training tokens that the study's first start read, or None where it read all."""
        if recorded is not None:
            require_known_reading(recorded)
            known: int | None = recorded[NEEDED]
            return known
        config = self.config
        longest = max(config.full_tokens, config.scratch_tokens or 0, config.correction.tokens)
        blocks = config.per_layer.tokens if config.space.per_layer else 0
        return max(longest, blocks, config.calibration_sequences * self.block)

    def packed(self, recorded: dict[str, Any] | None, root: Path) -> Corpus:
        """The corpus as the study's first start packed it, in the workspace `root`."""
        return self.pack(
            self.needed_tokens(recorded),
            root,
            vocabulary=self.teacher.config.vocab_size,
            known_to="the teacher",
        )

    def resolved_training(self, recorded: dict[str, Any] | None) -> ResolvedTraining:
        """Settings with what the study's first start derived from `full_tokens` filled in."""
        known = recorded["training"]["batch"] if recorded else None
        return training_of(self.config, self.block, precision=self.precision, known_batch=known)

    def need(self, training: ResolvedTraining, workers: int) -> Need:
        """The memory that a process takes of a run that so many train together, of the student of
        all members that takes most."""
        outline = self.outline(training)
        return outline.need(outline.memory_of(workers), on_gpu=self.device.type == "cuda")

    def outline(self, training: ResolvedTraining) -> StudyOutline:
        """The sizes of it."""
        return StudyOutline(
            config=self.config,
            teacher=self.teacher,
            members=self.members,
            per_layer=self.per_layer,
            block=self.block,
            training=training,
        )

    def warnings(self, training: ResolvedTraining) -> list[str]:
        """Lines about settings that can be used but should not."""
        step = training.batch * self.block
        steps = self.config.full_tokens // step
        if steps >= MINIMUM_STEPS:
            return []
        advice = training.longer_or_fewer("--full_tokens", MINIMUM_STEPS * step, self.block)
        return [f"warning: a full run has only {steps} optimiser steps; {advice}"]


def _check_plugins(config: SearchConfig) -> None:
    """Raises for an optimiser, sampler or pruner that cannot be made."""
    check_optimizer(config.training)
    if is_import_path(config.sampler.name):
        make_sampler(config.sampler.name, config.seed, population=config.sampler.startup)
    if config.halving.own_pruner:
        load_pruner(config.halving.stopper)


def _check_spread(config: SearchConfig) -> None:
    """Raises SearchError where a teacher that fits no device would have to be on one."""
    wanted = {
        "--correction.tokens": config.correction.tokens > 0,
        "--training.targets live": config.training.targets == LIVE,
        "--tasks": bool(config.task_names),
        "--space.per_layer": bool(config.space.per_layer),
    }
    asked = [option for option, given in wanted.items() if given]
    if config.spread and asked:
        raise SearchError(
            f"--spread is for a teacher that fits no single device, and {asked[0]} needs it on "
            "one; leave one of the two out"
        )


def _check_hidden(config: SearchConfig, teacher: ModelSource) -> None:
    """Raises SearchError where students that are to be put back may have another hidden size."""
    hidden = architecture_of(teacher.config).hidden
    if MULTIMODAL in config.export and config.space.hidden != [hidden]:
        raise SearchError(
            f"--export has {MULTIMODAL}, and only students of the teacher's hidden size can be put "
            f"back into the multimodal model; give --space.hidden {hidden}"
        )
