"""Fixtures of the tests that run the real command, and settings for all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# before anything of Hugging Face is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

from tests.driver import Driver, write_corpus  # noqa: E402
from tests.exactness import Float64  # noqa: E402
from tests.stories import STORIES, Stage  # noqa: E402


@pytest.fixture
def float64() -> Iterator[None]:
    """Nothing that the test computes is rounded to fp32, and new models are in float64."""
    with Float64():
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "library.jsonl.gz")


@pytest.fixture(scope="session")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Plays the stories that the chosen tests ask for, from the first process test on."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    stage = Stage(tmp_path_factory.mktemp("stories"), asked & STORIES.keys())
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def beside_the_stories(request: pytest.FixtureRequest) -> None:
    """Has the stories begin with the first test that starts processes, not with their own."""
    if request.node.get_closest_marker("process"):
        request.getfixturevalue("stage")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several pytest processes share the tests, one has those that start processes, and
    begins with them; files stay together otherwise, since their fixtures do."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        together = "process" if item.get_closest_marker("process") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))
    items.sort(key=lambda item: item.get_closest_marker("process") is None)


@pytest.fixture(scope="session")
def undisturbed(stage: Stage) -> Driver:
    return stage.study("undisturbed")


@pytest.fixture(scope="session")
def killed(stage: Stage) -> Driver:
    return stage.study("killed")


@pytest.fixture(scope="session")
def lost(stage: Stage) -> Driver:
    return stage.study("lost")


@pytest.fixture(scope="session")
def extended(stage: Stage) -> Driver:
    return stage.study("extended")


@pytest.fixture(scope="session")
def broken(stage: Stage) -> Driver:
    return stage.study("broken")


@pytest.fixture(scope="session")
def family(stage: Stage) -> Driver:
    return stage.study("family")


@pytest.fixture(scope="session")
def traded(stage: Stage) -> Driver:
    return stage.study("traded")


@pytest.fixture(scope="session")
def hurried(stage: Stage) -> Driver:
    return stage.study("hurried")
