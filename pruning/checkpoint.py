"""A Hugging Face checkpoint on disk: its configuration and where its tensors lie.

Reads safetensors only, lazily. Checks that the tensors are those that the configuration promises
before anyone spends time on them.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from pruning.errors import PruningError
from pruning.families import architecture_of, axis_sizes, family_of

_DERIVED_SUFFIXES = ("rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry although the model computes them."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory with config.json and safetensors weights, in one file or in shards."""

    directory: Path

    @cached_property
    def config(self) -> PretrainedConfig:
        try:
            return AutoConfig.from_pretrained(self.directory)
        except (OSError, ValueError, KeyError, StrictDataclassError) as problem:
            reason = " ".join(str(problem).split())
            raise PruningError(
                f"{self.directory} has no readable config.json: {reason}"
            ) from problem

    @property
    def index_file(self) -> Path:
        return self.directory / "model.safetensors.index.json"

    def files(self) -> dict[Path, list[str]]:
        """Weight file -> names of the tensors in it."""
        single = self.directory / "model.safetensors"
        if single.exists():
            with _opened(single) as source:
                return {single: list(source.keys())}
        if not self.index_file.exists():
            raise PruningError(
                f"{self.directory} has no model.safetensors; load the model with transformers and "
                "save it with save_pretrained, which writes safetensors"
            )
        try:
            placement: dict[str, str] = json.loads(self.index_file.read_text())["weight_map"]
        except (ValueError, KeyError) as problem:
            raise PruningError(
                f"{self.index_file} is damaged ({problem}); copy it again"
            ) from problem
        files: dict[Path, list[str]] = {}
        for name, file in placement.items():
            files.setdefault(self.directory / file, []).append(name)
        return files

    def check(self) -> None:
        """Raises PruningError for the first missing, extra, misshapen or non-finite tensor."""
        expected = self._expected_shapes()
        seen = set()
        for file, names in self.files().items():
            if not file.exists():
                raise PruningError(f"the checkpoint's file {file} is missing; copy it again")
            with _opened(file) as source:
                for name in names:
                    if not self._is_spare(name):
                        _check_tensor(source, name, expected.get(name), file)
                        seen.add(name)
        missing = [name for name in expected if name not in seen]
        if missing:
            raise PruningError(f"{self.directory} lacks the tensor {missing[0]}; copy it again")

    def _is_spare(self, name: str) -> bool:
        """Whether the file may carry the tensor although the model does not read it."""
        tied = self.config.tie_word_embeddings and name == family_of(self.config).output_head[0]
        return tied or name.endswith(_DERIVED_SUFFIXES)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        sizes = axis_sizes(self.config, architecture_of(self.config))
        tensors = family_of(self.config).tensors(self.config)
        return {name: tuple(sizes[axis] for axis in axes) for name, _, axes in tensors}


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as problem:
        raise PruningError(f"{file} is damaged ({problem}); copy it again") from problem


def _check_tensor(
    source: safe_open, name: str, expected: tuple[int, ...] | None, file: Path
) -> None:
    if expected is None:
        raise PruningError(f"{file} has a tensor {name} that the model has no use for")
    try:
        tensor = source.get_tensor(name)
    except SafetensorError as problem:
        raise PruningError(
            f"{file} lacks the tensor {name}; copy the checkpoint again"
        ) from problem
    shape = tuple(tensor.shape)
    if shape != expected:
        raise PruningError(f"{name} in {file} is {shape}, but config.json asks for {expected}")
    if not torch.isfinite(tensor).all():
        raise PruningError(f"{name} in {file} has values that are not finite")
