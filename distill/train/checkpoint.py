"""Training checkpoints without pickles: safetensors for tensors, JSON for the rest.

A checkpoint is one directory, written atomically: `meta.json`, and per process a file
`state-RANK.safetensors` of the rows that it holds, whose header names the first row of each tensor.
It does not know what is trained.

torch's distributed checkpoints can be written as safetensors, too
(`torch.distributed.checkpoint.HuggingFaceStorageWriter`), and hold parameters and moments of any
number of processes without a pickle. They are not used since runs resume from the checkpoints of
earlier versions, so that this reader would stay beside theirs; since they would want every moment
to be made before it is read, where a fresh optimiser has none; and since they write neither `meta`
nor a directory in one go.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from common.files import write_directory_atomically
from distill.backend.parallel import ALONE, World, shard_offset, to_local

MODEL, EXTRA, OPTIMIZER = "model.", "extra.", "optimizer."
"""Prefixes of tensors' names in a checkpoint. An optimiser's tensor is
`optimizer.FIELD.PARAMETER`, as `optimizer.exp_avg.lm_head.weight`."""
STEP = "step"
"""Field of an optimiser that counts a parameter's steps."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run must find again to go on exactly, as one process holds it."""

    model: nn.Module
    """Its parameters are saved."""
    optimizer: torch.optim.Optimizer
    """Its moments and step counts are saved."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further tensors by name, such as an average of the weights."""
    world: World = ALONE
    """The processes that share the run; all of them must save and load."""

    def save(self, target: Path, meta: dict[str, Any]) -> None:
        """Write the state and `meta` (JSON) to the directory `target`.

        Every process writes the rows that it holds; any number of processes can read them back.
        """
        self.begin_saving(target, meta).finish()

    def begin_saving(
        self, target: Path, meta: dict[str, Any], executor: Executor | None = None
    ) -> "Saving":
        """As `save`, but `target` is there only when what this returns was finished.

        With an `executor` the state is copied to the host's memory and written by it, while the run
        goes on.
        """
        world, tensors = self.world, self._named()
        mine = {
            name: _on_the_host(value, copied=executor is not None)
            for name, value in tensors.items()
            if world.first or isinstance(value, DTensor)
        }
        first_rows = {name: str(shard_offset(tensors[name], world)) for name in mine}

        def fill(directory: Path) -> None:
            save_file(mine, directory / f"state-{world.rank:05d}.safetensors", first_rows)
            if world.first:
                (directory / "meta.json").write_text(json.dumps(meta | {"processes": world.size}))

        if world.size == 1:
            aside, write = None, partial(write_directory_atomically, target, fill)
        else:
            aside = target.with_name(f".{target.name}.shards.tmp")
            if world.first:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
            world.barrier()
            write = partial(fill, aside)
        if executor is None:
            write()
        return Saving(target, world, aside, executor.submit(write) if executor else None)

    def load(self, source: Path) -> dict[str, Any]:
        """Put a saved state back into model, optimiser and extra tensors; returns its `meta`.

        It may have been written by another number of processes. Raises KeyError or ValueError where
        it is not the state of a model like this.
        """
        meta: dict[str, Any] = json.loads((source / "meta.json").read_text())
        parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        with _saved_tensors(source, meta.pop("processes")) as saved, torch.no_grad():
            for name, value in parameters.items():
                to_local(value).copy_(saved[MODEL + name].rows_of(value, self.world))
            for name, value in self.extra.items():
                to_local(value).copy_(saved[EXTRA + name].rows_of(value, self.world))
            for key, tensor in saved.items():
                if key.startswith(OPTIMIZER):
                    state, name = key.removeprefix(OPTIMIZER).split(".", 1)
                    self._load_optimizer(state, parameters[name], tensor)
        return meta

    def _named(self) -> dict[str, Tensor]:
        """All tensors of the state, by their names in a checkpoint."""
        names = {id(p): n for n, p in self.model.named_parameters()}
        tensors = {EXTRA + name: value for name, value in self.extra.items()}
        for name, parameter in self.model.named_parameters():
            tensors[MODEL + name] = parameter
        for trained, states in self.optimizer.state.items():
            for state, value in states.items():
                value = value if torch.is_tensor(value) else torch.tensor(float(value))
                tensors[f"{OPTIMIZER}{state}.{names[id(trained)]}"] = value
        return tensors

    def _load_optimizer(self, state: str, parameter: Tensor, saved: "_SavedTensor") -> None:
        """Put one state of one parameter back into the optimiser."""
        states = self.optimizer.state[parameter]
        if state == STEP:
            states[state] = self._step_count(saved.whole(), parameter)
        elif saved.shape == list(parameter.shape):
            rows = saved.rows_of(parameter, self.world)
            states[state] = torch.empty_like(parameter, dtype=rows.dtype)
            to_local(states[state]).copy_(rows)
        else:  # tables of quantised moments, which are never split
            states[state] = saved.whole().to(parameter.device)

    def _step_count(self, value: Tensor, parameter: Tensor) -> Any:
        """As the optimiser keeps it: a tensor, beside the parameter if fused; else a number."""
        if not isinstance(self.optimizer, torch.optim.AdamW):
            return int(value)
        options = self.optimizer.defaults
        beside = options.get("fused") or options.get("capturable")
        return value.to(parameter.device) if beside else value


