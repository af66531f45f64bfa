"""Training of a block library: what it learns, and that neither slots nor a kill change it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.errors import SearchError
from distill import BlockAlignment, BlockwiseSettings, Corpus, evaluate_live
from pruning import ATTENTION, FFN, Architecture, Block, Checkpoint, PruningError
from pruning.slicing import BlockLibrary
from search.library import LayerVariants, LibraryBuilder, training
from search.library.nested_training import BlockTraining, TrainingJob, TrainingPlan
from search.library.slots import groups_of
from search.space.variants import NOTHING
from search.workers.candidate import SearchAssets
from tests.search.assets import BLOCK
from tests.search.library.conftest import Tasks

Variants = tuple[LayerVariants, ...]
Built = Callable[..., LibraryBuilder]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below, by its name in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def as_an_earlier_version(file: Path) -> None:
    """Have a file the names that it had."""
    text = file.read_text("utf-8")
    assert '"schedule"' in text
    file.write_text(text.replace('"schedule"', '"course"'), encoding="utf-8")


def plan_of(assets: SearchAssets, variants: Variants, steps: int, **given: Any) -> TrainingPlan:
    values: dict[str, Any] = {"learning_rate": 1e-2, "batch": 2, "absorb_dropped": False}
    settings = BlockwiseSettings(2 * BLOCK * steps, **values | given)
    return TrainingPlan(
        assets=assets,
        variants=variants,
        settings=settings,
        separate=False,
        plateau=0.0,
        checkpoint_seconds=1e9,
    )


@pytest.fixture
def one_batch(assets: SearchAssets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only text there is, to learn from and to be measured on."""
    batch = Corpus(assets.corpus).blocks("train")[:2]
    blocks = SimpleNamespace(blocks=lambda split: batch)
    monkeypatch.setattr("search.library.nested_training.Corpus", lambda folder: blocks)


@pytest.mark.usefixtures("one_batch")
def test_all_sizes_of_a_layer_learn_a_batch_by_heart(
    assets: SearchAssets, variants: Variants, tmp_path: Path
) -> None:
    run = BlockTraining(plan_of(assets, variants, 150), TrainingJob((1, 2)))
    run.train(tmp_path / "checkpoint")
    first, last = (run.curve[place]["errors"] for place in (0, -1))
    for layer in ("1", "2"):
        left = {part: last[layer][part] / before for part, before in first[layer].items()}
        assert list(left) == ["A6/2", "A3/1", "F32", "F20", "F8"]
        assert max(left.values()) < 0.95 and left["A3/1"] < 0.4 and left["F20"] < 0.6, left


def test_sub_blocks_of_full_size_are_the_teachers_own_in_training(
    assets: SearchAssets, variants: Variants
) -> None:
    run = BlockTraining(plan_of(assets, variants, 10), TrainingJob((1,)))
    with torch.no_grad():
        for name, parameter in run.nested.layers[0].named_parameters():
            if name.startswith("self_attn"):
                parameter.fill_(torch.nan)
    own = variants[1]
    with run.nested:
        whole = run.run.errors(run.probes, [lambda: run.resize(0, own.parent)])
        ffn = run.run.errors(run.probes, [lambda: run.resize(0, own.replaced(FFN, own.ffn[2]))])
        both = run.run.errors(run.probes, [lambda: run.resize(0, own.attention[1])])
    assert whole.tolist() == [[0.0]] and 0 < ffn.item() < 1 and both.isnan().all()


@pytest.mark.usefixtures("one_batch")
def test_a_layer_stops_on_its_plateau_and_the_others_go_on(
    assets: SearchAssets, variants: Variants, tmp_path: Path
) -> None:
    plan = replace(plan_of(assets, variants, 120), plateau=0.18)
    run = BlockTraining(plan, TrainingJob((0, 1, 2)))
    moved: dict[int, int] = {}

    def look() -> None:
        for place in run.run.learning:
            moved[place] = run.run.step

    orders = BlockAlignment.advance

    def advance(self: BlockAlignment, steps: int, after: Callable[[], None]) -> float | None:
        return orders(self, steps, lambda: (look(), after())[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockAlignment, "advance", advance)
        run.train(tmp_path / "none")
    stops = dict(run.stops())
    assert stops and {place: moved[place] for place in stops} == stops
    for place, layer in enumerate("012"):
        logs = [float(np.mean(np.log(list(row["errors"][layer].values())))) for row in run.curve]
        slow = [c for c in range(5, len(logs)) if 1 - np.exp(logs[c] - logs[c - 3]) < 0.18]
        assert stops.get(place) == (run.curve[slow[0]]["step"] if slow else None)


def test_neither_slots_nor_an_interruption_change_a_library(
    builder: Built, local_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"tokens": 2 * BLOCK * 12}
    alone = builder("alone", 1, **few)
    whole = alone.trained().assets.library
    assert whole is not None and local_tasks.ended == 2, "with FFNs for layers without attention"
    made = replace(builder("three", 3, **few), checkpoint_seconds=0.0)
    step = BlockAlignment._one_step

    def interrupted(run: BlockAlignment) -> float:
        if local_tasks.ended == 2 and run.step == 7:
            raise KeyboardInterrupt
        return step(run)

    local_tasks.ended = 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(BlockAlignment, "_one_step", interrupted)
        made.trained()
    (folder,) = made.workspace.root.glob("library-*-training")
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"jobs.json", "nested-layers-0-0", "checkpoint-nested-layers-1-1"}
    as_an_earlier_version(folder / "jobs.json")
    local_tasks.ended = 0
    library = builder("three", 2, **few).trained()
    assert local_tasks.ended == 5, "the first of six was done, and the second half"
    assert library.assets.library is not None and not folder.exists()
    assert content(library.assets.library) == content(whole)
    as_an_earlier_version(library.assets.library / "errors.json")
    assert builder("three", 2, **few).trained() == library and local_tasks.ended == 5, "made once"


