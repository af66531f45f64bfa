"""Proofs that the model cut is the model loaded, and the checkpoint written the model measured.

Each takes a forward pass of two models on one block of text. They are the net under every
peculiarity of a checkpoint that no rule foresees: a head of its own beside a configuration that
says tied, a tensor that the library changes while it loads, a row of the table of families that
does not fit.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from common.errors import SearchError, SearchStopped, reason_of
from distill.backend import load
from distill.evaluation import answers, answers_kl, next_token_log_probs, spread
from pruning import (
    AXES,
    Architecture,
    Checkpoint,
    Ordering,
    architecture_of,
    cut_student,
    family_of,
    write_sorted_teacher,
)
from pruning.families import expert_groups
from pruning.importance import LayerMix
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
from workspace.sorted_teacher import SortedTeacher

MOST_KL = 1e-6
"""Nats per token that rounding may put between the teacher and its full-size slice in fp32."""
MOST_KL_SPREAD = 1e-2
"""The same where both compute in a type of less precision, since they are spread over devices."""
MOST_DIFFERENCE = 2e-3
"""Nats by which a token's log-probability may differ when a student is loaded again."""


@dataclass(frozen=True)
class SliceProof:
    """The full-size slice of a teacher against the teacher as transformers loads it.

    One after the other: the model is released before the slice is loaded, and has to be loaded
    again by whoever needs it, so that both need not fit at once.
    """

    model: LoadedModel
    """The teacher."""
    block: NDArray[Any]
    """Token ids [sequence] of text."""
    scratch: Path
    """Folder where the slice of a teacher that is spread over devices is written meanwhile."""

    def shuffled(self) -> str:
        """Prove it of a slice that is sorted at random on every axis, since one that is left as it
        is proves little; returns a line that says so.

        Raises SearchError, with the first tensor that differs or the axis that cannot be sorted
        where one can be named.
        """
        kl = self._kl(self._in_order(self._sorted_axes))
        if kl < self._most:
            return f"proof: the full-size slice answers as the teacher does (KL {kl:.1e} per token)"
        raise SearchError(
            f"{self.teacher.directory} cannot be cut: its full-size slice gives other answers than "
            f"the model that transformers loads from it ({self._shown(kl)}){self._where()}"
        )

    def sorted(self, sorted_teacher: SortedTeacher) -> str:
        """Prove it of the sorted teacher, which trials are cut out of; returns a line that says so.

        Raises SearchError where it is not the teacher.
        """
        kl = self._kl(lambda _: self._sliced(sorted_teacher))
        if kl < self._most:
            return f"proof: the sorted teacher answers as the teacher does (KL {kl:.1e} per token)"
        raise SearchError(
            f"the sorted teacher in {sorted_teacher.directory} gives other answers than the "
            f"teacher ({self._shown(kl)}); delete it and start the same command again"
        )

    @property
    def teacher(self) -> Checkpoint:
        """The checkpoint that the slice is of."""
        return self.model.source.checkpoint

    @property
    def _whole(self) -> Architecture:
        return architecture_of(self.teacher.config)

    @property
    def _sorted_axes(self) -> list[str]:
        unsorted = family_of(self.teacher.config).unsorted
        return [axis for axis in AXES if axis not in unsorted]

    @property
    def _most(self) -> float:
        return MOST_KL_SPREAD if self.model.placement else MOST_KL

    def _shown(self, kl: float) -> str:
        return f"KL {kl:.2g} nats per token on one block of text, above {self._most:g}"

    def _sliced(self, sorted_teacher: SortedTeacher) -> Any:
        """All of it, spread if the teacher is."""
        if self.model.placement:
            return self.model.like(ModelSource(sorted_teacher.directory))()
        return sorted_teacher.cut(self._whole, dtype=self.model.dtype)

    def _in_order(self, axes: Collection[str]) -> Callable[[Path], Any]:
        config = self.teacher.config
        ordering = Ordering.shuffled(
            self._whole,
            axes=axes,
            shared_channels=family_of(config).shared_channels,
            expert_groups=expert_groups(config),
            mix=LayerMix.of(config),
        )

        def sliced(folder: Path) -> Any:
            if self.model.placement:  # sorted on the disk, and spread as the teacher is
                write_sorted_teacher(self.teacher, ordering, folder / "sorted")
                return self._sliced(SortedTeacher(folder / "sorted"))
            return cut_student(
                self.teacher,
                self._whole,
                range(self._whole.layers),
                ordering=ordering,
                dtype=self.model.dtype,
            )

        return sliced

    def _kl(self, slice_of: Callable[[Path], Any]) -> float:
        """From the teacher to a slice, which may be written to the folder that it is given."""
        expected = answers(self.model(), self.block)
        self.model.release()
        with tempfile.TemporaryDirectory(".tmp", ".slice-", self.scratch) as folder:
            try:
                model = slice_of(Path(folder))
            except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as problem:
                raise SearchError(
                    f"{self.teacher.directory} cannot be cut: {reason_of(problem)}"
                ) from problem
            # Inside, since what is on the disk is read as it is needed.
            sliced = answers(model if spread(model) else model.to(self.model.device), self.block)
        return answers_kl(expected, sliced)

    def _where(self) -> str:
        """The part of the refusal that says what differs, as far as it can be found."""
        name = first_difference(self.teacher, self.model())
        if name is not None:
            return (
                f"; the first tensor that differs is {name}: what the file has is not what is "
                "loaded; save the model anew with save_pretrained"
            )
        if not self._kl(self._in_order([])) < self._most:
            return ""
        for axis in self._sorted_axes:
            if not self._kl(self._in_order([axis])) < self._most:
                return (
                    f"; it differs as soon as its {axis} are sorted: the row "
                    f"{self.teacher.config.model_type} of the table of families does not fit it"
                )
        return ""


