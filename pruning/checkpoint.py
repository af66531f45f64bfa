"""A Hugging Face checkpoint on disk: its configuration and where its tensors lie.

Reads safetensors only, lazily. Checks that the tensors are those that the configuration promises
before anyone spends time on them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from pruning.errors import PruningError
from pruning.families import family_of
from pruning.sizes import architecture_of, tensor_shape

MAPPED_BYTES = 64 << 20
"""A file is opened anew after so many bytes: pages that were read count as memory till then."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory with config.json and safetensors weights, in one file or in shards."""

    directory: Path

    @cached_property
    def config(self) -> PretrainedConfig:
        try:
            return AutoConfig.from_pretrained(self.directory)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            StrictDataclassError,
        ) as problem:
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

    @cached_property
    def placement(self) -> dict[str, tuple[Path, str]]:
        """Tensor by its name in the whole model -> (file, its name in the file).

        A file of the bare model, without its head, leaves the first part of every name off.
        """
        expected = {tensor.name for tensor in family_of(self.config).tensors(self.config)}
        prefix = family_of(self.config).base_prefix
        found = {}
        for file, names in self.files().items():
            for name in names:
                bare = name not in expected and prefix + name in expected
                found[prefix + name if bare else name] = (file, name)
        return found

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """A reader of single tensors whose memory does not grow with the checkpoint."""
        reader = Reader(self)
        try:
            yield reader
        finally:
            reader.close()

    def check(self) -> None:
        """Raises PruningError for the first missing, extra, misshapen or non-finite tensor."""
        expected = self._expected_shapes()  # also says which types are supported
        for file, _ in self.placement.values():
            if not file.exists():
                raise PruningError(f"the checkpoint's file {file} is missing; copy it again")
        present = {name: place for name, place in self.placement.items() if not self._spare(name)}
        missing = [name for name in expected if name not in present]
        with self.reading() as reader:
            for name, (file, _) in present.items():
                if name not in expected:
                    raise PruningError(f"{file} has a tensor {name} that the model has no use for")
                _check_tensor(reader, name, expected[name], file)
        if missing:
            raise PruningError(f"{self.directory} lacks the tensor {missing[0]}; copy it again")

    def _spare(self, name: str) -> bool:
        """Whether the file may carry the tensor although the model does not read it."""
        family = family_of(self.config)
        tied = self.config.tie_word_embeddings and name == family.output_head[0]
        return tied or name.endswith(family.derived)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        whole = architecture_of(self.config)
        return {
            tensor.name: tuple(tensor_shape(self.config, whole, tensor.axes))
            for tensor in family_of(self.config).tensors(self.config)
        }


class Reader:
    """Tensors of a checkpoint one after another, over few open files and little memory."""

    def __init__(self, checkpoint: Checkpoint):
        self._placement = checkpoint.placement
        self._file: Path | None = None
        self._source: Any = None
        self._left = 0

    def dtype(self, name: str) -> str:
        """Type of a tensor as safetensors writes it, without its values."""
        kind: str = self._slice(name).get_dtype()
        return kind

    def view(self, name: str) -> Any:
        """A safetensors slice of the tensor: shape and type are known, values read when asked.

        Raises PruningError where the file does not have it.
        """
        view = self._slice(name)
        self._left -= int(torch.Size(view.get_shape()).numel()) * 2
        return view

    def _slice(self, name: str) -> Any:
        if name not in self._placement:
            raise PruningError(f"the checkpoint lacks the tensor {name}; copy it again")
        file, stored = self._placement[name]
        if file != self._file or self._left <= 0:
            self.close()
            self._source = _opened(file).__enter__()
            self._file, self._left = file, MAPPED_BYTES
        try:
            return self._source.get_slice(stored)
        except SafetensorError as problem:
            raise PruningError(
                f"{file} lacks the tensor {stored}; copy the checkpoint again"
            ) from problem

    def close(self) -> None:
        if self._source is not None:
            self._source.__exit__(None, None, None)
        self._source = self._file = None


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as problem:
        raise PruningError(f"{file} is damaged ({problem}); copy it again") from problem


def _check_tensor(reader: Reader, name: str, expected: tuple[int, ...], file: Path) -> None:
    view = reader.view(name)
    shape = tuple(view.get_shape())
    if shape != expected:
        raise PruningError(f"{name} in {file} is {shape}, but config.json asks for {expected}")
    step = max(1, MAPPED_BYTES // max(1, 4 * int(torch.Size(shape[1:]).numel())))
    for start in range(0, shape[0], step):
        rows = view[start : start + step]
        if not rows.is_floating_point():
            raise PruningError(
                f"{name} in {file} is {rows.dtype}: quantised or no weight; save the model in bf16 "
                "or fp32 first"
            )
        if not torch.isfinite(rows).all():
            raise PruningError(f"{name} in {file} has values that are not finite")
