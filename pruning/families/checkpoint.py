"""Hugging Face checkpoints on disk: the configuration and where the tensors lie.

Reads safetensors only, lazily. Checks that the tensors are those that the configuration promises,
and that what transformers loads is what will be cut, before anyone spends time on them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.families.config_file import raw_config
from pruning.families.loading import Loading, loading_of
from pruning.families.shapes import architecture_of, axis_rows, tensor_shape
from pruning.families.table import FAMILIES, family_of
from pruning.families.tensors import TENSOR_TYPES

MAPPED_BYTES = 64 << 20
"""A file is reopened after this many bytes, so that its mapped pages are released."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory with config.json and safetensors weights, in one file or in shards."""

    directory: Path
    """Where its files lie."""

    @cached_property
    def config(self) -> PretrainedConfig:
        """Its configuration. Raises PruningError where config.json cannot be read."""
        try:
            config: PretrainedConfig = AutoConfig.from_pretrained(
                self.directory, trust_remote_code=False
            )
        except Exception as problem:  # configurations break in as many ways as there are models
            raise PruningError(
                f"{self.directory} has no readable config.json: {reason_of(problem)}"
            ) from problem
        self._check_agreement(config)
        return config

    def _check_agreement(self, config: PretrainedConfig) -> None:
        """Raises PruningError for two keys of config.json that say the same and differ: what reads
        the other one would compute another model."""
        family = FAMILIES.get(config.model_type)
        if family is None or not family.older_names.follow:
            return
        raw = raw_config(self.directory)
        for name in family.older_names.follow:
            said, true = raw.get(name), getattr(config, name)
            if said is not None and said != true:
                raise PruningError(
                    f"config.json of {self.directory} says {name} {said!r}, but its layers are "
                    f"{true!r} by {', '.join(family.per_layer_fields)}; mend one of them"
                )

    @property
    def index_file(self) -> Path:
        """The index of a checkpoint in several files."""
        return self.directory / "model.safetensors.index.json"

    def files(self) -> dict[Path, list[str]]:
        """Weight file -> names of the tensors that are read from it.

        As transformers reads them: a single file before shards, all that is in a shard, whatever
        the index says of it, and of a tensor that is in several shards the last.
        """
        places: dict[str, Path] = {}
        for file in self._weight_files():
            with opened(file) as source:
                places |= dict.fromkeys(source.keys(), file)
        files: dict[Path, list[str]] = {}
        for name, file in places.items():
            files.setdefault(file, []).append(name)
        return files

    def _weight_files(self) -> list[Path]:
        single = self.directory / "model.safetensors"
        if single.exists():
            return [single]
        if not self.index_file.exists():
            raise PruningError(
                f"{self.directory} has no model.safetensors; load the model with transformers and "
                "save it with save_pretrained, which writes safetensors"
            )
        try:
            placement: dict[str, str] = json.loads(self.index_file.read_text())["weight_map"]
            named = sorted({str(file) for file in placement.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise PruningError(
                f"{self.index_file} is damaged ({reason_of(problem)}); copy it again"
            ) from problem
        for name in named:
            if not (self.directory / name).exists():
                raise PruningError(
                    f"the checkpoint's file {self.directory / name} is missing; copy it again"
                )
        return [self.directory / name for name in named]

    @cached_property
    def placement(self) -> dict[str, tuple[Path, str]]:
        """Tensor by its name in the whole model -> (file, its name in the file).

        A file of the bare model, without its head, leaves the first part of every name off; one of
        tied embeddings may have them by the name of the head, and transformers takes them so.
        """
        expected = {tensor.name for tensor in family_of(self.config).tensors(self.config)}
        prefix = family_of(self.config).base_prefix
        places = {}
        for file, names in self.files().items():
            for name in names:
                bare = name not in expected and prefix + name in expected
                places[prefix + name if bare else name] = (file, name)
        family = family_of(self.config)
        head, embedding = family.output_head[0], next(iter(family.model_tensors))
        if self.config.tie_word_embeddings and embedding not in places and head in places:
            places[embedding] = places.pop(head)
        return places

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """A reader of single tensors whose memory does not grow with the checkpoint."""
        reader = Reader(self)
        try:
            yield reader
        finally:
            reader.close()

    def check(self) -> None:
        """Raises PruningError for a checkpoint of which something else would be cut than is loaded.

        That is: a tensor that is missing, misshapen, no float or not finite, a head of its own
        where the configuration ties it to the embedding, and a tensor that transformers loads but
        the table of families does not know. What transformers leaves aside is `left_aside`.
        """
        self.check_forms()
        expected = self._expected_shapes()
        self._check_loading(set(expected))
        with self.reading() as reader:
            for name in expected:
                _check_values(reader, name, file=self.placement[name][0])

    def check_forms(self) -> None:
        """Raises PruningError for a tensor that is missing, misshapen or no float, by the headers
        of the files, and for a head that config.json ties to another embedding."""
        expected = self._expected_shapes()  # also says which types are supported
        missing = [name for name in expected if name not in self.placement]
        if missing:
            raise PruningError(self._lacks(missing[0]))
        with self.reading() as reader:
            for name, shape in expected.items():
                _check_form(reader, name, expected=shape, file=self.placement[name][0])
        self._check_head()

    def _lacks(self, name: str) -> str:
        head = family_of(self.config).output_head[0]
        if name == head:
            return (
                f"{self.directory} lacks the tensor {name}; copy it again, or set "
                "tie_word_embeddings to true in config.json if the embedding is the head"
            )
        return f"{self.directory} lacks the tensor {name}; copy it again"

    def _check_head(self) -> None:
        """Raises PruningError for a head that differs from the embedding which it is tied to.

        transformers 5 unties them then and transformers 4 drops the head: only the user knows.
        """
        family = family_of(self.config)
        head, embedding = family.output_head[0], next(iter(family.model_tensors))
        if not self.config.tie_word_embeddings or head not in self.placement:
            return
        (file, name), (other_file, other) = self.placement[head], self.placement[embedding]
        with opened(file) as source, opened(other_file) as other_source:
            views = source.get_slice(name), other_source.get_slice(other)
            same = views[0].get_shape() == views[1].get_shape() and all(
                torch.equal(own.to(self.dtype), shared.to(self.dtype))
                for own, shared in zip(*map(_in_parts, views), strict=True)
            )
        if not same:
            raise PruningError(
                f"{file} has a {head} of its own that differs from {embedding}, "
                "but config.json ties them; set tie_word_embeddings to false there if the head is "
                "meant, or take the tensor out"
            )

    def _check_loading(self, expected: set[str]) -> None:
        unknown = sorted((self.loading.known & self.placement.keys()) - expected - self._tied_head)
        if unknown:
            raise PruningError(
                f"{self.placement[unknown[0]][0]} has a tensor {unknown[0]} that transformers "
                f"loads, but the table of families does not know for {self.config.model_type}"
            )
        if self.loading.missing:
            raise PruningError(
                f"transformers does not find {self.loading.missing[0]} in {self.directory}; copy "
                "it again"
            )

    @property
    def _tied_head(self) -> set[str]:
        tied = self.config.tie_word_embeddings
        return {family_of(self.config).output_head[0]} if tied else set()

    @cached_property
    def loading(self) -> Loading:
        """Use that transformers makes of the files."""
        return loading_of(self.directory)

    @property
    def left_aside(self) -> tuple[str, ...]:
        """Tensors of the files that the model does not have, and so neither have its students."""
        expected = self._expected_shapes().keys() | self._tied_head
        return tuple(stored for name, (_, stored) in self.placement.items() if name not in expected)

    @cached_property
    def bytes_by_type(self) -> dict[torch.dtype, int]:
        """Of the tensors that are read, in the types that a student may have."""
        read: set[str] | None = None
        if self.config.model_type in FAMILIES:
            expected = self._expected_shapes()
            read = {stored for name, (_, stored) in self.placement.items() if name in expected}
        sizes: Counter[torch.dtype] = Counter()
        for file, names in self.files().items():
            with opened(file) as source:
                for name in names:
                    view = source.get_slice(name)
                    dtype = TENSOR_TYPES.get(view.get_dtype())
                    if dtype is not None and (read is None or name in read):
                        sizes[dtype] += dtype.itemsize * int(torch.Size(view.get_shape()).numel())
        return dict(sizes)

    @property
    def dtype(self) -> torch.dtype:
        """The type of most of its bytes, the wider of two that have as many."""
        sizes = self.bytes_by_type
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype.itemsize), default=torch.float32)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        config, whole = self.config, architecture_of(self.config)
        shapes, rows = {}, axis_rows(config)
        for tensor in family_of(config).tensors(config):
            sizes = whole if tensor.layer is None else whole.layer_sizes(tensor.layer)
            shapes[tensor.name] = tuple(tensor_shape(sizes, tensor.axes, rows=rows))
        return shapes


