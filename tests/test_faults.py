"""Whatever is killed whenever: the same command finishes the study, and nothing is lost.

What happens to the studies is told in tests/stories.py.
"""

from pathlib import Path

import pytest

from search.halving import origin_of
from search.record import progress_of
from tests.driver import ENVIRONMENT, Driver


def test_killed_in_every_phase_and_resumed_equals_undisturbed(
    killed: Driver, undisturbed: Driver
) -> None:
    states = killed.states()
    assert states["COMPLETE"] + states["PRUNED"] == 3
    assert states["RUNNING"] == states["WAITING"] == 0
    resumed = [t for t in killed.trials() if progress_of(t).get("resumed_tokens")]
    assert [origin_of(t) for t in resumed] == [1]
    assert "targets: train found" in killed.output()

    found = {str(t.user_attrs["architecture"]): t.user_attrs for t in killed.finished_trials()}
    expected = {str(t.user_attrs["architecture"]): t.user_attrs for t in undisturbed.trials()}
    assert len(found) == 3
    assert found.keys() == expected.keys()
    for shape, attributes in found.items():
        assert attributes["kl"] == expected[shape]["kl"]
        assert attributes["tokens"] == expected[shape]["tokens"]
    assert killed.weights() == undisturbed.weights()


def test_killed_worker_is_a_failed_row_and_the_study_finishes(stopped: Driver) -> None:
    states = stopped.states()
    assert states["COMPLETE"] + states["PRUNED"] == 3
    errors = [t.user_attrs["error"] for t in stopped.trials() if t.state.name == "FAIL"]
    assert len([error for error in errors if "worker died" in error]) == 1
    assert len([error for error in errors if "the driver was stopped" in error]) == 2
    assert len(errors) == 3
    assert "Nothing was run to be compared (--evidence none)" in stopped.output()
    assert "random initialisation" not in stopped.output()


@pytest.mark.parametrize("start", [0, 1], ids=["SIGTERM", "SIGINT"])
def test_signal_stops_cleanly_and_says_how_to_resume(stopped: Driver, start: int) -> None:
    assert "start the same command again" in stopped.output(start)
    assert "Traceback" not in stopped.output(start)


def test_failing_trials_stop_the_search_with_the_reason(broken: Driver) -> None:
    assert "2 trials failed in a row" in broken.output()
    failed = [t for t in broken.trials() if t.state.name == "FAIL"]
    assert len(failed) == 2
    assert all("checkpoints" in t.user_attrs["error"] for t in failed)


def test_lost_workspace_is_computed_again(lost: Driver, undisturbed: Driver) -> None:
    assert [t.number for t in lost.trials()] == [t.number for t in undisturbed.trials()]
    assert "would repeat a trial" not in lost.output(0)
    assert lost.weights() == undisturbed.weights()  # trained here, taken over from a trial there


def test_second_driver_is_refused_and_does_not_disturb(lost: Driver) -> None:
    assert "another driver is at work" in lost.output(1)
    assert "best: L" in lost.output(0)


def test_password_of_an_unreachable_database_is_not_shown(tmp_path: Path, corpus: Path) -> None:
    url = "postgresql+psycopg2://user:s3cr3tword@127.0.0.1:1/none"
    driver = Driver(tmp_path / "study", corpus, ENVIRONMENT | {"ESPALIER_STORAGE": url})
    driver.wait(driver.start(), 2)
    assert "s3cr3tword" not in driver.output()
    assert driver.output().strip().splitlines()[-1].startswith("error: ")
