"""A study with students whose layers differ, killed while their blocks are trained.

What happens to it is told in tests/stories.py. That an interruption of the training, the scores or
the programme changes nothing is in tests/search/library and tests/search/per_layer; so are the
controls.
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


@pytest.fixture(scope="module")
def results(layered: Driver) -> Any:
    return read_results(layered.workspace / "results.json")


def test_uniform_students_and_solutions_are_trials_of_one_study(
    layered: Driver, results: Any
) -> None:
    names = [trial.user_attrs.get("anchor") for trial in layered.finished_trials()]
    assert names == ["uniform shrink", "per-layer 1"]
    (one,) = results.per_layer.combinations
    row = pd.read_csv(layered.workspace / "trials.csv").iloc[1].dropna().to_dict()
    assert Architecture.from_dict(row) == one.architecture and one.architecture.per_layer
    assert (one.name, one.trial, one.zero_shot) == ("per-layer 1", 1, row["zero_shot"])
    assert 0.95 * 0.5 <= row["parameters"] / results.teacher.parameters <= 0.5
    assert one.proven


def test_the_blocks_were_trained_and_cost_something(layered: Driver, results: Any) -> None:
    blocks = results.per_layer.blocks
    assert {block.layer for block in blocks} == set(range(6))
    sizes = {"F320", "F128", *(f"F{size} without attention" for size in (640, 320, 128))}
    assert {block.block for block in blocks} == sizes
    assert any(block.used and block.after < block.before for block in blocks)
    assert results.ledger["blocks"].student_flops > 0
    assert not list(layered.workspace.glob("library-*-training"))
    assert (layered.workspace / results.per_layer.library).is_dir()


def test_both_kinds_are_distilled_in_full_and_compared(layered: Driver, results: Any) -> None:
    kinds = [winner.architecture.per_layer for winner in results.winners]
    pair = results.per_layer.compared
    assert kinds[pair.per_layer] and not kinds[pair.uniform]
    one, other = (results.winners[place].test.kl.mean for place in (pair.per_layer, pair.uniform))
    assert pair.difference.mean == pytest.approx(one - other, rel=1e-6)
    assert any("whose layers differ" in verdict.text for verdict in results.verdicts)
    page = (layered.workspace / "report.html").read_text("utf-8")
    assert "Layers of their own sizes" in page and "Block-wise distillation" in page


def test_a_winner_is_loaded_by_one_import(layered: Driver, results: Any) -> None:
    folders = Workspace(layered.workspace).winner_folders(len(results.winners))
    place = results.per_layer.compared.per_layer
    winner, folder = results.winners[place], folders[place]
    model: Any = load_student(folder)
    assert architecture_of(Checkpoint(folder).config) == winner.architecture
    assert model.num_parameters() == winner.parameters
    assert "| layers | attention | FFN |" in (folder / "README.md").read_text()
    facts = json.loads((folder / "espalier.json").read_text())
    assert Architecture.from_dict(facts["architecture"]) == winner.architecture


def test_the_student_of_a_trial_is_cut_out_of_the_library_again(
    layered: Driver, results: Any, tmp_path: Path
) -> None:
    found = student_named(f"{layered.workspace}:1", Workspace(tmp_path))
    again: Any = load_student(found.directory)
    library = layered.workspace / results.per_layer.library
    source = layered.workspace / results.sorted_teacher
    shape = architecture_of(again.config)
    as_tried = SortedTeacher(source, library).cut(shape, dtype=again.dtype).state_dict()
    untrained = SortedTeacher(source).cut(shape, dtype=again.dtype).state_dict()
    assert all(torch.equal(tensor, as_tried[name]) for name, tensor in again.state_dict().items())
    assert any(not torch.equal(tensor, as_tried[name]) for name, tensor in untrained.items())


def test_its_files_keys_and_attributes(layered: Driver) -> None:
    workspace = layered.workspace
    require_recorded("layered", [*files_of(workspace, 1), *attributes_of(workspace, "test")])
