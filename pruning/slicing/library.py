"""Block library: checkpoints of the sorted teacher's form whose prefixes were trained.

A student takes each attention and FFN of the teacher's own size from the sorted teacher, and so
those that training did not bring closer to it; every other one from the library (Puzzle, arXiv
2411.19146). An FFN reads something else where the attention before it is left out, so that those
may have weights of their own there, of full size too.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import PruningError
from pruning.families.block import ATTENTION, FFN, NONE, Block, text_of_blocks
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.config_file import raw_config, write_config
from pruning.families.shapes import block_of
from pruning.families.table import family_of
from pruning.families.words import TensorSpec
from pruning.slicing.selection import Slice
from pruning.slicing.writer import copied, write_tensors

INDEX = "library.json"
ANY_SIZE, ALONE = "any", "without attention"
"""In the index, of a checkpoint that has all sizes; and of one with all sizes of FFNs for layers
without attention."""
Layers = Mapping[int, tuple[Checkpoint, int]]
"""Layer -> the checkpoint that has it, and which of its layers it is."""


@dataclass(frozen=True)
class BlockLibrary:
    """Checkpoints with trained attentions and FFNs, each of which serves some sizes or all."""

    directory: Path
    """Has a folder for each, and the index of them."""

    @cached_property
    def _index(self) -> dict[str, Any]:
        path = self.directory / INDEX
        try:
            index: dict[str, Any] = json.loads(path.read_text("utf-8"))
            sound = all(isinstance(index[name], dict) for name in ("folders", "untrained"))
        except (OSError, ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise PruningError(
                f"{path} is no index of a block library; delete {self.directory}, and the study "
                "trains it again"
            )
        return index

    @cached_property
    def _checkpoints(self) -> dict[str, Checkpoint]:
        folders = set(self._index["folders"].values())
        return {name: Checkpoint(self.directory / name) for name in folders}

    def source_of(
        self, layer: int, block: Block, sub_block: str, *, own: Block
    ) -> Checkpoint | None:
        """The checkpoint that the attention or FFN of a student's `block` is cut out of, in a layer
        of the teacher whose own sizes are `own`; None: the sorted teacher.

        Raises PruningError for a size that was not trained.
        """
        folders, name = self._index["folders"], size_name(block, sub_block)
        if not block.has(sub_block) or name in self._index["untrained"].get(str(layer), ()):
            return None
        part = block.part(sub_block)
        if name != part_name(part) and ALONE in folders:
            return self._checkpoints[folders[ALONE]]
        if part == own.part(sub_block):
            return None
        folder = folders.get(part_name(part)) or folders.get(ANY_SIZE)
        if folder is None:
            raise PruningError(
                f"the block library {self.directory} has no {part_name(part)}; it has "
                f"{', '.join(sorted(folders))}"
            )
        return self._checkpoints[folder]

    @contextmanager
    def reading(self, cut: Slice) -> Iterator[Callable[[TensorSpec], Reader | None]]:
        """Inside, gives for a tensor of the teacher the reader of the checkpoint that the student
        `cut` takes it from; None where that is the sorted teacher."""
        with ExitStack() as stack:
            readers: dict[Path, Reader] = {}

            def reader_of(tensor: TensorSpec) -> Reader | None:
                source = self._source(cut, tensor)
                if source is None:
                    return None
                if source.directory not in readers:
                    readers[source.directory] = stack.enter_context(source.reading())
                return readers[source.directory]

            yield reader_of

    def _source(self, cut: Slice, tensor: TensorSpec) -> Checkpoint | None:
        if tensor.layer is None or not cut.architecture.per_layer:
            return None
        family = family_of(cut.teacher)
        sub_block = family.sub_block(family.name_in_layer(tensor))
        own = block_of(cut.teacher, tensor.layer)
        return self.source_of(tensor.layer, cut.block(tensor.layer), sub_block, own=own)


def part_name(part: Block) -> str:
    """An attention or FFN in short, such as A4/2 or F256; "-" for none."""
    if part == Block(0, 0, 0):
        return NONE
    attention, *ffn = text_of_blocks([part]).split()
    return attention if part.part(ATTENTION) == part else " ".join(ffn)


def size_name(block: Block, sub_block: str) -> str:
    """The attention or FFN of a layer in short, such as A4/2, F256 or F256 without attention."""
    name = part_name(block.part(sub_block))
    alone = sub_block == FFN and block.has_ffn and not block.has_attention
    return f"{name} {ALONE}" if alone else name


def write_index(
    directory: Path, folders: Mapping[str, str], untrained: Mapping[int, Sequence[str]]
) -> None:
    """Write the index of a library to its `directory`.

    Args:
        directory: Of the library; is there.
        folders: Which of its folders serves each size, as `part_name` has it, or `ANY_SIZE` and
            `ALONE`.
        untrained: The sizes of each layer of the teacher that the sorted teacher serves, as
            `size_name` has them.
    """
    index = {"folders": dict(folders), "untrained": {str(n): s for n, s in untrained.items()}}
    (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def write_trained(
    sorted_teacher: Checkpoint, layers: Layers, directory: Path, *, beside: Mapping[str, Path]
) -> None:
    """Write the sorted teacher with other `layers` to a directory that is there.

    Every tensor keeps the type that it has; files to put `beside` are copied, by their new names.
    """
    config = sorted_teacher.config
    family = family_of(config)
    with ExitStack() as stack:
        own = stack.enter_context(sorted_teacher.reading())
        found = {checkpoint.directory: checkpoint for checkpoint, _ in layers.values()}
        readers = {path: stack.enter_context(found[path].reading()) for path in found}
        plans = []
        for tensor in family.tensors(config):
            if tensor.layer is not None and tensor.layer in layers:
                checkpoint, index = layers[tensor.layer]
                stored = family.layer_tensor(index, family.name_in_layer(tensor))
                plans.append(copied(readers[checkpoint.directory], tensor.name, stored=stored))
            else:
                plans.append(copied(own, tensor.name))
        write_tensors(plans, directory)
    write_config(directory, raw_config(sorted_teacher.directory), config)
    for name, path in beside.items():
        shutil.copyfile(path, directory / name)
