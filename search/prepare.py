"""What a study computes once: packed tokens, importance, the sorted teacher, teacher targets."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import (
    Corpus,
    Document,
    Targets,
    default_batch,
    evaluation_format,
    pack_corpus,
    read_documents,
    resolve_precision,
    slot_blocks,
    write_targets,
)
from distill.targets import SHARD_BLOCKS, TargetFormat
from distill.tasks import check_tasks
from distill.training import MINIMUM_STEPS, TrainingSettings
from pruning import (
    Importance,
    Ordering,
    architecture_of,
    measure_importance,
    write_sorted_teacher,
)
from pruning.moments import measure_moments
from search.candidate import Assets
from search.config import SearchConfig
from search.errors import SearchError
from search.space import Budget, Space
from search.teacher import Teacher
from search.workspace import Workspace, fingerprint, shown_bytes

LONGEST_BLOCK = 1024
CALIBRATION_BATCH = 16
ENERGY_SEQUENCES = 64
"""Sequences that the size of the norms' inputs is measured on, at most."""


@dataclass(frozen=True)
class Inputs:
    """What the user gave, read and checked; nothing computed yet."""

    config: SearchConfig
    teacher: Teacher
    documents: list[Document]
    corpus_fingerprint: str
    budget: Budget
    space: Space
    block: int
    device: torch.device
    precision: str

    @classmethod
    def read(cls, config: SearchConfig) -> "Inputs":
        """Raises SearchError, PruningError or DistillError for what cannot be used."""
        device = resolve_device(config.device)
        precision = resolve_precision(config.training.precision, device)
        teacher = Teacher.open(config.teacher)
        budget = Budget.of(config.budget, teacher.parameters)
        space = Space.build(teacher.config, config.space, budget)
        block = config.block or min(LONGEST_BLOCK, teacher.positions)
        if block > teacher.positions:
            raise SearchError(
                f"--block is {block}, but the teacher has only {teacher.positions} positions"
            )
        if config.short_tokens < block:
            raise SearchError(
                f"--short_tokens is {config.short_tokens}, less than one block of {block} tokens"
            )
        files = config.corpus_files
        documents = list(read_documents(config.corpus, tuple(files.include), tuple(files.exclude)))
        teacher.checkpoint.check()
        if config.tasks is not None:
            check_tasks(config.tasks)
        return cls(
            config=config,
            teacher=teacher,
            documents=documents,
            corpus_fingerprint=fingerprint_documents(documents),
            budget=budget,
            space=space,
            block=block,
            device=device,
            precision=precision,
        )

    def fingerprint_parts(self, training: TrainingSettings) -> dict[str, Any]:
        """What must not change in a study, by name; content, never paths."""
        config = self.config
        return {
            "teacher": self.teacher.weights_fingerprint(),
            "tokenizer": self.teacher.tokenizer_fingerprint(),
            "corpus": self.corpus_fingerprint,
            "block": self.block,
            "splits": asdict(config.splits),
            "calibration": config.calibration,
            "importance": asdict(config.importance),
            "space": self.space.choices,
            "budget": [self.budget.smallest, self.budget.largest],
            "training": asdict(training),
            "short_tokens": config.short_tokens,
            "halving": asdict(config.halving),
            "sampler": config.sampler,
            "seed": config.seed,
            "seeds": config.seeds,
            "precision": self.precision,
            "device": self.device.type,
        }

    def resolved_training(self, recorded: dict[str, Any] | None) -> TrainingSettings:
        """Settings with what the study's first start derived from `full_tokens` filled in."""
        training = self.config.training
        batch = training.batch
        if batch is None and recorded:
            batch = recorded["training"]["batch"]
        if batch is None:
            batch = default_batch(self.config.full_tokens, self.block)
        if self.config.short_tokens < batch * self.block:
            raise SearchError(
                f"--short_tokens is {self.config.short_tokens}, less than one step of "
                f"{batch * self.block} tokens; raise it or lower --training.batch"
            )
        topk = min(training.topk, self.teacher.config.vocab_size - 1)
        return replace(training, batch=batch, topk=topk, precision=self.precision)

    def warnings(self, training: TrainingSettings) -> list[str]:
        assert training.batch is not None
        steps = self.config.full_tokens // (training.batch * self.block)
        if steps >= MINIMUM_STEPS:
            return []
        return [
            f"warning: a full run has only {steps} optimiser steps; raise --full_tokens or lower "
            "--training.batch"
        ]


