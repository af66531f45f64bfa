"""Two drivers of one study on a PostgreSQL server, each with a workspace of its own."""

from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.database.storage import open_storage
from search.database.trial_facts import architecture_of
from tests.driver import ENVIRONMENT, Driver, progress_within
from tests.postgresql import Server

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def shared(
    postgresql: Server, tmp_path_factory: pytest.TempPathFactory, corpus: Path
) -> tuple[list[Driver], list[FrozenTrial]]:
    """The two at the end of the study, one of which was killed in a trial; and its trials."""
    url = postgresql.database()
    root = tmp_path_factory.mktemp("drivers")
    environment = ENVIRONMENT | {"ESPALIER_STORAGE": url}
    drivers = [Driver(root / name / "study", corpus, environment) for name in ("one", "two")]
    for driver in drivers:
        driver.workspace.parent.mkdir()
    first, second = (driver.start(trials=2, evidence="none") for driver in drivers)
    drivers[0].until_within(first, "trial-*")
    drivers[0].kill(first)
    drivers[1].wait(second, 0)
    study = optuna.load_study(study_name="test", storage=open_storage(url))
    return drivers, study.get_trials(deepcopy=False)


def test_no_trial_is_lost_or_trained_twice(
    shared: tuple[list[Driver], list[FrozenTrial]],
) -> None:
    drivers, trials = shared
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == 2
    assert max(Counter(str(architecture_of(t)) for t in finished).values()) == 1
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]


def test_the_survivor_takes_over_the_dead_drivers_trial(
    shared: tuple[list[Driver], list[FrozenTrial]],
) -> None:
    drivers, trials = shared
    interrupted = [t for t in trials if "the driver was gone" in t.user_attrs.get("error", "")]
    assert len(interrupted) == 1
    again = [t for t in trials if t.user_attrs.get("continues") == interrupted[0].number]
    assert len(again) == 1
    assert progress_within(again[0]).tokens > 0
    assert (drivers[1].workspace / "best" / "model.safetensors").exists()


def test_the_password_is_nowhere(shared: tuple[list[Driver], list[FrozenTrial]]) -> None:
    drivers, _ = shared
    for driver in drivers:
        for log in driver.logs:
            assert "s3cret" not in log.read_text("utf-8", errors="replace")
        for path in driver.workspace.rglob("*"):
            if path.is_file() and path.suffix in (".json", ".csv", ".html", ".txt", ".pkl"):
                assert b"s3cret" not in path.read_bytes()
