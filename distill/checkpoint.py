"""Training checkpoints without pickles: safetensors for tensors, JSON for the rest.

A checkpoint is one directory. It is written under a temporary name and renamed, so a reader sees
either the whole of it or none. It does not know what is trained.
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def write_directory_atomically(target: Path, fill: Any) -> None:
    """Call `fill(directory)` on a fresh sibling of `target`, then put it in `target`'s place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    aside.mkdir()
    try:
        fill(aside)
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


def _flush(path: Path) -> None:
    """Have the system put a file or directory on the disk, so that a power cut cannot tear it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove what writers that were killed left half done below `directory`."""
    for pattern in (".*.tmp", ".*.old"):
        for path in list(directory.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def save_training_state(
    target: Path, model: nn.Module, optimizer: torch.optim.Optimizer, meta: dict[str, Any]
) -> None:
    """Write parameters, optimiser moments and `meta` (JSON) to the directory `target`."""
    names = {id(p): n for n, p in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach().contiguous().cpu()
    for trained, state in optimizer.state.items():
        for key, value in state.items():
            value = value if torch.is_tensor(value) else torch.tensor(float(value))
            tensors[f"optimizer.{key}.{names[id(trained)]}"] = value.detach().contiguous().cpu()

    def fill(directory: Path) -> None:
        save_file(tensors, directory / "state.safetensors")
        (directory / "meta.json").write_text(json.dumps(meta))

    write_directory_atomically(target, fill)


def load_training_state(
    source: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a saved state back into `model` and `optimizer`; returns the saved `meta`."""
    parameters = dict(model.named_parameters())
    beside = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    with safe_open(source / "state.safetensors", framework="pt") as saved, torch.no_grad():
        for key in saved.keys():  # noqa: SIM118 (safe_open is not a mapping)
            kind, rest = key.split(".", 1)
            if kind == "model":
                parameters[rest].copy_(saved.get_tensor(key))
                continue
            field, name = rest.split(".", 1)
            parameter = parameters[name]
            value = saved.get_tensor(key)
            if field != "step" or beside:
                value = value.to(parameter.device)
            optimizer.state[parameter][field] = value
    meta: dict[str, Any] = json.loads((source / "meta.json").read_text())
    return meta


def write_file_atomically(target: Path, text: str) -> None:
    """Write `text` to `target`, so that a reader sees all of it or what was there before."""
    aside = target.with_name(f".{target.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    _flush(aside)
    aside.replace(target)
