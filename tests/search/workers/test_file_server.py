"""The workspace's files from afar: nothing outside it, never half of one, never an old one."""

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from distill.train.limits import RunLimits
from pruning import Architecture
from search.cluster.ray_session import quiet_ray
from search.workers import staging
from search.workers.access import WorkspaceAccess
from search.workers.candidate import Job, SearchAssets
from search.workers.file_server import FileEntry, FileServer, serve_workspace
from search.workers.staging import (
    CACHE_VARIABLE,
    UNUSED_DAYS,
    NodeCache,
    RemoteWorkspace,
    RunDirectory,
)
from tests.search.assets import assets_in

pytestmark = pytest.mark.process

PIECE = 1000
"""Bytes, so that small files travel in pieces."""


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceAccess]:
    """Of one workspace for all tests here; each has a folder of its own in it."""
    quiet_ray()
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    with serve_workspace(tmp_path_factory.mktemp("served")) as access:
        yield access
    ray.shutdown()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def area(access: WorkspaceAccess, tmp_path: Path) -> Path:
    """A folder of the served workspace."""
    (access.root / tmp_path.name).mkdir()
    return access.root / tmp_path.name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeCache:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(staging, "PIECE_BYTES", PIECE)
    return NodeCache()


@pytest.fixture
def remote(access: WorkspaceAccess) -> RemoteWorkspace:
    return RemoteWorkspace(ray.get_actor(access.actor))


def fill(directory: Path, seed: int = 0) -> dict[str, bytes]:
    """WorkspaceAccess of several pieces, of none, and below a folder; returns what is in them."""
    random = np.random.default_rng(seed)
    sizes = {"a.bin": 3 * PIECE + 7, "below/b.bin": 2 * PIECE, "below/empty": 0, "c.json": 5}
    content = {name: random.bytes(size) for name, size in sizes.items()}
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return content


