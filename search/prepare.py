"""What a study computes once: packed tokens, importance, the sorted teacher, teacher targets."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from distill import (
    Corpus,
    CorpusPlan,
    evaluation_format,
    resolve_precision,
)
from distill.atomic import write_file_atomically
from distill.optimizers import check_optimizer
from distill.settings import MINIMUM_STEPS, ResolvedTraining
from distill.stages import TargetSpace, read_blocks, stored_targets, training_format
from distill.targets import SHARD_BLOCKS, TargetFormat, TargetRequest
from distill.tasks import check_tasks
from search.candidate import SearchAssets
from search.config import SearchConfig
from search.correcting import Correcting
from search.errors import SearchError
from search.fitting import Need
from search.imports import is_import_path, load_pruner
from search.loaded_model import LoadedModel
from search.members import Member, members_of, times_wanted
from search.objectives import Objectives, require_tasks
from search.outlook import LastRuns
from search.proof import SliceProof
from search.samplers import make_sampler
from search.sorting import Sorter
from search.space import Space
from search.teacher import Teacher
from search.text import NEEDED, planned_text, require_known_reading
from search.trial_memory import TrialMemory
from search.workspace import Workspace, fingerprint, fingerprint_files

LONGEST_BLOCK = 1024
Say = Callable[[str], None]
PROOF = "proof.txt"
"""In a sorted teacher that was proven to be the teacher."""


@dataclass(frozen=True)
class Inputs:
    """What the user gave, read and checked; nothing computed yet."""

    config: SearchConfig
    teacher: Teacher
    text: CorpusPlan
    members: tuple[Member, ...]
    """What is looked for: one student, or a family's, the largest first."""
    block: int
    device: torch.device
    precision: str

    @classmethod
    def read(cls, config: SearchConfig, say: Say = print) -> "Inputs":
        """Raises SearchError, PruningError or DistillError for what cannot be used.

        Nothing is written into the workspace but latencies, where they are asked for.
        """
        device = resolve_device(config.device)
        check_optimizer(config.training)
        if is_import_path(config.sampler.name):
            make_sampler(config.sampler.name, config.seed, config.sampler.startup)
        if config.halving.own_pruner:
            load_pruner(config.halving.stopper)
        precision = resolve_precision(config.training.precision, device)
        teacher = Teacher.open(config.teacher)
        block = config.block or min(LONGEST_BLOCK, teacher.positions)
        if block > teacher.positions:
            raise SearchError(
                f"--block is {block}, but the teacher has only {teacher.positions} positions"
            )
        if config.short_tokens < block:
            raise SearchError(
                f"--short_tokens is {config.short_tokens}, less than one block of {block} tokens"
            )
        if config.training.batch is not None:
            _require_a_step(config, config.training.batch * block)
        measured = bool(times_wanted(config))
        arguments = config, teacher.config, block, device.type, say
        members = () if measured else members_of(*arguments)
        text = planned_text(config, teacher, block, config.assistant_only)
        teacher.check()
        if config.tasks is not None:
            check_tasks(config.tasks)
            require_tasks(Objectives.of(config.objectives).tasks, config.tasks)
        if measured:  # takes a minute, and so comes after everything that may be refused
            members = members_of(*arguments)
        return cls(
            config=config,
            teacher=teacher,
            text=text,
            members=members,
            block=block,
            device=device,
            precision=precision,
        )

    @property
    def space(self) -> Space:
        """The space of the largest student that is looked for."""
        return self.members[0].space

    def fingerprint_parts(self, training: ResolvedTraining) -> dict[str, Any]:
        """What must not change in a study, by name; content, never paths."""
        config = self.config
        return {
            "teacher": self.teacher.weights_fingerprint(),
            "tokenizer": self.teacher.tokenizer_fingerprint(),
            "block": self.block,
            "splits": asdict(config.splits),
            "assistant_only": config.assistant_only,
            "calibration": config.calibration,
            "importance": asdict(config.importance),
            "correction": asdict(config.correction),
            "space": self.space.choices,
            "serve_with": config.serve_with or None,
            "budget": [str(member.budget) for member in self.members],
            "limits": asdict(config.budget) | {"latency_table": None},
            "served": str(self.space.costs),
            "latency": self._latency_fingerprint(),
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
            **self.teacher.precision_part(config.teacher_precision),
        }

    @property
    def teacher_dtype(self) -> torch.dtype:
        """Type that the teacher is held and computes in."""
        return self.teacher.dtype_in(self.config.teacher_precision)

    @cached_property
    def model(self) -> LoadedModel:
        """The teacher, to be asked."""
        return LoadedModel(self.teacher, self.device, self.teacher_dtype)

    def _latency_fingerprint(self) -> str | None:
        """Of the measured times, since the feasible architectures hang on them."""
        table = self.space.costs.latency
        if table is None:
            return None
        return fingerprint([shape.to_dict() for shape in table.shapes], dict(table.times))

    def _tasks_fingerprint(self) -> str | None:
        """Of tasks that are objectives: their files and how many questions are asked."""
        config = self.config
        if config.tasks is None or not Objectives.of(config.objectives).tasks:
            return None
        files = sorted(config.tasks.glob("*.yaml"))
        return fingerprint(fingerprint_files(files), config.task_questions)

    def needed_tokens(self, recorded: dict[str, Any] | None) -> int | None:
        """Training tokens that the study's first start read, or None where it read all."""
        if recorded is not None:
            require_known_reading(recorded)
            known: int | None = recorded[NEEDED]
            return known
        config = self.config
        longest = max(config.full_tokens, config.scratch_tokens or 0, config.correction.tokens)
        return max(longest, config.calibration * self.block)

    def packed(self, recorded: dict[str, Any] | None, root: Path, say: Say) -> Corpus:
        """The corpus as the study's first start packed it, in the workspace `root`."""
        tokenizer = self.teacher.tokenizer
        plan = self.text.needing(self.needed_tokens(recorded))
        corpus = plan.packed(tokenizer, self.teacher.tokenizer_fingerprint(), root=root, say=say)
        corpus.require_known(self.teacher.config.vocab_size, tokenizer, "the teacher")
        return corpus

    def resolved_training(self, recorded: dict[str, Any] | None) -> ResolvedTraining:
        """Settings with what the study's first start derived from `full_tokens` filled in."""
        training = self.config.training.resolved(
            self.config.full_tokens,
            self.block,
            precision=self.precision,
            known_batch=recorded["training"]["batch"] if recorded else None,
        )
        _require_a_step(self.config, training.batch * self.block)
        return training

    def need(self, training: ResolvedTraining) -> Need:
        """What memory a run takes, of the student of all members that takes most."""
        narrow = self.precision == "bf16"
        size = torch.bfloat16.itemsize if narrow else self.teacher_dtype.itemsize
        held = self.teacher.parameters * size
        memory = TrialMemory(self.teacher.config, training, self.block, self.precision, held)
        spaces = [member.space for member in self.members]
        return Need.of(spaces, memory, self.device.type == "cuda")

    def warnings(self, training: ResolvedTraining) -> list[str]:
        steps = self.config.full_tokens // (training.batch * self.block)
        if steps >= MINIMUM_STEPS:
            return []
        return [
            f"warning: a full run has only {steps} optimiser steps; raise --full_tokens or lower "
            "--training.batch"
        ]


