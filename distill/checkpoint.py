"""Training checkpoints without pickles: safetensors for tensors, JSON for the rest.

A checkpoint is one directory. It is written under a temporary name and renamed, so a reader sees
either the whole of it or none. It does not know what is trained.
"""

import contextlib
import json
import os
import shutil
import stat
import uuid
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distill.parallel import ALONE, World, first_row, local


def write_directory_atomically(target: Path, fill: Any) -> None:
    """Call `fill(directory)` on a fresh sibling of `target`, then put it in `target`'s place.

    Its files may be read and written by whom the umask lets.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    aside.mkdir()
    try:
        fill(aside)
        _share(aside)
        for path in aside.rglob("*"):
            _flush(path)
        if target.exists():
            old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
            target.rename(old)
            aside.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _share(directory: Path) -> None:
    """Give all files the mode that the umask gives a new one.

    safetensors makes files that nobody but their owner may read.
    """
    probe = directory / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            with contextlib.suppress(OSError):  # a disk without modes
                path.chmod(mode)


def _flush(path: Path) -> None:
    """Have the system put a file or directory on the disk, so that a power cut cannot tear it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove what writers that were killed left half done below `directory`.

    What was moved aside and not yet replaced is put back.
    """
    for old in list(directory.rglob(".*.old")):
        kept = old.with_name(old.name[1:].rsplit(".", 2)[0])
        if not kept.exists():
            old.rename(kept)
    for pattern in (".*.tmp", ".*.old"):
        for path in list(directory.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def save_training_state(
    target: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    meta: dict[str, Any],
    extra: dict[str, Tensor] | None = None,
    world: World = ALONE,
) -> None:
    """Write parameters, optimiser moments, `extra` tensors and `meta` (JSON) to `target`.

    Every process of `world` writes the rows that it holds, with the number of the first of them;
    any number of processes can read them back. (torch's distributed checkpoints keep their index in
    a pickle, which is why they are not used.) All processes must call it.
    """
    tensors = _named_state(model, optimizer, extra or {})
    rows = {name: first_row(value, world) for name, value in tensors.items()}
    mine = {
        name: local(value).detach().contiguous().cpu()
        for name, value in tensors.items()
        if world.first or isinstance(value, DTensor)
    }
    header = {name: str(rows[name]) for name in mine}

    def fill(directory: Path) -> None:
        save_file(mine, directory / f"state-{world.rank:05d}.safetensors", header)
        if world.first:
            (directory / "meta.json").write_text(json.dumps(meta | {"processes": world.size}))

    if world.size == 1:
        write_directory_atomically(target, fill)
        return
    aside = target.with_name(f".{target.name}.shards.tmp")
    if world.first:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    world.barrier()
    fill(aside)
    world.barrier()
    if world.first:
        write_directory_atomically(target, lambda directory: _move_all(aside, directory))
        aside.rmdir()
    world.barrier()


def _move_all(source: Path, target: Path) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)


def _named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor]
) -> dict[str, Tensor]:
    names = {id(p): n for n, p in model.named_parameters()}
    tensors: dict[str, Tensor] = {f"extra.{name}": value for name, value in extra.items()}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter
    for trained, state in optimizer.state.items():
        for key, value in state.items():
            value = value if torch.is_tensor(value) else torch.tensor(float(value))
            tensors[f"optimizer.{key}.{names[id(trained)]}"] = value
    return tensors


def load_training_state(
    source: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Tensor] | None = None,
    world: World = ALONE,
) -> dict[str, Any]:
    """Put a saved state back into `model`, `optimizer` and `extra`; returns the saved `meta`.

    It may have been written by another number of processes. Raises KeyError or ValueError where it
    is not the state of such a model.
    """
    parameters = dict(model.named_parameters())
    meta: dict[str, Any] = json.loads((source / "meta.json").read_text())
    with contextlib.ExitStack() as stack, torch.no_grad():
        pieces = _pieces(
            [
                stack.enter_context(safe_open(file, framework="pt"))
                for file in sorted(source.glob("state-*.safetensors"))[: meta.pop("processes")]
            ]
        )
        for name, parameter in parameters.items():
            local(parameter).copy_(_rows(pieces, f"model.{name}", parameter, world))
        for name, value in (extra or {}).items():
            local(value).copy_(_rows(pieces, f"extra.{name}", value, world))
        for key in pieces:
            kind, rest = key.split(".", 1)
            if kind != "optimizer":
                continue
            field, name = rest.split(".", 1)
            parameter = parameters[name]
            (_, first), *others = pieces[key]
            if not others and first.get_slice(key).get_shape() != list(parameter.shape):
                value = first.get_tensor(key)
                optimizer.state[parameter][field] = (
                    _step_count(value, parameter, optimizer)
                    if field == "step"
                    else value.to(parameter.device)
                )
                continue
            rows = _rows(pieces, key, parameter, world)
            moment = torch.empty_like(parameter, dtype=rows.dtype)
            local(moment).copy_(rows)
            optimizer.state[parameter][field] = moment
    return meta


def _step_count(value: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    """As the optimiser keeps it: a tensor, beside the parameter if fused; a number elsewhere."""
    if not isinstance(optimizer, torch.optim.AdamW):
        return int(value)
    beside = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    return value.to(parameter.device) if beside else value


def _pieces(files: list[Any]) -> dict[str, list[tuple[int, Any]]]:
    """By tensor: the first row of every piece of it, and the file that holds it."""
    pieces: dict[str, list[tuple[int, Any]]] = {}
    for file in files:
        for name, row in (file.metadata() or {}).items():
            pieces.setdefault(name, []).append((int(row), file))
    return pieces


def _rows(
    pieces: dict[str, list[tuple[int, Any]]], name: str, wanted: Tensor, world: World
) -> Tensor:
    """The rows of `wanted` that this process holds, from the pieces called `name`."""
    shape = list(local(wanted).shape)
    if not shape:
        return cast(Tensor, pieces[name][0][1].get_tensor(name))
    begin = first_row(wanted, world)
    end = begin + shape[0]
    found = []
    for row, file in sorted(pieces[name], key=lambda piece: piece[0]):
        part = file.get_slice(name)
        if part.get_shape()[1:] != shape[1:]:
            raise ValueError(f"{name} is {part.get_shape()} in the checkpoint, not {shape}")
        low, high = max(begin - row, 0), min(end - row, part.get_shape()[0])
        if low < high:
            found.append(part[low:high])
    rows = torch.cat(found) if found else torch.empty(shape, dtype=wanted.dtype)
    if list(rows.shape) != shape:
        raise ValueError(f"{name} has {rows.shape[0]} of {shape[0]} rows in the checkpoint")
    return rows


def write_file_atomically(target: Path, text: str) -> None:
    """Write `text` to `target`, so that a reader sees all of it or what was there before."""
    aside = target.with_name(f".{target.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    _flush(aside)
    aside.replace(target)