class Reader:
    """Tensors of a checkpoint one after another, over few open files and little memory."""

    def __init__(self, checkpoint: Checkpoint):
        self._placement = checkpoint.placement
        self._file: Path | None = None
        self._source: Any = None
        self._left = 0

    def dtype(self, name: str) -> str:
        """Type of a tensor as safetensors writes it, without its values."""
        dtype: str = self._slice(name).get_dtype()
        return dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """As it is stored, without its values."""
        return tuple(self._slice(name).get_shape())

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
            self._source = opened(file).__enter__()
            self._file, self._left = file, MAPPED_BYTES
        try:
            return self._source.get_slice(stored)
        except SafetensorError as problem:
            raise PruningError(
                f"{file} lacks the tensor {stored}; copy the checkpoint again"
            ) from problem

    def close(self) -> None:
        """Close the open file."""
        if self._source is not None:
            self._source.__exit__(None, None, None)
        self._source = self._file = None


def opened(file: Path) -> safe_open:
    """A safetensors file. Raises PruningError for one that is none."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as problem:
        if file.exists() and file.stat().st_size < 1024 and b"git-lfs" in file.read_bytes():
            raise PruningError(
                f"{file} is a pointer of Git LFS, not the weights; fetch them with git lfs pull"
            ) from problem
        raise PruningError(f"{file} is damaged ({reason_of(problem)}); copy it again") from problem


def _check_form(reader: Reader, name: str, *, expected: tuple[int, ...], file: Path) -> None:
    dtype = reader.dtype(name)
    if dtype not in TENSOR_TYPES:
        raise PruningError(
            f"{name} in {file} is {dtype}: quantised or no weight; save the model in bf16 or fp32 "
            "first"
        )
    shape = reader.shape(name)
    if shape != expected:
        raise PruningError(f"{name} in {file} is {shape}, but config.json asks for {expected}")


def _check_values(reader: Reader, name: str, *, file: Path) -> None:
    for rows in _in_parts(reader.view(name)):
        if not torch.isfinite(rows).all():
            raise PruningError(f"{name} in {file} has values that are not finite")


def _in_parts(view: Any) -> Iterator[torch.Tensor]:
    """The rows of a safetensors slice, few enough at a time."""
    shape = view.get_shape()
    if not shape:  # a single number
        yield view[...]
        return
    step = max(1, MAPPED_BYTES // max(1, 4 * int(torch.Size(shape[1:]).numel())))
    for start in range(0, shape[0], step):
        yield view[start : start + step]
