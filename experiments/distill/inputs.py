"""Inputs of one distillation, read and checked before anything is computed."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from common.errors import SearchError
from common.files import write_file_atomically
from common.fingerprint import differences
from common.progress import counted
from common.trackers import require_installed
from distill import Corpus, resolve_precision
from distill.train import (
    FREE_SETTINGS,
    ResolvedTraining,
    check_optimizer,
    check_wandb,
    check_workers,
)
from experiments.distill.config import DistillConfig
from pruning.exports import check_copies
from workspace.corpus import NEEDED, corpus_parts, planned_text, require_known_reading
from workspace.layout import Workspace
from workspace.models import (
    ModelSource,
    block_map,
    check_copy,
    notes_of,
    own_tokenizer,
    precision_note,
    student_named,
)
from workspace.settings import LONGEST_BLOCK, resolve_device
from workspace.sources import Sources

RUN_FACTS = "run.json"
"""In the directory of a run: all that it depends on."""
OWN_NAMES = ("corpus-", "targets-", "teacher-", "correction-", "text-", "trial-", "warm-", ".")
"""What a run that has not come to its training yet leaves in its directory."""


@dataclass(frozen=True, kw_only=True)
class DistillInputs(Sources):
    """Teacher, student, corpus and settings that go together."""

    config: DistillConfig
    """What the user set."""
    student: ModelSource
    """The model that the run begins with."""
    training: ResolvedTraining
    """How the student learns."""
    vocabulary: int
    """Tokens that both models know; what is beyond is padding."""

    @classmethod
    def read(cls, config: DistillConfig, workspace: Workspace) -> "DistillInputs":
        """Read and check what `config` names; the student of a trial is cut into the workspace.

        Raises:
            SearchError, PruningError, DistillError: Something cannot be used.
        """
        device = resolve_device(config.device)
        precision = resolve_precision(config.training.precision, device)
        check_wandb(config.wandb)
        require_installed(config.log_to)
        check_optimizer(config.training)
        _check_device(config.teacher_device)
        require_own(workspace.root)
        teacher = ModelSource.open(config.teacher, prunable=False)
        student = student_named(config.student, workspace)
        check_copies(config.export, student.config, part=teacher.part)
        for form in config.export:
            check_copy(student, form, teacher.part)
        _require_outside(workspace.root, config)
        vocabulary = shared_vocabulary(teacher, student)
        block = block_of(config, teacher=teacher, student=student)
        training = _resolved(config, workspace.root, block=block, precision=precision)
        check_workers(training, config.workers.count)
        if config.warm_start.tokens:
            block_map(student)
        text = planned_text(config, teacher, block=block, assistant_only=config.assistant_only)
        teacher = teacher.placed(workspace)
        for model in (teacher, student):
            model.check()
        return cls(
            config=config,
            teacher=teacher,
            student=student,
            text=text,
            device=device,
            teacher_precision=config.teacher_precision,
            training=training,
            vocabulary=vocabulary,
        )

    @property
    def range_tokens(self) -> int:
        """Training tokens that the range run reads."""
        return self.config.range_steps * self.training.batch * self.block

    def needed_tokens(self, root: Path) -> int:
        """Training tokens that are read; of a run that goes on, as it began."""
        recorded = _recorded(root)
        if recorded is not None:
            require_known_reading(recorded)
            return int(recorded[NEEDED])
        config = self.config
        warm, correction = config.warm_start.tokens, config.correction.tokens
        return max(config.tokens, warm, correction, self.range_tokens)

    def packed(self, root: Path) -> Corpus:
        """The corpus of the run in `root`."""
        needed = self.needed_tokens(root)
        return self.pack(needed, root, vocabulary=self.vocabulary, known_to="both models")

    @cached_property
    def parts(self) -> dict[str, Any]:
        """What must stay the same while a run goes on, besides its corpus, by name; content, never
        paths."""
        config = self.config
        parts = {
            "teacher": self.teacher.weights_fingerprint(),
            "student": self.student.weights_fingerprint(),
            "tokens": config.tokens,
            "targets_gb": config.targets_gb,
            "training": {
                name: value
                for name, value in asdict(self.training).items()
                if name not in FREE_SETTINGS
            },
            "states": asdict(config.states) if config.match_states else None,
            "correction": asdict(config.correction),
            "warm_start": asdict(config.warm_start),
            "range_steps": config.range_steps,
            "plateau": config.plateau,
            "reports": config.reports,
            "seed": config.seed,
            **self.precision_part,
        }
        plain: dict[str, Any] = json.loads(json.dumps(parts))
        return plain

    def require_same_run(self, root: Path, corpus: Corpus | None = None) -> None:
        """Raises SearchError where `root` holds a run with other settings, or another `corpus`."""
        recorded = _recorded(root)
        if recorded is None:
            return
        now = self._all_parts(root, corpus) if corpus else self.parts
        known = _flat(recorded)
        if corpus is None:
            known = {name: part for name, part in known.items() if name not in ("corpus", NEEDED)}
        differing = differences(known, _flat(now))
        if differing:
            raise SearchError(
                f"{root} holds a run with other settings: {'; '.join(differing)}; put them back, "
                "or choose another --output"
            )

    def note_run(self, root: Path, corpus: Corpus) -> None:
        """From now on `root` holds this run."""
        parts = self._all_parts(root, corpus)
        write_file_atomically(root / RUN_FACTS, json.dumps(parts, indent=2))

    def _all_parts(self, root: Path, corpus: Corpus) -> dict[str, Any]:
        return self.parts | corpus_parts(corpus, self.needed_tokens(root))

    def opening_lines(self) -> list[str]:
        """Lines that are printed before anything is computed."""
        own, whole = self.student.parameters, self.teacher.parameters
        workers = self.config.workers.count
        return [
            f"teacher: {whole:,} parameters; student: {own:,} ({own / whole:.1%})",
            f"training: {counted(self.training.batch, 'sequence')} of {self.block} tokens a step, "
            f"{self.training.loss}, {self.training.precision} on {self.device}, "
            f"{workers} worker{'s' if workers > 1 else ''}",
            precision_note(self.teacher_dtype, self.device),
            *notes_of(self.teacher),
            *notes_of(self.student, "student"),
        ]


def block_of(config: DistillConfig, *, teacher: ModelSource, student: ModelSource) -> int:
    """Tokens per sequence. Raises SearchError for more than both models have positions for."""
    positions = min(teacher.positions, student.positions)
    block = config.block or min(LONGEST_BLOCK, positions)
    if block > positions:
        whose = "student" if student.positions == positions else "teacher"
        raise SearchError(f"--block is {block}, but the {whose} has only {positions} positions")
    return block


def require_own(root: Path) -> None:
    """Raises SearchError for a directory that holds something else than a run's files."""
    if not root.is_dir() or (root / RUN_FACTS).exists():
        return
    foreign = [path.name for path in root.iterdir() if not path.name.startswith(OWN_NAMES)]
    if foreign:
        raise SearchError(
            f"{root} holds files of something else, such as {min(foreign)}; give --output a "
            "directory of its own"
        )


