"""Fixtures of the tests that run the real command, and settings for all tests."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

# before anything of Hugging Face is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")
# Ray's own 15 has its workers stand still as long as other tests keep all processors busy.
os.environ.setdefault("RAY_worker_niceness", "0")

from common.log import lines_to  # noqa: E402
from tests import mysql as mariadb_server  # noqa: E402
from tests import postgresql as postgresql_server  # noqa: E402
from tests.driver import ROOT, write_corpus  # noqa: E402
from tests.exactness import Float64  # noqa: E402
from tests.postgresql import Server  # noqa: E402
from tests.stage import Stage  # noqa: E402
from tests.stories import STORIES  # noqa: E402

# Threads that read the tensors of a model of a few kB take longer than its reading.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is computed here is small, and the other processors have other tests."""
    torch.set_num_threads(1)


@pytest.fixture
def float64() -> Iterator[None]:
    """Nothing that the test computes is rounded to fp32, and new models are in float64."""
    with Float64():
        yield


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The progress lines that are logged while the test runs."""
    logged: list[str] = []
    with lines_to(logged.append):
        yield logged


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "library.jsonl.gz")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """One PostgreSQL server for all tests of a session."""
    with postgresql_server.running_server() as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    """One MariaDB server for all tests of a session."""
    with mariadb_server.running_server() as server:
        yield server


@pytest.fixture(scope="session")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Plays the stories that the chosen tests ask for."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    stage = Stage(tmp_path_factory.mktemp("stories"), asked & STORIES.keys())
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def beside_the_stories(request: pytest.FixtureRequest) -> None:
    """Has the stories begin before the first test, or where two share the tests, before the first
    that looks at one."""
    if (
        not hasattr(request.config, "workerinput")
        or sort_of(request.node.nodeid.partition("::")[0]) == "stories"
    ):
        request.getfixturevalue("stage")


@cache
def sort_of(file: str) -> str:
    """What tests of that file do besides computing: look at stories, start processes of their own,
    or nothing."""
    text = (ROOT / file).read_text("utf-8")
    if any(f"{story}: Driver" in text for story in STORIES):
        return "stories"
    return "processes" if "pytest.mark.process" in text else "nothing"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where two pytest processes share the tests, those that wait for processes come first."""
    if hasattr(config, "workerinput"):
        order = ("stories", "processes", "nothing")
        items.sort(key=lambda item: order.index(sort_of(item.nodeid.partition("::")[0])))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One of them has all files that look at stories, so that each is played once; of the others,
    a file stays together, since its tests share fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not annotated
        def _split_scope(self, nodeid: str) -> str:
            file: str = nodeid.partition("::")[0]
            return "stories" if sort_of(file) == "stories" else file

    return Files(config, log)


def study_of(story: str) -> Any:
    """Fixture of the study that a story leaves."""
    return pytest.fixture(lambda stage: stage.study(story), scope="session", name=story)


undisturbed, killed, family, layered, extended, traded, lost, hurried, broken = map(
    study_of, STORIES
)