def as_written(directory: Path) -> Any:
    """The checkpoint as stock transformers loads it, in the type of its file."""
    return load(directory, "auto")


def first_difference(checkpoint: Checkpoint, model: Any) -> str | None:
    """The first tensor that the loaded `model` does not have as the file does, or has although
    the table of families does not know of it; None where there is none."""
    loaded: dict[str, torch.Tensor] = {
        n: v for n, v in model.state_dict().items() if v.device.type != "meta"
    }
    known = set()
    with checkpoint.reading() as reader:
        for tensor in family_of(checkpoint.config).tensors(checkpoint.config):
            value = loaded.get(tensor.name)
            if value is None:  # of experts, which are loaded as one tensor
                continue
            known.add(value.data_ptr())
            if not torch.equal(reader.view(tensor.name)[:].to(value.dtype), value.cpu()):
                return tensor.name
        for name, value in loaded.items():
            if name in checkpoint.placement and value.data_ptr() not in known:
                return name
    return None


def require_written(
    directory: Path,
    block: NDArray[Any],
    *,
    measured: Sequence[float],
    loaded: Callable[[], Any] | None = None,
) -> float:
    """Hold the student in `directory`, loaded again, against what it answered on `block` when it
    was `measured` (see `next_token_log_probs`); returns the largest difference in nats.

    `loaded` gives it where it does not fit this process's memory. Raises SearchStopped where they
    differ by more than rounding.
    """
    model = loaded() if loaded else as_written(directory)
    log_probs = next_token_log_probs(model, block)
    largest = max(abs(new - old) for new, old in zip(log_probs, measured, strict=True))
    if largest <= MOST_DIFFERENCE:
        return largest
    name = first_difference(Checkpoint(directory), model)
    where = f"; the first tensor that differs from the file is {name}" if name else ""
    raise SearchStopped(
        f"the student that was written to {directory} does not answer as the one that was "
        f"measured: the log-probability of a token differs by {largest:.2g} nats, above "
        f"{MOST_DIFFERENCE:g}{where}; the disk may be at fault, or the version of transformers"
    )


def require_copied(
    directory: Path, model: Path, *, block: NDArray[Any], measured: Sequence[float] | None
) -> float:
    """The same of a student that was made of the trained `model`; of one that kept no answers when
    it was measured, those that `model` gives now."""
    answers = measured or next_token_log_probs(as_written(model), block)
    return require_written(directory, block, measured=answers)


def written_line(name: str, most: float) -> str:
    """The line that a proof by `require_written` is printed as."""
    return f"proof: {name}, loaded again, answers as it was measured (within {most:.1e} nats)"