def _require_outside(root: Path, config: DistillConfig) -> None:
    for name in ("teacher", "student"):
        path = Path(getattr(config, name)).expanduser().absolute()
        if path == root or root in path.parents:
            raise SearchError(
                f"--{name} is {getattr(config, name)}, which lies in --output {root} and would be "
                "overwritten; give --output a directory of its own"
            )


def _check_device(name: str | None) -> None:
    if name is None:
        return
    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError) as problem:
        raise SearchError(
            f"--teacher_device is {name!r}, which torch cannot use here; give cpu, or cuda:0, ..."
        ) from problem


def _resolved(config: DistillConfig, root: Path, *, block: int, precision: str) -> ResolvedTraining:
    """The training settings; a run that goes on keeps the batch that it began with."""
    workers, recorded = config.workers.count, _recorded(root)
    training = config.training.resolved(
        config.tokens,
        block,
        precision=precision,
        known_batch=None if recorded is None else int(recorded["training"]["batch"]),
        workers=workers,
    )
    if config.tokens < training.batch * block:
        step, shared = training.batch * block, config.training.batch is None and workers > 1
        fewer = f"raise it or lower --workers.count ({workers} now)"
        raise SearchError(
            f"--tokens is {config.tokens}, less than one step of {step} tokens; "
            + (fewer if shared else training.longer_or_fewer("it", step, block))
        )
    return training


def _recorded(root: Path) -> dict[str, Any] | None:
    """What the run in `root` depends on, or None where it holds none."""
    path = root / RUN_FACTS
    if not path.exists():
        return None
    recorded: dict[str, Any] = json.loads(path.read_text())
    return recorded


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Groups of settings written out: {"training": {"seed": 0}} is {"training.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inside = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{part}" if part else name: each for part, each in inside.items()}
    return flat


def shared_vocabulary(teacher: ModelSource, student: ModelSource) -> int:
    """Tokens that both models know. Raises SearchError where they do not speak the same tokens."""
    known, own = teacher.tokenizer, own_tokenizer(student)
    if own is not None and own.get_vocab() != known.get_vocab():
        raise SearchError(
            f"the tokenizers of teacher and student differ ({len(known):,} and {len(own):,} "
            "tokens); distillation on logits needs the same one: give a student that was cut from "
            "this teacher or trained with its tokenizer"
        )
    sizes = teacher.config.vocab_size, student.config.vocab_size
    if known.vocab_size > min(sizes):
        raise SearchError(
            f"the teacher has {sizes[0]:,} tokens and the student {sizes[1]:,}, but their "
            f"tokenizer has {known.vocab_size:,}; only padding may differ"
        )
    return int(min(sizes))
