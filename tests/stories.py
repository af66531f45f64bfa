"""Studies that live through something: started, stopped, damaged and started again.

A story takes a minute or more, so stories are played beside the other tests (tests/stage.py), each
by a process that only waits for its moments. What must hold on the way is asserted here; what must
hold at the end, in the tests.
"""

import contextlib
import shutil
import signal
import sqlite3
from collections.abc import Callable

from tests.driver import PATIENCE, Driver


def undisturbed(driver: Driver) -> None:
    """Runs to its end without interruption, one trial at a time; others go on with a copy of it."""
    driver.finish()
    shutil.copytree(driver.workspace, driver.workspace.with_name("kept"))


def killed(driver: Driver) -> None:
    """Is interrupted five times, and finished after that.

    Killed while it prepares, and in its first trial; then it loses the worker of that trial, and is
    stopped by Ctrl-C in its second; killed in a full run. `family` is stopped by SIGTERM.
    """
    process = driver.start()
    driver.until_said(process, "importance:")
    driver.kill(process)

    process = driver.start(checkpoint_seconds=0)
    driver.until_within(process, "trial-0000")
    driver.kill(process)
    assert driver.states()["RUNNING"] == 1

    (before,) = driver.checkpoint_steps("trial-0000")
    process = driver.start(checkpoint_seconds=0)  # trial 1 goes on with the first
    driver.until(process, lambda: driver.checkpoint_steps("trial-0000") > [before])
    driver.trial_workers(process)[-1].send_signal(signal.SIGKILL)
    driver.until_within(process, "trial-0003")  # after trial 2, which went on with it again
    driver.stop(process, signal.SIGINT, 130)

    process = driver.start(checkpoint_seconds=0)
    driver.until_within(process, "full-*")
    driver.kill(process)

    driver.finish()


def lost(driver: Driver) -> None:
    """Loses all but the database; a second driver comes while everything is computed again."""
    for path in driver.workspace.iterdir():
        if path.name != "study.db":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    process = driver.start(evidence="none")
    driver.until_said(process, "corpus:")
    driver.wait(driver.start(), 2)
    driver.wait(process, 0)


def extended(driver: Driver) -> None:
    """Is asked for more trials than the space has architectures, more winners, more evidence;
    another program keeps the database to itself until the search says that it waits."""
    process = driver.start(trials=9, resources__concurrent=2, winners=2, evidence="full", seeds=1)
    driver.until_within(process, "trial-*")
    other = sqlite3.connect(driver.workspace / "study.db", isolation_level=None, timeout=PATIENCE)
    with contextlib.closing(other):
        other.execute("BEGIN EXCLUSIVE")
        driver.until_said(process, "is locked by another program")
    driver.wait(process, 0)


def broken(driver: Driver) -> None:
    """Is asked for more trials, but none can write its checkpoint."""
    for directory in (driver.workspace / "checkpoints").iterdir():
        shutil.rmtree(directory)
        directory.write_bytes(b"no directory")
    driver.wait(driver.start(trials=9, max_failures=2), 1)


def family(driver: Driver) -> None:
    """Looks for two students; is stopped in the trials of the smaller, and finished after that."""
    options: dict[str, object] = {
        "budget__parameters": "null",
        "budget__tolerance": 0.2,
        "family": "[0.75, 0.4]",
        "trials": 2,
        "scratch_tokens": 8192,
    }
    process = driver.start(**options)
    driver.until_said(process, "member 0.4: ")
    driver.until_within(process, "trial-000[2-3]")
    driver.stop(process, signal.SIGTERM, 143)
    driver.finish(**options)


def traded(driver: Driver) -> None:
    """Trades KL for arithmetic, through the whole funnel, with contiguous layers and KV heads."""
    driver.finish(
        objectives="[kl, flops]",
        evidence="full",
        seeds=1,
        trials=4,
        funnel__candidates=12,
        halving__stopper="hyperband",
        space__layer_choice="[ranked, span]",
        space__kv_heads="[1, 2]",
        resources__concurrent=2,
    )


def hurried(driver: Driver) -> None:
    """Has time for a trial or two of its hundred, half as long as its full runs, and for one of
    these; finds what was prepared for another study, and goes on with what it left out."""
    prepared = ("corpus-", "importance-", "sorted-", "targets-")
    for path in driver.workspace.iterdir():
        if not path.name.startswith(prepared):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    driver.finish(trials=100, time_budget="1s", short_tokens=2048)
    driver.finish(trials=1, short_tokens=2048)


def layered(driver: Driver) -> None:
    """Looks for students whose layers differ; is killed while their blocks are trained, and
    finished after that."""
    options: dict[str, object] = {
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
    training = "library-*-training/checkpoint-*/meta.json"
    process = driver.start(**options)
    driver.until(process, lambda: any(driver.workspace.glob(training)))
    driver.kill(process)
    driver.finish(**options)


STORIES: dict[str, Callable[[Driver], None]] = {
    story.__name__: story
    for story in (
        undisturbed,
        killed,
        family,
        layered,
        extended,
        traded,
        lost,
        hurried,
        broken,
    )
}
FIRST = undisturbed.__name__
SEQUELS = ("lost", "extended", "broken", "hurried")
"""Stories that begin with a copy of the undisturbed study."""