def fingerprint_documents(documents: list[Document]) -> str:
    """A short name for the documents and their order."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.name, document.text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


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
        training: TrainingSettings,
        workspace: Workspace,
        concurrent: int,
        say: Callable[[str], None],
    ):
        self.inputs = inputs
        self.training = training
        self.workspace = workspace
        self.concurrent = concurrent
        self.say = say
        self.teacher_name = inputs.teacher.weights_fingerprint()
        self.corpus_name = fingerprint(
            inputs.corpus_fingerprint,
            inputs.teacher.tokenizer_fingerprint(),
            inputs.block,
            asdict(inputs.config.splits),
        )
        self._model: Any = None

    def run(self) -> Assets:
        """All that the runs read, computed or found."""
        corpus = self._corpus()
        plan = self._target_plan(corpus)
        self._say_disk(plan)
        sorted_teacher = self._sorted_teacher(corpus)
        for split, (blocks, form, directory) in plan.items():
            self._targets(split, blocks, form, directory)
        self._model = None
        if self.inputs.device.type == "cuda":
            torch.cuda.empty_cache()  # the memory is the trials' now
        return Assets(
            sorted_teacher=sorted_teacher,
            corpus=corpus.directory,
            training_targets=plan["train"][2],
            selection_targets=plan["selection"][2],
            test_targets=plan["test"][2],
            training=self.training,
            seed=self.inputs.config.seed,
            device=str(self.inputs.device),
            precision=self.inputs.precision,
        )

    def _teacher(self) -> Any:
        if self._model is None:
            self._model = self.inputs.teacher.load(self.inputs.device)
        return self._model

    def _corpus(self) -> Corpus:
        directory = self.workspace.corpus(self.corpus_name)
        if not directory.exists():
            self.say(f"corpus: packing {len(self.inputs.documents):,} documents")
            pack_corpus(
                lambda: self.inputs.documents,
                self.inputs.teacher.tokenizer,
                self.inputs.block,
                self.inputs.config.splits,
                directory,
            )
        corpus = Corpus(directory)
        shown = ", ".join(
            f"{s} {corpus.facts[f'{s}_tokens']:,}" for s in ("train", "selection", "test")
        )
        self.say(f"corpus: {shown} tokens in blocks of {corpus.block}")
        return corpus

    def _target_plan(self, corpus: Corpus) -> dict[str, tuple[Any, TargetFormat, Path]]:
        """Per split: the blocks in slot order, the format, and where the targets go."""
        training = self.training
        vocabulary = self.inputs.teacher.config.vocab_size
        form = TargetFormat(vocabulary, training.topk, training.temperature)
        available = len(corpus.blocks("train"))
        assert training.batch is not None
        step = training.batch * corpus.block
        read = max(1, self.inputs.config.full_tokens // step) * training.batch
        order = slot_blocks(available, self.inputs.config.seed)[: min(read, available)]
        name = fingerprint(
            self.teacher_name, self.corpus_name, asdict(form), self.inputs.config.seed, SHARD_BLOCKS
        )
        plan: dict[str, tuple[Any, TargetFormat, str]] = {
            "train": (_Ordered(corpus.blocks("train"), order), form, name)
        }
        scored = evaluation_format(vocabulary)
        for split in ("selection", "test"):
            name = fingerprint(self.teacher_name, self.corpus_name, asdict(scored), SHARD_BLOCKS)
            plan[split] = (corpus.blocks(split), scored, name)
        return {
            split: (blocks, form, self.workspace.targets(split, name))
            for split, (blocks, form, name) in plan.items()
        }

    def _say_disk(self, plan: dict[str, tuple[Any, TargetFormat, Path]]) -> None:
        targets = sum(
            len(blocks) * self.inputs.block * form.bytes_per_token
            for blocks, form, _ in plan.values()
        )
        limit = self.inputs.config.targets_gb * 1e9
        if targets > limit:
            raise SearchError(
                f"the teacher's targets need {shown_bytes(targets)}, above --targets_gb "
                f"{self.inputs.config.targets_gb:g}; raise it, or lower --full_tokens, "
                "--training.topk, --splits.selection_tokens or --splits.test_tokens"
            )
        config = self.inputs.config
        teacher_bytes = self.inputs.teacher.parameters * self.inputs.teacher.dtype.itemsize
        student = self.inputs.budget.largest
        runs = 2 * config.winners + 3 * config.seeds + 2
        kept = runs * student * self.inputs.teacher.dtype.itemsize
        checkpoints = (self.concurrent + 1) * 2 * student * 12
        needed = targets + teacher_bytes + kept + checkpoints
        self.say(
            f"disk: at most {needed / 1e6:,.0f} MB (targets {targets / 1e6:,.0f}, sorted teacher "
            f"{teacher_bytes / 1e6:,.0f}, checkpoints {checkpoints / 1e6:,.0f}, students "
            f"{kept / 1e6:,.0f})"
        )
        self.workspace.require_space(int(needed) - self.workspace.used())

    def _sorted_teacher(self, corpus: Corpus) -> Path:
        config = self.inputs.config
        how = asdict(config.importance)
        name = fingerprint(self.teacher_name, self.corpus_name, config.calibration, how)
        directory = self.workspace.sorted_teacher(name)
        if directory.exists():
            self.say(f"sorted teacher: found {directory.name}")
            return directory
        importance = self._importance(corpus, name)
        teacher = architecture_of(self.inputs.teacher.config)
        ordering = Ordering.from_importance(importance, teacher)
        energies = None
        if config.importance.rms_rescale:
            few = corpus.calibration(min(config.calibration, ENERGY_SEQUENCES))
            energies = measure_moments(self._teacher(), CalibrationBatches(few)).energies
        write_sorted_teacher(self.inputs.teacher.checkpoint, ordering, directory, energies)
        order = ", ".join(str(layer) for layer in ordering.layers.tolist())
        self.say(f"sorted teacher: {directory.name}; layers by importance: {order}")
        return directory

    def _importance(self, corpus: Corpus, name: str) -> Importance:
        path = self.workspace.importance(name)
        if path.exists():
            return Importance.load(path)
        blocks = corpus.calibration(self.inputs.config.calibration)
        started = time.monotonic()
        importance = measure_importance(
            self._teacher(),
            CalibrationBatches(blocks),
            self.inputs.config.importance.score,
            self.inputs.config.importance.layers,
            self.inputs.teacher.checkpoint,
            self.inputs.config.seed,
        )
        aside = path.with_suffix(".tmp")
        importance.save(aside)
        aside.replace(path)
        self.say(f"importance: {len(blocks):,} sequences in {time.monotonic() - started:.0f} s")
        return importance

    def _targets(self, split: str, blocks: Any, form: TargetFormat, directory: Path) -> Targets:
        needed = -(-len(blocks) // SHARD_BLOCKS)
        targets = Targets(directory)
        if directory.exists() and targets.holds(len(blocks)):
            self.say(f"targets: {split} found")
            return targets
        kind = "whole distribution" if form.full else f"top {form.topk} and the rest"
        size = len(blocks) * self.inputs.block * form.bytes_per_token / 1e6
        self.say(
            f"targets: {split}, {kind}, {form.bytes_per_token:,} bytes per token, {size:,.0f} MB "
            f"in {needed} shards"
        )
        total = len(blocks) * self.inputs.block

        def progress(done: int, of: int, speed: float) -> None:
            left = (of - done) * self.inputs.block / speed
            if done < of:
                self.say(
                    f"targets: {split} {done * self.inputs.block:,} of {total:,} tokens, "
                    f"{speed:,.0f} tokens/s, {left:.0f} s left"
                )

        return write_targets(self._teacher(), blocks, form, directory, progress=progress)


@dataclass(frozen=True)
class CalibrationBatches:
    """Token ids [batch, sequence] of calibration blocks, as often as they are asked for."""

    blocks: Any
    """[sequences, sequence]."""
    batch: int = CALIBRATION_BATCH

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.blocks), self.batch):
            yield torch.from_numpy(self.blocks[start : start + self.batch].astype("int64"))


@dataclass(frozen=True)
class _Ordered:
    """Rows of a memory-mapped array in another order, read when asked for."""

    rows: Any
    order: Any

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.order), self.rows.shape[1])

    def __getitem__(self, where: slice) -> Any:
        return self.rows[self.order[where]]