def _require_a_step(config: SearchConfig, step: int) -> None:
    """Raises SearchError for short runs of less than a step of so many tokens."""
    if config.short_tokens < step:
        raise SearchError(
            f"--short_tokens is {config.short_tokens}, less than one step of {step} tokens; raise "
            "it or lower --training.batch"
        )


def resolve_device(name: str) -> torch.device:
    """The device that a study runs on. Raises SearchError where there is none of that name."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SearchError("--device is cuda, but torch finds no CUDA device; use cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Preparation:
    """Computes what is missing in the workspace, and says what it does."""

    def __init__(
        self,
        inputs: Inputs,
        training: ResolvedTraining,
        workspace: Workspace,
        corpus: Corpus,
        concurrent: int,
        say: Say,
        correct: bool = True,
    ):
        """`correct` False leaves the teacher as it is, whatever the configuration says."""
        self.inputs = inputs
        self.training = training
        self.workspace = workspace
        self.corpus = corpus
        self.concurrent = concurrent
        self.say = say
        self.correct = correct
        self.teacher = inputs.teacher
        """The one that teaches: that of the user, or corrected."""

    def run(self) -> SearchAssets:
        """All that the runs read, computed or found."""
        corpus = self.corpus
        model = self.inputs.model
        if self.correct and self.inputs.config.correction.tokens:  # another takes its place
            model.release()
            self.teacher = self._correcting(corpus).teacher(self.teacher, self.workspace, self.say)
            model = model.like(self.teacher)
        plan = self._target_plan(corpus)
        self._say_disk(plan)
        sorted_teacher = self._sorted(corpus, model, "teacher")
        for split, (blocks, form, directory) in plan.items():
            request = TargetRequest(blocks, form, directory)
            stored_targets(model, request, split=split, say=self.say)
        model.release()  # the memory is the trials' now
        return SearchAssets(
            sorted_teacher=sorted_teacher,
            teacher=self.teacher.directory.absolute(),
            vocabulary=self.inputs.teacher.config.vocab_size,
            corpus=corpus.directory,
            training_targets=plan["train"][2] if "train" in plan else None,
            selection_targets=plan["selection"][2],
            test_targets=plan["test"][2],
            training=self.training,
            seed=self.inputs.config.seed,
            device=str(self.inputs.device),
            precision=self.inputs.precision,
            teacher_dtype=str(self.inputs.teacher_dtype).removeprefix("torch."),
        )

    def _sorted(self, corpus: Corpus, model: LoadedModel, what: str) -> Path:
        """A model sorted, with proof before its importance is measured and after it was written."""
        sorter, source = self._sorter(corpus), model.source
        proof = SliceProof(model, corpus.calibration(1)[0])
        if not sorter.directory(source).exists():
            self.say(proof.shuffled())
        directory = sorter.sorted_model(source, model, what)
        if not (directory / PROOF).exists():
            line = proof.sorted(directory)
            write_file_atomically(directory / PROOF, line + "\n")
            self.say(line)
        return directory

    @property
    def teacher_name(self) -> str:
        """Of the teacher's answers: its weights, and what it computes in if not fp32."""
        return "-".join([self.teacher.weights_fingerprint(), *self._precision.values()])

    @property
    def _precision(self) -> dict[str, str]:
        return self.teacher.precision_part(self.inputs.config.teacher_precision)

    def _correcting(self, corpus: Corpus) -> Correcting:
        config = self.inputs.config
        return Correcting(
            config.correction,
            self.training,
            corpus,
            self.corpus.digest,
            config.seed,
            self.inputs.precision,
            self.inputs.device,
            config.checkpoint_seconds,
        )

    def _target_plan(self, corpus: Corpus) -> dict[str, tuple[Any, TargetFormat, Path]]:
        """Per split: the blocks in slot order, the format, and where the targets go.

        Without the training split where the teacher is live.
        """
        config, training = self.inputs.config, self.training
        vocabulary = self.inputs.teacher.config.vocab_size
        scored = evaluation_format(vocabulary)
        plan: dict[str, tuple[Any, TargetFormat, Path]] = {}
        for split in ("selection", "test"):
            name = fingerprint(self.teacher_name, self.corpus.digest, asdict(scored), SHARD_BLOCKS)
            plan[split] = (corpus.blocks(split), scored, self.workspace.targets(split, name))
        longest = max(config.full_tokens, config.scratch_tokens or 0)
        blocks = read_blocks(corpus, longest, batch=training.batch, seed=config.seed)
        form = training_format(
            training,
            vocabulary,
            tokens=len(blocks) * corpus.block,
            space=TargetSpace(config.targets_gb, self._bytes(plan)),
            seed=config.seed,
        )
        if form is not None:
            name = fingerprint(
                self.teacher_name,
                self.corpus.digest,
                asdict(form),
                config.seed,
                SHARD_BLOCKS,
            )
            plan["train"] = (blocks, form, self.workspace.targets("train", name))
        return plan

    def _bytes(self, plan: dict[str, tuple[Any, TargetFormat, Path]]) -> int:
        return sum(
            len(blocks) * self.inputs.block * form.bytes_per_token
            for blocks, form, _ in plan.values()
        )

    def _say_disk(self, plan: dict[str, tuple[Any, TargetFormat, Path]]) -> None:
        targets = self._bytes(plan)
        config = self.inputs.config
        teacher_bytes = self.inputs.teacher.parameters * self.inputs.teacher.dtype.itemsize
        student = max(max(m.space.parameters) for m in self.inputs.members)
        step = self.training.batch * self.inputs.block
        last = LastRuns.of(config, step, staged=len(self.inputs.members) > 1)
        copies = config.winners + config.ties + 1  # best/ and winners/; one may be a baseline
        of_trials = config.trials if last.stage.repeats_trials else 0
        written = (last.count + copies + of_trials) * len(self.inputs.members)
        kept = written * student * self.inputs.teacher.dtype.itemsize
        checkpoints = (self.concurrent + 1) * 2 * student * 12
        needed = targets + teacher_bytes + kept + checkpoints
        self.say(
            f"disk: at most {needed / 1e6:,.0f} MB (targets {targets / 1e6:,.0f}, sorted teacher "
            f"{teacher_bytes / 1e6:,.0f}, checkpoints {checkpoints / 1e6:,.0f}, students "
            f"{kept / 1e6:,.0f})"
        )
        self.workspace.require_space(int(needed) - self.workspace.used())

    def _sorter(self, corpus: Corpus) -> Sorter:
        config, members = self.inputs.config, self.inputs.members
        return Sorter(
            settings=config.importance,
            corpus=corpus,
            corpus_name=self.corpus.digest,
            calibration=config.calibration,
            spans=any(1 in member.space.choices["contiguous"] for member in members),
            seed=config.seed,
            serve_with=tuple(config.serve_with),
            workspace=self.workspace,
            say=self.say,
            precision=self._precision,
        )

    def sorted_student(self, directory: Path, name: str) -> Path:
        """A finished student, sorted, for smaller ones to be cut from."""
        model = self.inputs.model.like(Teacher(directory))
        return self._sorted(self.corpus, model, f"member {name}")
