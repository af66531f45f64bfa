"""Whatever is killed whenever: the same command finishes the study, and nothing is lost."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.driver import Driver


def weights(driver: Driver) -> bytes:
    return (driver.workspace / "best" / "model.safetensors").read_bytes()


def workers(process_id: int, name: str) -> list[psutil.Process]:
    """Ray's worker processes below the driver that are at work on `name`."""
    found = []
    for child in psutil.Process(process_id).children(recursive=True):
        try:
            if child.cmdline() and name in child.cmdline()[0]:
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_killed_in_every_phase_and_resumed_equals_undisturbed(
    driver: Driver, undisturbed: Driver
) -> None:
    # while it prepares
    process = driver.start()
    driver.until_said(process, "importance:")
    driver.kill(process)

    # in the middle of a trial that has a checkpoint but is not at its end
    process = driver.start()
    driver.until(process, lambda: any(0 < s < 32 for s in driver.checkpoint_steps("trial-0001")))
    driver.kill(process)
    interrupted = driver.states()["RUNNING"]
    assert interrupted == 1
    shutil.rmtree(driver.workspace / "ray")

    # in the middle of a full distillation
    process = driver.start()
    driver.until(process, lambda: any(0 < s < 32 for s in driver.checkpoint_steps("full-*")))
    driver.kill(process)
    shutil.rmtree(driver.workspace / "ray", ignore_errors=True)

    driver.finish()
    states = driver.states()
    assert states["COMPLETE"] + states["PRUNED"] == 4
    assert states["RUNNING"] == states["WAITING"] == 0
    resumed = [t for t in driver.trials() if t.user_attrs.get("resumed_tokens")]
    assert [t.user_attrs["origin"] for t in resumed] == [1]
    finished = [t for t in driver.trials() if t.state.is_finished() and t.state.name != "FAIL"]
    assert len({str(t.user_attrs["architecture"]) for t in finished}) == 4

    by_shape = {str(t.user_attrs["architecture"]): t.user_attrs["kl"] for t in finished}
    expected = {str(t.user_attrs["architecture"]): t.user_attrs["kl"] for t in undisturbed.trials()}
    assert by_shape == expected
    assert weights(driver) == weights(undisturbed)


def test_killed_worker_is_a_failed_row_and_the_study_finishes(driver: Driver) -> None:
    process = driver.start(resources__concurrent=2)
    driver.until(process, lambda: bool(driver.checkpoint_steps("trial-0000")))
    driver.until(process, lambda: bool(workers(process.pid, "ray::CandidateTrial")))
    workers(process.pid, "ray::CandidateTrial")[0].send_signal(signal.SIGKILL)
    driver.wait(process, 0)
    states = driver.states()
    assert states["FAIL"] == 1
    assert states["COMPLETE"] + states["PRUNED"] == 4
    (failed,) = [t for t in driver.trials() if t.state.name == "FAIL"]
    assert "worker died" in failed.user_attrs["error"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_stops_cleanly_and_says_how_to_resume(
    driver: Driver, signum: int, status: int
) -> None:
    process = driver.start()
    driver.until(process, lambda: any(0 < s < 32 for s in driver.checkpoint_steps("trial-0000")))
    process.send_signal(signum)
    driver.wait(process, status)
    assert "start the same command again" in driver.output()
    assert "Traceback" not in driver.output()
    assert driver.states()["RUNNING"] == 0
    assert driver.states()["WAITING"] >= 1


def test_failing_trials_stop_the_search_with_the_reason(
    driver: Driver, copied: Callable[[str], Driver]
) -> None:
    broken = copied("broken")
    for targets in broken.workspace.glob("targets-selection-*"):
        for shard in targets.glob("*/next.npy"):
            shard.write_bytes(b"not an array")
    process = broken.start(trials=20)
    broken.wait(process, 1)
    assert "3 trials failed in a row" in broken.output()
    failed = [t for t in broken.trials() if t.state.name == "FAIL"]
    assert len(failed) == 3
    assert all(t.user_attrs["error"] for t in failed)


def test_lost_workspace_is_computed_again(copied: Callable[[str], Driver]) -> None:
    driver = copied("lost")
    for path in driver.workspace.iterdir():
        if path.name != "study.db":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = len(driver.trials())
    driver.finish()
    assert len(driver.trials()) == before
    assert (driver.workspace / "best" / "config.json").exists()


def test_second_driver_is_refused(driver: Driver) -> None:
    process = driver.start()
    driver.until_said(process, "corpus:")
    second = Driver(driver.workspace, driver.corpus)
    log = driver.workspace.with_name("second.log")
    refused = start_with_log(second, log)
    assert refused == 2
    assert "another driver is at work" in log.read_text()
    process.send_signal(signal.SIGTERM)
    driver.wait(process, 143)


def start_with_log(driver: Driver, log: Path) -> int:
    """Run the command with its output in `log`; its exit status."""
    kept = driver.log.read_bytes()
    process = driver.start()
    status = process.wait(timeout=120)
    log.write_bytes(driver.log.read_bytes())
    driver.log.write_bytes(kept)
    return status


def test_password_of_an_unreachable_database_is_not_shown(driver: Driver) -> None:
    os.environ["ESPALIER_STORAGE"] = "postgresql+psycopg2://user:s3cr3tword@127.0.0.1:1/none"
    try:
        process = driver.start()
        driver.wait(process, 2)
    finally:
        del os.environ["ESPALIER_STORAGE"]
    assert "s3cr3tword" not in driver.output()
    assert driver.output().strip().splitlines()[-1].startswith("error: ")