@dataclass(frozen=True)
class Saving:
    """Checkpoint that is being written, perhaps while the run goes on."""

    target: Path
    """Where the checkpoint will be."""
    world: World
    """The processes that write it."""
    aside: Path | None
    """Where their files are until all are written; None for one process, which needs no place."""
    writing: "Future[None] | None"
    """The writing of this process; None where that is done."""

    @property
    def written(self) -> bool:
        """Whether `finish` need not wait for any process; all of them must ask."""
        return self.world.all_of(self.writing is None or self.writing.done())

    def wait(self) -> None:
        """Wait until this process has written or failed."""
        if self.writing is not None:
            wait([self.writing])

    def finish(self) -> None:
        """Wait until it is written and put it in `target`'s place; all processes must call it.

        Raises what the writing raised.
        """
        if self.writing is not None:
            self.writing.result()
        if self.aside is None:
            return
        aside = self.aside
        self.world.barrier()
        if self.world.first:
            write_directory_atomically(self.target, lambda directory: _move_all(aside, directory))
            aside.rmdir()
        self.world.barrier()


@dataclass(frozen=True)
class _SavedTensor:
    """One tensor of a checkpoint, whose rows may lie in several files."""

    name: str
    pieces: list[tuple[int, Any]]
    """(first row, open file) of each piece."""

    @property
    def shape(self) -> list[int]:
        """Of all rows together."""
        shapes = [file.get_slice(self.name).get_shape() for _, file in self.pieces]
        if not shapes[0]:
            return []
        return [sum(shape[0] for shape in shapes), *shapes[0][1:]]

    def whole(self) -> Tensor:
        """A tensor that one process wrote. Raises ValueError for one in several pieces."""
        if len(self.pieces) > 1:
            raise ValueError(f"{self.name} is in {len(self.pieces)} pieces in the checkpoint")
        return cast(Tensor, self.pieces[0][1].get_tensor(self.name))

    def rows_of(self, wanted: Tensor, world: World) -> Tensor:
        """The rows that this process holds of `wanted`, a tensor of the same whole shape."""
        shape = list(to_local(wanted).shape)
        if not shape:
            return cast(Tensor, self.pieces[0][1].get_tensor(self.name))
        begin = shard_offset(wanted, world)
        end = begin + shape[0]
        parts = []
        for row, file in sorted(self.pieces, key=lambda piece: piece[0]):
            part = file.get_slice(self.name)
            if part.get_shape()[1:] != shape[1:]:
                raise ValueError(
                    f"{self.name} is {part.get_shape()} in the checkpoint, not {shape}"
                )
            low, high = max(begin - row, 0), min(end - row, part.get_shape()[0])
            if low < high:
                parts.append(part[low:high])
        rows = torch.cat(parts) if parts else torch.empty(shape, dtype=wanted.dtype)
        if list(rows.shape) != shape:
            raise ValueError(
                f"{self.name} has {rows.shape[0]} of {shape[0]} rows in the checkpoint"
            )
        return rows


@contextlib.contextmanager
def _saved_tensors(source: Path, processes: int) -> Iterator[dict[str, _SavedTensor]]:
    """The tensors of a checkpoint that so many processes wrote, by name; its files are open."""
    saved: dict[str, _SavedTensor] = {}
    with contextlib.ExitStack() as stack:
        for path in sorted(source.glob("state-*.safetensors"))[:processes]:
            file: Any = stack.enter_context(safe_open(path, framework="pt"))
            for name, row in (file.metadata() or {}).items():
                saved.setdefault(name, _SavedTensor(name, [])).pieces.append((int(row), file))
        yield saved


def _on_the_host(value: Tensor, *, copied: bool) -> Tensor:
    """The rows of `value` that this process holds, in the host's memory.

    They may be those that the run trains, unless a copy is asked for.
    """
    rows = to_local(value).detach().contiguous()
    return rows.clone() if copied and rows.device.type == "cpu" else rows.cpu()


def _move_all(source: Path, target: Path) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)