def read(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("path", ["", ".", "..", "inside/../..", "link", "link/deeper", "/etc"])
def test_nothing_outside_the_workspace_is_touched(root: Path, path: str) -> None:
    outside = root.parent / "outside"
    fill(outside)
    (root / "link").symlink_to(outside)
    server = FileServer(str(root))
    target = str(root / path)
    for act in (server.begin, server.delete, server.entries, server.exists):
        with pytest.raises(PermissionError, match="not inside the workspace"):
            act(target)
    for name in ("../../outside/c.json", str(outside / "c.json"), "../link/c.json"):
        with pytest.raises(PermissionError):
            server.read(str(root / "inside"), name, offset=0, count=1)
        with pytest.raises(PermissionError):
            server.append(str(root / "inside"), name, piece=np.zeros(1, np.uint8))
    assert len(read(outside)) == 4


def test_a_readable_directory_is_read_through_links_and_never_written(root: Path) -> None:
    hub = root.parent / "hub"
    content = fill(hub / "blobs")
    (hub / "snapshot").mkdir()
    (hub / "snapshot" / "model").symlink_to(hub / "blobs" / "c.json")
    server = FileServer(str(root), (str(hub / "snapshot"),))
    snapshot = str(hub / "snapshot")
    assert [(e.name, e.size) for e in server.entries(snapshot)] == [("model", 5)]
    assert server.read(snapshot, "model", offset=0, count=9).tobytes() == content["c.json"]
    for act in (server.begin, server.delete):
        with pytest.raises(PermissionError):
            act(snapshot)
    with pytest.raises(PermissionError):
        server.read(snapshot, "../blobs/c.json", offset=0, count=1)


def test_a_directory_is_replaced_whole(root: Path) -> None:
    server = FileServer(str(root))
    fill(root / "kept", seed=1)
    aside = server.begin(str(root / "kept"))
    before = read(root / "kept")
    for piece in (b"ab", b"c"):
        server.append(aside, "deep/file", piece=np.frombuffer(piece, np.uint8))
        assert read(root / "kept") == before
    server.finish(aside, str(root / "kept"))
    assert read(root) == {"kept/deep/file": b"abc"}
    server.delete(str(root / "kept"))
    assert not list(root.iterdir())


def test_directories_go_there_and_back(
    area: Path, access: WorkspaceAccess, remote: RemoteWorkspace, cache: NodeCache
) -> None:
    content = fill(area / "there")
    remote.fetch(area / "there", cache.directory / "here")
    assert read(cache.directory / "here") == content
    remote.send(cache.directory / "here", area / "deep" / "back")
    assert read(area / "deep" / "back") == content
    with pytest.raises(FileNotFoundError):
        remote.fetch(area / "nothing", cache.directory / "nothing")
    with pytest.raises(PermissionError):
        remote.fetch(access.root.parent, cache.directory / "nothing")
    assert not (cache.directory / "nothing").exists()


def test_a_copy_is_made_once_and_again_when_the_directory_grew(
    area: Path, remote: RemoteWorkspace, cache: NodeCache
) -> None:
    content = fill(area / "targets")
    copy = cache.copy_of(area / "targets", remote)
    made = (copy / "a.bin").stat().st_mtime_ns
    assert cache.copy_of(area / "targets", remote) == copy
    assert (copy / "a.bin").stat().st_mtime_ns == made
    (area / "targets" / "more").write_bytes(b"more")
    grown = cache.copy_of(area / "targets", remote)
    assert read(grown) == content | {"more": b"more"}
    assert read(copy) == content, "a run may still read it"
    (area / "targets" / "more").write_bytes(b"else")
    assert read(cache.copy_of(area / "targets", remote))["more"] == b"else"


def test_copies_that_nobody_used_are_deleted(
    area: Path, remote: RemoteWorkspace, cache: NodeCache
) -> None:
    for name in ("old", "new"):
        fill(area / name)
    old = cache.copy_of(area / "old", remote)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    new = cache.copy_of(area / "new", remote)
    assert new.exists() and not old.exists()


def test_a_dead_process_leaves_no_scratch(cache: NodeCache) -> None:
    mine = cache.scratch()
    parts = mine.name.split("@")
    dead = mine.with_name("@".join([*parts[:2], str(2**22 + 1), parts[3]]))
    dead.mkdir()
    cache.scratch()
    assert mine.exists() and not dead.exists()


@pytest.fixture
def assets(area: Path) -> SearchAssets:
    for name in ("sorted", "teacher", "corpus", "train", "selection", "test"):
        fill(area / name, seed=len(name))
    return assets_in(area)


@pytest.fixture
def job(area: Path) -> Job:
    shape = Architecture(layers=1, hidden=8, heads=1, kv_heads=1, ffn=8)
    return Job("trial", shape, RunLimits(1, checkpoint=area / "checkpoints" / "trial"))


def test_who_sees_the_workspace_works_in_it(
    area: Path, access: WorkspaceAccess, assets: SearchAssets, job: Job
) -> None:
    for given in (None, access):
        directory = RunDirectory(assets, job, access=given)
        assert (directory.assets, directory.job) == (assets, job)
        with directory.output(area / "full") as output:
            assert output == area / "full"
        directory.send_checkpoint()
        directory.close()


def test_who_does_not_see_it_works_in_copies(
    area: Path, access: WorkspaceAccess, assets: SearchAssets, job: Job, cache: NodeCache
) -> None:
    access = replace(access, identity="of another workspace of the same path")
    directory = RunDirectory(assets, job, access=access)
    names = ("sorted_teacher", "corpus", "training_targets", "selection_targets")
    for name in names:
        copy, original = getattr(directory.assets, name), getattr(assets, name)
        assert copy.is_relative_to(cache.directory)
        assert read(copy) == read(original)
    unread = {name: getattr(assets, name) for name in ("teacher", "test_targets")}
    assert {name: getattr(directory.assets, name) for name in unread} == unread
    here, kept = directory.job.limits.checkpoint, area / "checkpoints" / "trial"
    assert here is not None and here.is_relative_to(cache.directory) and not here.exists()
    content = fill(here)
    directory.send_checkpoint()
    assert read(kept) == content
    with directory.output(area / "full" / "run") as output:
        output.mkdir()
        (output / "done.json").write_text(json.dumps({"done": 1}))
        assert not (area / "full").exists()
    assert read(area / "full" / "run") == {"done.json": b'{"done": 1}'}
    directory.close()
    assert not directory.scratch.exists()
    elsewhere = RunDirectory(replace(assets, training_targets=None), job, access=access)
    assert elsewhere.job.limits.checkpoint is not None
    assert read(elsewhere.job.limits.checkpoint) == content
    assert read(elsewhere.assets.teacher) == read(assets.teacher), "it runs beside the student"
    elsewhere.close()


def test_a_directory_is_here_where_its_files_are(area: Path, remote: RemoteWorkspace) -> None:
    """As a teacher outside of a shared workspace may be, or not, or another of the same name."""
    fill(area / "model")
    assert remote.is_here(area / "model")
    other = FileEntry("a.bin", 9, 0)
    for listed in ([other], [FileEntry("gone.bin", 9, 0)]):
        remote.actor = SimpleNamespace(
            entries=SimpleNamespace(remote=lambda _, listed=listed: ray.put(listed))
        )
        assert not remote.is_here(area / "model")
