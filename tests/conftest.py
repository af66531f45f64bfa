"""Fixtures of the tests that run the real command, and settings for all tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# before anything of Hugging Face is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

from tests.driver import Driver, write_corpus  # noqa: E402


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "library.jsonl.gz")


@pytest.fixture
def driver(tmp_path: Path, corpus: Path) -> Driver:
    return Driver(tmp_path / "study", corpus)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Driver:
    """A study that ran to its end without interruption, with one trial at a time."""
    driver = Driver(tmp_path_factory.mktemp("undisturbed") / "study", corpus)
    driver.finish()
    return driver


@pytest.fixture(scope="session")
def copied(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: Driver
) -> Callable[[str], Driver]:
    """A copy of the finished study, to go on with in another workspace."""

    def copy(name: str) -> Driver:
        target = tmp_path_factory.mktemp(name) / "study"
        shutil.copytree(undisturbed.workspace, target)
        return Driver(target, undisturbed.corpus)

    return copy