@pytest.fixture
def cut_from(assets: SearchAssets, variants: Variants) -> Callable[[Path], dict[str, torch.Tensor]]:
    """The tensors of a student that has a smaller FFN in layer 0 and attention in layer 2."""

    def cut(library: Path) -> dict[str, torch.Tensor]:
        blocks = [
            variants[0].replaced(FFN, variants[0].ffn[3]),
            variants[1].parent,
            variants[2].replaced(ATTENTION, variants[2].attention[1]),
        ]
        hidden = Checkpoint(assets.sorted_teacher).config.hidden_size
        source = replace(assets, library=library).source
        return dict(source.cut(Architecture.of_blocks(hidden, blocks)).state_dict())

    return cut


@pytest.mark.parametrize("distillation", ["nested", "separate"])
def test_a_student_takes_what_was_trained_from_the_library_and_no_more(
    distillation: str, builder: Built, local_tasks: Tasks, cut_from: Callable[[Path], Any]
) -> None:
    library = builder(distillation=distillation, tokens=2 * BLOCK * 40).trained()
    folder = library.assets.library
    assert folder is not None
    used = {(error.layer, error.part) for error in library.errors if error.used}
    assert {(0, "F8"), (2, "A6/2")} <= used
    separate = distillation == "separate"
    folders = ["F8", "A6-2"] if separate else ["nested"] * 2
    small, heads = (load_file(folder / name / "model.safetensors") for name in folders)
    own = load_file(library.assets.sorted_teacher / "model.safetensors")
    for name, found in cut_from(folder).items():
        source = small if ".0.mlp" in name else heads if ".2.self_attn" in name else own
        source = small if name.endswith("0.post_attention_layernorm.weight") else source
        source = heads if name.endswith("2.input_layernorm.weight") else source
        expected = source.get(name, own.get(name, own["model.embed_tokens.weight"]))
        assert torch.equal(found, expected[tuple(map(slice, found.shape))]), name
        if source is not own and ".o_proj" not in name:
            assert not torch.equal(found, own[name][tuple(map(slice, found.shape))]), name
    if separate:
        assert local_tasks.ended == 5 * 2
        with pytest.raises(PruningError, match="has no F9; it has A3/1, A6/2, F20, F32, F8"):
            BlockLibrary(folder).source_of(0, Block(9, 3, 9), FFN, own=Block(9, 3, 40))


def test_layers_without_attention_have_ffns_of_their_own(
    builder: Built, variants: Variants, local_tasks: Tasks
) -> None:
    made = builder(tokens=2 * BLOCK * 60)
    library = made.trained()
    folder = library.assets.library
    assert folder is not None
    used = {(error.layer, error.part) for error in library.errors if error.used}
    assert {(1, "F40 without attention"), (1, "F20 without attention")} <= used
    own = load_file(folder / "without-attention" / "model.safetensors")
    scores = made.scores(library)
    teacher = library.assets.source.layers(range(3), dtype=torch.float32)
    texts = Corpus(library.assets.corpus).blocks("selection")
    for ffn in variants[1].ffn[:3]:
        blocks = [variants[0].parent, NOTHING.with_ffn_of(ffn), variants[2].parent]
        student = library.assets.source.cut(Architecture.of_blocks(54, blocks))
        weight = student.state_dict()["model.layers.1.mlp.down_proj.weight"]
        assert torch.equal(weight, own["model.layers.1.mlp.down_proj.weight"][:, : ffn.ffn])
        if ffn == variants[1].ffn[0]:
            kl = evaluate_live(student, teacher, blocks=texts)[0].means()["kl"]
            assert scores.of(1, blocks[1]) == pytest.approx(kl, rel=1e-4)


def test_a_size_that_came_no_closer_stays_as_it_was(
    builder: Built, local_tasks: Tasks, cut_from: Callable[[Path], Any], lines: list[str]
) -> None:
    library = builder(learning_rate=0.3).trained()
    folder = library.assets.library
    assert folder is not None and not all(error.used for error in library.errors)
    own = load_file(library.assets.sorted_teacher / "model.safetensors")
    (error,) = (e for e in library.errors if (e.layer, e.part) == (0, "F8"))
    assert not error.used
    for name, found in cut_from(folder).items():
        if ".0." in name:
            assert torch.equal(found, own[name][tuple(map(slice, found.shape))])
    unused = sum(not error.used for error in library.errors)
    assert f"{unused} of 27 blocks did not come closer" in lines[-1]


def test_a_disk_without_room_is_said_before_anything_is_trained(
    builder: Built, local_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "free_bytes", lambda folder: 1000)
    with pytest.raises(SearchError, match="needs up to .* or set --per_layer.tokens 0"):
        builder().trained()
    assert not local_tasks.ended


def test_layers_are_divided_as_slots_and_their_memory_want(
    builder: Built, local_tasks: Tasks
) -> None:
    assert groups_of([0, 1, 2, 5, 6], 2) == [(0, 1), (2, 5, 6)]
    assert groups_of([3, 4], 9) == [(3,), (4,)]
    builder("large", 1, memory=10**9, tokens=2 * BLOCK).trained()
    assert local_tasks.ended == 2
    builder("small", 1, memory=10**6, tokens=2 * BLOCK).trained()
    assert local_tasks.ended == 2 + 2 * 3
