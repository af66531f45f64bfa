"""Students whose sub-blocks come from two checkpoints: the sorted teacher and a block library."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pruning import (
    ATTENTION,
    FFN,
    Architecture,
    Block,
    Checkpoint,
    PruningError,
    Slice,
    architecture_of,
    block_of,
    load_slice,
)
from pruning.families import family_of
from pruning.slicing import ALONE, ANY_SIZE, BlockLibrary, write_index, write_trained
from tests.pruning.models import build_teacher
from tests.pruning.slicing.test_nested import random_blocks

VARIANTS = ["llama-gqa-tied", "gemma2", "phi3", "olmo2", "gpt2", "qwen3-moe-mixed"]


def library_of(folder: Path, **untrained: list[str]) -> BlockLibrary:
    write_index(folder, {ANY_SIZE: "trained"}, {int(n[1:]): s for n, s in untrained.items()})
    return BlockLibrary(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sub_blocks_of_full_size_are_the_teachers_and_others_the_librarys(
    variant: str, tmp_path: Path
) -> None:
    for seed, folder in enumerate(("teacher", "trained")):
        build_teacher(variant, seed).save_pretrained(tmp_path / folder)
    teacher, trained = Checkpoint(tmp_path / "teacher"), Checkpoint(tmp_path / "trained")
    config: Any = teacher.config
    family, whole = family_of(config), architecture_of(config)
    shape = Architecture.of_blocks(whole.hidden, random_blocks(config, seed=9))
    sliced = Slice.of(config, shape, kept_layers=range(whole.layers))
    first, second = (load_slice(source, sliced).state_dict() for source in (teacher, trained))
    mixed = load_slice(teacher, sliced, library=library_of(tmp_path)).state_dict()
    origins = set()
    for name, found in mixed.items():
        layer, _, inside = name.removeprefix(f"{family.layer_prefix}.").partition(".")
        expected = first
        if layer.isdigit():
            kind = family.sub_block(inside)
            part = shape.block(int(layer)).part(kind)
            own = part == block_of(config, int(layer)).part(kind)
            origins.add(own)
            expected = first if own else second
        assert torch.equal(found, expected[name]), name
        assert not torch.equal(first[name], second[name]), name
    assert origins == {True, False}


def test_a_size_that_was_not_trained_is_the_teachers_where_it_is_said_so(tmp_path: Path) -> None:
    library = library_of(tmp_path, _1=["F20", "A3/1"])
    config = build_teacher("llama-gqa-tied").config
    own = block_of(config, 1)
    smaller = replace(own, kv_heads=1, heads=3, ffn=20)
    for kind in (ATTENTION, FFN):
        assert library.source_of(1, smaller, kind, own=own) is None
        found = library.source_of(0, smaller, kind, own=own)
        assert found is not None and found.directory == tmp_path / "trained"
        assert library.source_of(0, own, kind, own=own) is None
    write_index(tmp_path, {"F20": "apart"}, {})
    with pytest.raises(PruningError, match="has no A3/1; it has F20"):
        BlockLibrary(tmp_path).source_of(0, smaller, ATTENTION, own=own)


@pytest.mark.parametrize("text", ["", "[]", '{"folders": {}}', '{"folders": 1, "untrained": {}}'])
def test_a_damaged_index_is_said_in_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text(text)
    with pytest.raises(PruningError, match="is no index of a block library; delete .*, and the"):
        BlockLibrary(tmp_path).source_of(0, Block(9, 3, 20), FFN, own=Block(9, 3, 40))


def test_an_ffn_without_attention_has_weights_of_its_own_where_there_are_any(
    tmp_path: Path,
) -> None:
    own = Block(9, 3, 40)
    alone = [Block(0, 0, 40), Block(0, 0, 20)]

    def folders(index: dict[str, str], untrained: list[str]) -> list[str | None]:
        write_index(tmp_path, index, {0: untrained})
        library = BlockLibrary(tmp_path)
        found = [library.source_of(0, block, FFN, own=own) for block in alone]
        return [None if each is None else each.directory.name for each in found]

    assert folders({ANY_SIZE: "all"}, []) == [None, "all"]
    both = {ANY_SIZE: "all", ALONE: "alone"}
    assert folders(both, []) == ["alone", "alone"]
    assert folders(both, ["F20 without attention"]) == ["alone", None]
    assert folders(both, ["F20"]) == ["alone", "alone"]


@pytest.mark.parametrize("variant", ["gpt2", "mixtral"])
def test_trained_layers_take_their_places_in_a_whole_checkpoint(
    variant: str, tmp_path: Path
) -> None:
    build_teacher(variant).save_pretrained(tmp_path / "teacher")
    build_teacher(variant, seed=1).save_pretrained(tmp_path / "first")
    build_teacher(variant, seed=2).save_pretrained(tmp_path / "second")
    teacher, first, second = (Checkpoint(tmp_path / n) for n in ("teacher", "first", "second"))
    (tmp_path / "note").write_text("beside")
    output = tmp_path / "output"
    output.mkdir()
    layers = {0: (first, 2), 2: (second, 1)}
    write_trained(teacher, layers, output, beside={"kept": tmp_path / "note"})
    Checkpoint(output).check()
    assert (output / "kept").read_text() == "beside"
    found, own = (load_file(path / "model.safetensors") for path in (output, tmp_path / "teacher"))
    others = [load_file(tmp_path / name / "model.safetensors") for name in ("first", "second")]
    prefix = family_of(teacher.config).layer_prefix
    for name, tensor in found.items():
        expected, stored = own, name
        for (layer, (_, index)), other in zip(layers.items(), others, strict=True):
            if name.startswith(f"{prefix}.{layer}."):
                expected = other
                stored = name.replace(f"{prefix}.{layer}.", f"{prefix}.{index}.")
        assert torch.equal(tensor, expected[stored]), name
