"""Pieces on slots: the same bytes as from one process, also where a process is killed."""

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from common.errors import SearchStopped
from distill import TargetFormat
from distill.targets import ShardText, TargetRequest
from search.cluster.ray_session import quiet_ray
from search.cluster.resources import Node, Resources
from search.cluster.room import Room
from search.workers.access import MARKER
from search.workers.file_server import serve_workspace
from search.workers.slot import Slot
from search.workers.slots import SlotPool
from search.workers.spreading import SlotCompute, fitting, worth_spreading
from search.workers.staging import CACHE_VARIABLE
from tests.pruning.models import build_teacher
from workspace.corpus_and_targets import SplitTargets
from workspace.models import LoadedModel, ModelSource
from workspace.pieces import Passes, Piece, compute_here

RESOURCES = Resources(2, 1, 0.0, (Node(2, 0),))


@dataclass(frozen=True)
class KilledOnce:
    """Passes whose process is killed the first time, as if for memory or by hand."""

    text: ShardText
    marker: Path

    def write(self, model: Any, folder: Path) -> None:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.text.write(model, folder)


@dataclass(frozen=True)
class Broken:
    """Passes that fail wherever they are done."""

    def write(self, model: Any, folder: Path) -> None:
        raise OSError("no space left")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tmp_path_factory.mktemp("elsewhere") / "teacher"
    build_teacher("llama-gqa-tied").save_pretrained(directory)
    return LoadedModel(ModelSource(directory), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    quiet_ray()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))  # workers inherit it
        ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


def targets_in(folder: Path) -> SplitTargets:
    blocks = np.random.default_rng(0).integers(0, 64, (128 * 3 + 5, 8)).astype(np.uint16)
    form = TargetFormat.sampled(64, 12, temperature=1.0, seed=0)
    return SplitTargets(blocks, form, folder / "targets", {}, split="train")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.process
@pytest.mark.usefixtures("ray_here")
def test_slots_write_the_bytes_of_one_process_though_one_is_killed_and_none_sees_the_workspace(
    teacher: LoadedModel, tmp_path: Path, lines: list[str]
) -> None:
    compute_here(teacher, targets_in(tmp_path / "one").pieces())
    (tmp_path / "served").mkdir()
    with serve_workspace(tmp_path / "served", (teacher.source.directory,)) as access:
        (tmp_path / "served" / MARKER).write_text("another machine's")
        slots = SlotPool(Room(RESOURCES, lambda: 0), Slot)
        compute = SlotCompute(slots, access, tmp_path / "log")
        first, *pieces = targets_in(tmp_path / "served").pieces()
        text = first.passes()
        assert isinstance(text, ShardText)
        killed = KilledOnce(text, tmp_path / "killed")
        compute(teacher, [with_passes(first, killed), *pieces])
        assert (tmp_path / "killed").exists()
        assert any("killed from outside" in line and "again" in line for line in lines)
        assert contents(tmp_path / "served" / "targets") == contents(tmp_path / "one" / "targets")
        assert targets_in(tmp_path / "served").pieces() == []
        with pytest.raises(SearchStopped, match="could not be finished: OSError: no space left"):
            compute(teacher, [with_passes(first, Broken())] * 2)


def with_passes(piece: Piece, passes: Passes) -> Piece:
    return Piece(piece.kind, piece.tokens, piece.folder, lambda: passes)


def test_a_last_shard_that_grew_and_a_damaged_one_are_the_pieces_that_are_missing(
    teacher: LoadedModel, tmp_path: Path
) -> None:
    whole = targets_in(tmp_path)
    shorter = SplitTargets(whole.blocks[:200], whole.target_format, whole.directory, {}, split="t")
    compute_here(teacher, shorter.pieces())
    (whole.directory / "00000" / "next.npy").write_bytes(b"damaged")
    assert [piece.folder.name for piece in whole.pieces()] == ["00000", "00001", "00002", "00003"]
    assert [piece.tokens for piece in whole.pieces()] == [1024, 1024, 1024, 40]
    assert isinstance(whole, TargetRequest)


def test_slots_are_used_where_they_have_more_to_compute_with(
    teacher: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert worth_spreading(Resources(4, 1, 0.0))
    assert not worth_spreading(Resources(2, 1, 0.0)), "the driver has twice the processors"
    assert not worth_spreading(Resources(1, 8, 0.0))
    assert not worth_spreading(Resources(4, 1, 0.25, (Node(8, 1),))), "all share the driver's GPU"
    assert worth_spreading(Resources(4, 1, 0.5, (Node(8, 2),)))
    assert fitting(teacher, Resources(8, 1, 0.0, (Node(4, 0, 4e9), Node(4, 0)))) == 2 + 4
