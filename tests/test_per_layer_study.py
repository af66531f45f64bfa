"""A study with students whose layers differ, killed while their blocks are trained.

That an interruption of the training, the scores or the programme changes nothing is in
tests/search/library and tests/search/per_layer; so are the controls.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pruning import Architecture, Checkpoint, architecture_of, load_student
from search.results import read_results
from tests.driver import Driver
from tests.surface import attributes_of, files_of, require_recorded
from workspace.layout import Workspace
from workspace.models.student_source import student_named
from workspace.sorted_teacher import SortedTeacher

pytestmark = pytest.mark.process

OPTIONS: dict[str, Any] = {
    "space__layers": [6],
    "space__hidden": [120],
    "space__heads": [6],
    "space__ffn": [480],
    "space__per_layer": ["attention", "ffn"],
    "per_layer__kv_heads": [2, 0],
    "per_layer__ffn_shares": [1, 0.5, 0.25, 0],
    "per_layer__tokens": 2048,
    "per_layer__batch": 2,
    "per_layer__sequences": 4,
    "per_layer__solutions": 1,
    "per_layer__controls": [],
    "trials": 2,
    "short_tokens": 2048,
    "full_tokens": 2048,
    "evidence": "none",
}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Driver:
    """The study at its end, which was killed once."""
    driver = Driver(tmp_path_factory.mktemp("layered") / "study", corpus)
    training = "library-*-training/checkpoint-*/meta.json"
    process = driver.start(**OPTIONS)
    driver.until(process, lambda: any(driver.workspace.glob(training)))
    driver.kill(process)
    driver.finish(**OPTIONS)
    return driver


@pytest.fixture(scope="module")
def results(driver: Driver) -> Any:
    return read_results(driver.workspace / "results.json")


def test_uniform_students_and_solutions_are_trials_of_one_study(
    driver: Driver, results: Any
) -> None:
    names = [trial.user_attrs.get("anchor") for trial in driver.finished_trials()]
    assert names == ["uniform shrink", "per-layer 1"]
    (one,) = results.per_layer.combinations
    row = pd.read_csv(driver.workspace / "trials.csv").iloc[1].dropna().to_dict()
    assert Architecture.from_dict(row) == one.architecture and one.architecture.per_layer
    assert (one.name, one.trial, one.zero_shot) == ("per-layer 1", 1, row["zero_shot"])
    assert 0.95 * 0.5 <= row["parameters"] / results.teacher.parameters <= 0.5
    assert one.proven


def test_the_blocks_were_trained_and_cost_something(driver: Driver, results: Any) -> None:
    blocks = results.per_layer.blocks
    assert {block.layer for block in blocks} == set(range(6))
    sizes = {"F320", "F128", *(f"F{size} without attention" for size in (640, 320, 128))}
    assert {block.block for block in blocks} == sizes
    assert any(block.used and block.after < block.before for block in blocks)
    assert results.ledger["blocks"].student_flops > 0
    assert not list(driver.workspace.glob("library-*-training"))
    assert (driver.workspace / results.per_layer.library).is_dir()


def test_both_kinds_are_distilled_in_full_and_compared(driver: Driver, results: Any) -> None:
    kinds = [winner.architecture.per_layer for winner in results.winners]
    pair = results.per_layer.compared
    assert kinds[pair.per_layer] and not kinds[pair.uniform]
    one, other = (results.winners[place].test.kl.mean for place in (pair.per_layer, pair.uniform))
    assert pair.difference.mean == pytest.approx(one - other, rel=1e-6)
    assert any("whose layers differ" in verdict.text for verdict in results.verdicts)
    page = (driver.workspace / "report.html").read_text("utf-8")
    assert "Layers of their own sizes" in page and "Block-wise distillation" in page


def test_a_winner_is_loaded_by_one_import(driver: Driver, results: Any) -> None:
    folders = Workspace(driver.workspace).winner_folders(len(results.winners))
    place = results.per_layer.compared.per_layer
    winner, folder = results.winners[place], folders[place]
    model: Any = load_student(folder)
    assert architecture_of(Checkpoint(folder).config) == winner.architecture
    assert model.num_parameters() == winner.parameters
    assert "| layers | attention | FFN |" in (folder / "README.md").read_text()
    facts = json.loads((folder / "espalier.json").read_text())
    assert Architecture.from_dict(facts["architecture"]) == winner.architecture


def test_the_student_of_a_trial_is_cut_out_of_the_library_again(
    driver: Driver, results: Any, tmp_path: Path
) -> None:
    found = student_named(f"{driver.workspace}:1", Workspace(tmp_path))
    again: Any = load_student(found.directory)
    library = driver.workspace / results.per_layer.library
    source = driver.workspace / results.sorted_teacher
    shape = architecture_of(again.config)
    as_tried = SortedTeacher(source, library).cut(shape, dtype=again.dtype).state_dict()
    untrained = SortedTeacher(source).cut(shape, dtype=again.dtype).state_dict()
    assert all(torch.equal(tensor, as_tried[name]) for name, tensor in again.state_dict().items())
    assert any(not torch.equal(tensor, as_tried[name]) for name, tensor in untrained.items())


def test_its_files_keys_and_attributes(driver: Driver) -> None:
    workspace = driver.workspace
    require_recorded("layered", [*files_of(workspace, 1), *attributes_of(workspace, "test")])
