"""Stage: plays the stories of studies beside the other tests, in processes of their own.

All are forked off one that has imported the search: every start of the command would take seconds
for that.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path

from tests.driver import ENVIRONMENT, Driver, write_corpus
from tests.processes import ROOT, Forked, forked, import_once, spawned
from tests.stories import FIRST, SEQUELS, STORIES

AT_ONCE = 2
PLAYING, PLAYED, FAILED = "playing.txt", "played.txt", "failed.txt"
"""Files of what a story says: while it is played, and as it ended."""
CORPUS = "library.jsonl.gz"


class Stage:
    """Plays stories, a few at once, and knows their studies."""

    def __init__(self, directory: Path, names: Collection[str]):
        """Start with the stories of these names at once."""
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        if not names:
            return
        # A process of its own: a thread beside busy tests would see what it waits for too late.
        with (directory / "stage.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.stage", directory, *names],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                cwd=ROOT,
                start_new_session=True,
            )

    def study(self, name: str) -> Driver:
        """The study at the end of its story; raises what went wrong in it."""
        played, failed = (self.directory / name / file for file in (PLAYED, FAILED))
        while not played.exists():
            assert not failed.exists(), f"{name} went wrong:\n{failed.read_text('utf-8')}"
            assert self._process is not None and (self._process.poll() is None or played.exists())
            time.sleep(0.05)
        return _driver(self.directory, name)

    def close(self) -> None:
        """Stop what is still played, with all its processes."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _driver(directory: Path, name: str) -> Driver:
    begin = spawned if name == FIRST else forked
    return Driver(directory / name / "study", directory / CORPUS, begin=begin)


def _play(directory: Path, name: str) -> None:
    driver = _driver(directory, name)
    if name in SEQUELS:
        shutil.copytree(directory / FIRST / "kept", driver.workspace)
    STORIES[name](driver)


def play_all(directory: Path, names: Collection[str]) -> None:
    """Play stories of these names, and what they begin with, a few at once."""
    import_once()
    asked = {*names, FIRST} if {*names} & {*SEQUELS} else {*names}
    left = [name for name in STORIES if name in asked]
    playing: dict[str, Forked] = {}
    while left or playing:
        ready = [name for name in left if name not in SEQUELS or _ended(directory / FIRST)]
        for name in ready[: AT_ONCE - len(playing)]:
            left.remove(name)
            (directory / name).mkdir()
            told = directory / name / PLAYING
            playing[name] = Forked(partial(_play, directory, name), told)
        for name, process in list(playing.items()):
            if (status := process.poll()) is not None:
                del playing[name]
                told = directory / name / PLAYING
                told.rename(told.with_name(FAILED if status else PLAYED))
        time.sleep(0.05)


def _ended(story: Path) -> bool:
    return (story / PLAYED).exists() or (story / FAILED).exists()


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]) / CORPUS)
    play_all(Path(sys.argv[1]), sys.argv[2:])
