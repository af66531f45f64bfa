"""Importance in pieces: the same, whoever measured which of them and whatever was stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pruning import Checkpoint, Importance, Scoring, measure_importance
from pruning.importance import measure_moments
from tests.exactness import EXACT
from tests.pruning.models import build_teacher
from workspace import importance as importance_module
from workspace.importance import CalibrationBatches, ImportanceFiles
from workspace.models import LoadedModel, ModelSource
from workspace.pieces import Piece, PieceProgress, compute_here

pytestmark = pytest.mark.usefixtures("float64")
Files = Callable[[str], ImportanceFiles]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> NDArray[Any]:
    """Of several pieces of every kind, the last of which are short."""
    monkeypatch.setattr(importance_module, "SEQUENCES", {"width": 4, "layers": 3, "norms": 2})
    return np.random.default_rng(0).integers(0, 64, (10, 9)).astype(np.uint16)


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    build_teacher("llama-gqa-tied").save_pretrained(tmp_path / "teacher")
    return LoadedModel(ModelSource(tmp_path / "teacher"), torch.device("cpu"), torch.float64)


@pytest.fixture
def files(model: LoadedModel, blocks: NDArray[Any], tmp_path: Path) -> Files:
    """In a folder of that name."""

    def make(folder: str) -> ImportanceFiles:
        return ImportanceFiles(
            path=tmp_path / folder / "importance.safetensors",
            parts=tmp_path / folder / "parts",
            blocks=blocks,
            few_blocks=blocks[:5],
            scoring=Scoring(spans=True),
            checkpoint=Checkpoint(tmp_path / "teacher"),
        )

    return make


def test_pieces_add_up_to_what_all_text_at_once_gives(
    files: Files, model: LoadedModel, blocks: NDArray[Any]
) -> None:
    pieces = files("study").missing(moments=True)
    assert len(pieces) == 3 + 4 + 3
    compute_here(model, pieces)
    scoring = files("study").scoring
    whole = measure_importance(
        model(),
        CalibrationBatches(blocks),
        scoring=scoring,
        checkpoint=Checkpoint(model.source.directory),
    )
    found = files("study").importance()
    for name, values in vars(whole).items():
        torch.testing.assert_close(getattr(found, name), values, rtol=1e-6, atol=1e-7)
    moments = measure_moments(model(), CalibrationBatches(blocks[:5]))
    for name, values in files("study").moments().mean_squares.items():
        torch.testing.assert_close(values, moments.mean_squares[name], rtol=0, atol=EXACT)


def test_whoever_measures_which_piece_and_when_the_bytes_are_the_same(
    files: Files, model: LoadedModel
) -> None:
    one, other = files("one"), files("other")
    compute_here(model, one.missing(moments=True))
    pieces = other.missing(moments=True)
    compute_here(model, pieces[7:])  # and then it was killed
    again = model.like(model.source)  # another process
    left = other.missing(moments=True)
    assert [piece.folder for piece in left] == [piece.folder for piece in pieces[:7]]
    compute_here(again, left[::-1])
    assert not other.missing(moments=True)
    assert [one.importance(), other.importance()]
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.moments().mean_squares.keys() == other.moments().mean_squares.keys()
    other.forget_pieces()
    assert not other.parts.exists()
    assert other.importance().layers.tolist() == one.importance().layers.tolist()


def test_importance_of_an_earlier_version_is_not_measured_again(
    files: Files, model: LoadedModel
) -> None:
    found = files("study")
    found.path.parent.mkdir()
    known = Importance(*(torch.rand(3) for _ in range(4)))
    known.save(found.path)
    assert not found.missing(moments=False)
    kinds = {piece.folder.name.partition("-")[0] for piece in found.missing(moments=True)}
    assert kinds == {"norms"}
    assert torch.equal(found.importance().hidden, known.hidden)


def test_lines_say_how_far_each_kind_is(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piece(kind: str, tokens: int) -> Piece:
        return Piece(kind, tokens, tmp_path, lambda: pytest.fail("nobody computes it"))

    pieces: Sequence[Piece] = [
        *(piece("importance", 100) for _ in range(3)),
        *(piece("targets", tokens) for tokens in (100, 9)),
    ]
    told: list[float] = []
    progress = PieceProgress(pieces, 2, lambda left: told.append(left) or "; so long")
    monkeypatch.setattr(progress, "line_due", lambda: True)
    monkeypatch.setattr("workspace.pieces.SETTLING_SECONDS", 0.0)
    for each in pieces:
        progress.finished(each)
    assert [line.partition(" tokens,")[0] for line in lines] == [
        "importance: 300 of 300",
        "targets: 100 of 109",
    ]
    assert all(line.endswith(" tokens/s on 2 slots; so long") for line in lines)
    assert len(told) == 3 and told[-1] == 0, "the first of each slot began with its process"
