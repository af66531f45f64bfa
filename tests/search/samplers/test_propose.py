"""Proposals: what samplers learn, and that a restart changes none.

What every sampler keeps to is in test_samplers.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from common.errors import SearchError
from pruning import Architecture
from search.config.sampler import LARGEST_FIT, SamplerSettings, chosen_name
from search.samplers.extrapolation import PartialCurve, predicted_scores
from search.samplers.factory import make_sampler
from search.samplers.gaussian_process import GaussianProcess
from search.samplers.propose import Proposer
from search.space.space import Space
from search.study.observation import FAILED, FINISHED, STOPPED, Observation
from search.study.record import Record

RecordOn = Callable[..., Record]
RUN, RUNG = 800, 100
"""Tokens of a whole run, and of the rung where some are stopped."""


def score(space: Space, architecture: Architecture) -> float:
    """A smooth objective whose best point is deep and narrow."""
    layers, hidden, _, ffn = space.position(architecture)
    return 0.1 + (1 - layers) ** 2 + (hidden - 0.4) ** 2 + 0.5 * (ffn - 0.3) ** 2


def at_rung(kl: float) -> float:
    return 2.0 * kl**0.8


def finished(space: Space, shape: Architecture, *values: float) -> Observation:
    kl = score(space, shape)
    curve = ((RUNG, at_rung(kl)), (RUN, kl))
    return Observation(shape, curve, values or (kl,), FINISHED)


def stopped(space: Space, shape: Architecture) -> Observation:
    return Observation(shape, ((RUNG, at_rung(score(space, shape))),), None, STOPPED)


def some(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    drawn = np.random.default_rng(seed).choice(len(space.feasible), count, replace=False)
    return [space.feasible[n] for n in drawn]


def search(space: Space, settings: SamplerSettings, count: int, seed: int) -> list[Observation]:
    """A search of one candidate at a time, all trained to the end."""
    found: list[Observation] = []
    while len(found) < count and (shape := Proposer(space, settings, seed)(found)):
        found.append(finished(space, shape))
    return found


def best(observations: list[Observation]) -> float:
    return min(o.values[0] for o in observations if o.values)


NO_SAMPLER = "text"


def test_tpe_beats_random(space: Space) -> None:
    random, modelled = (
        [best(search(space, SamplerSettings(name), 22, seed)) for seed in range(4)]
        for name in ("random", "tpe")
    )
    assert np.mean(modelled) < np.mean(random)


def test_the_surrogate_finds_the_best_of_all(space: Space) -> None:
    least = min(score(space, shape) for shape in space.feasible)
    for seed in range(4):
        assert best(search(space, SamplerSettings(), 24, seed)) < 1.02 * least


def test_every_prefix_of_the_grid_covers_the_space(space: Space) -> None:
    def gap(shapes: list[Architecture]) -> float:
        """Largest distance of an architecture to the nearest of `shapes`."""
        places = np.array([space.position(shape) for shape in shapes])
        far = np.linalg.norm(space.positions[:, None] - places[None], axis=2)
        return float(far.min(1).max())

    order = [o.architecture for o in search(space, SamplerSettings("grid"), 24, seed=0)]
    assert order == [o.architecture for o in search(space, SamplerSettings("grid"), 24, seed=1)]
    for count in (6, 12, 24):
        assert gap(order[:count]) < min(gap(some(space, count, seed)) for seed in range(5))


def test_several_objectives_are_traded_off(space: Space) -> None:
    def two(shape: Architecture) -> Observation:
        layers, hidden, *_ = space.position(shape)
        return finished(space, shape, 0.1 + layers, 0.1 + hidden)

    def covered_by(name: str, seed: int) -> float:
        """What the front leaves undominated below (1.1, 1.1); less is better."""
        seen: list[Observation] = []
        for _ in range(24):
            shape = Proposer(space, SamplerSettings(name, startup=6), seed)(seen)
            assert shape is not None
            seen.append(two(shape))
        points = sorted(o.values for o in seen if o.values)
        covered, height = 0.0, 1.1
        for x, y in points:
            covered += max(0.0, height - y) * (1.1 - x)
            height = min(height, y)
        return -covered

    seeds = range(3)
    random = np.mean([covered_by("random", seed) for seed in seeds])
    for name in ("surrogate", "tpe"):
        assert np.mean([covered_by(name, seed) for seed in seeds]) < random, name


def test_the_genetic_sampler_breeds_from_the_best(space: Space) -> None:
    """Good parents of one depth and bad ones of another: most children have the good depth."""
    by_depth: dict[int, list[Architecture]] = {}
    for shape in space.feasible:
        by_depth.setdefault(shape.layers, []).append(shape)
    good, bad = sorted(by_depth, key=lambda depth: -len(by_depth[depth]))[:2]
    seen = [finished(space, shape, 1.0) for shape in by_depth[good][:4]]
    seen += [finished(space, shape, 9.0) for shape in by_depth[bad][:4]]
    settings = SamplerSettings("nsga2", startup=4)
    children = (Proposer(space, settings, seed)(seen) for seed in range(12))
    depths = [child.layers for child in children if child]
    assert depths.count(good) >= 6 > depths.count(bad)


def test_scores_of_stopped_runs_are_predicted_from_their_last_rung() -> None:
    finals = np.geomspace(0.4, 1.2, 8)
    runs = [PartialCurve({RUNG: at_rung(kl), 4 * RUNG: 1.3 * kl, RUN: kl}, kl) for kl in finals[:6]]
    late = PartialCurve({RUNG: at_rung(finals[6]), 4 * RUNG: 1.3 * finals[6]}, None)
    early, nothing = PartialCurve({RUNG: at_rung(finals[7])}, None), PartialCurve({}, None)
    found = predicted_scores([*runs, early, late, nothing])
    assert [s.value for s in found[:6] if s] == pytest.approx(list(finals[:6]))
    assert found[6] is not None and found[6].value == pytest.approx(finals[7])
    assert found[7] is not None and found[7].value == pytest.approx(finals[6])
    assert found[8] is None
    (few,) = predicted_scores([runs[0], early])[1:]
    ratio = finals[0] / at_rung(finals[0])
    assert few is not None and few.value == pytest.approx(ratio * at_rung(finals[7]))
    assert few.spread > found[6].spread
    assert predicted_scores([early]) == [None]


def test_what_was_stopped_early_repels_where_it_teaches(space: Space) -> None:
    """All of the shallow half stopped at a bad rung: proposals move to the deep half."""
    shallow = [s for s in some(space, 60) if space.position(s)[0] < 0.4][:12]
    deep = [s for s in some(space, 60) if space.position(s)[0] > 0.6][:6]
    seen = [finished(space, shape) for shape in deep]
    seen += [Observation(shape, ((RUNG, 9.0),), None, STOPPED) for shape in shallow]
    places = [
        space.position(shape)[0]
        for seed in range(6)
        if (shape := Proposer(space, SamplerSettings("tpe"), seed)(seen))
    ]
    assert min(places) > 0.4


def test_what_is_ignored_changes_no_point(space: Space) -> None:
    seen = [finished(space, shape) for shape in some(space, 8)]
    early = [stopped(space, shape) for shape in some(space, 14)[8:]]

    def proposed(learn: str, more: list[Observation]) -> list[Architecture | None]:
        """With as many observations each time, since their number seeds the sampler."""
        fill = [Observation(o.architecture, (), None, FAILED) for o in early]
        settings = SamplerSettings("tpe", learn=learn)
        return [Proposer(space, settings, seed)(seen + (more or fill)) for seed in range(6)]

    nothing = proposed("predicted", [])
    assert proposed("ignored", early) == nothing
    assert proposed("pruned", early) != nothing
    assert proposed("predicted", early) != nothing


def test_first_candidates_come_from_the_better_half_before_training(space: Space) -> None:
    zero_shot = {shape: score(space, shape) for shape in some(space, 20)}
    better = sorted(zero_shot, key=lambda shape: zero_shot[shape])[:10]
    for use, inside in (("feature", True), ("startup", True), ("ignored", False)):
        settings = SamplerSettings(zero_shot=use)
        drawn = {Proposer(space, settings, seed, zero_shot)([]) for seed in range(12)}
        assert (drawn <= set(better)) == inside, use


def test_zero_shot_scores_lead_the_surrogate(space: Space) -> None:
    """With a KL before training that ranks perfectly, the best comes with the first model."""
    zero_shot = {shape: 5 * score(space, shape) ** 0.7 for shape in space.feasible}
    seen = [finished(space, shape) for shape in some(space, 8)]
    leader = min(zero_shot, key=lambda shape: zero_shot[shape])
    lead = Proposer(space, SamplerSettings(), 0, zero_shot)(seen)
    assert lead is not None
    assert score(space, lead) < 1.1 * score(space, leader)


def test_the_process_is_the_textbook_one() -> None:
    regression = pytest.importorskip("sklearn.gaussian_process")
    kernels = regression.kernels
    generator = np.random.default_rng(0)
    inputs, others = generator.random((30, 3)) - 0.5, generator.random((7, 3)) - 0.5
    targets = np.sin(4 * inputs[:, 0]) + inputs[:, 1] + 0.1 * generator.standard_normal(30)
    own = generator.random(30) * 0.1
    process = GaussianProcess.fit(
        inputs, (targets - targets.mean()) / targets.std(), extra_noise=own
    )
    trend, smooth, noise = np.exp(process.parameters[:3])
    kernel = kernels.ConstantKernel(trend) * kernels.DotProduct(1e-9) + kernels.ConstantKernel(
        smooth
    ) * kernels.Matern(np.exp(process.parameters[3:]), nu=2.5)
    peer = regression.GaussianProcessRegressor(kernel, alpha=noise + own + 1e-8, optimizer=None)
    mean, deviation = peer.fit(inputs, process.targets).predict(others, return_std=True)
    found = process.predict(others)
    np.testing.assert_allclose(found[0], mean, atol=1e-8)
    np.testing.assert_allclose(found[1], deviation, atol=1e-6)
    assert process.and_expected(others).predict(others)[0] == pytest.approx(mean, abs=0.02)


def test_auto_is_the_surrogate_until_there_are_too_many() -> None:
    assert chosen_name("auto", LARGEST_FIT, objectives=2) == "surrogate"
    assert chosen_name("auto", LARGEST_FIT + 1, objectives=1) == "tpe"
    assert chosen_name("auto", LARGEST_FIT + 1, objectives=2) == "nsga2"
    assert chosen_name("grid", LARGEST_FIT + 1, objectives=1) == "grid"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"name": "tpee"}, "auto, surrogate"),
        ({"learn": "some"}, "predicted, pruned"),
        ({"zero_shot": "x"}, "feature"),
        ({"startup": 0}, "at least 1"),
    ],
)
def test_settings_say_what_would_be_right(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(SearchError, match=wanted):
        SamplerSettings(**settings)


@pytest.mark.parametrize(
    "path", ["no.such:Sampler", f"{__name__}:Missing", f"{__name__}:NO_SAMPLER", "math:sqrt"]
)
def test_a_sampler_that_is_none_is_one_clear_error(path: str) -> None:
    with pytest.raises(SearchError, match="--sampler.name is "):
        make_sampler(path, 0, population=8)


# On the study's record


def shape_of(trial: Any) -> Architecture:
    return Architecture.from_dict(trial.user_attrs["architecture"])


def run(record: Record, count: int, interrupt: frozenset[int] = frozenset()) -> list[Architecture]:
    """Score `count` architectures one after the other; at some, the driver dies and comes back."""
    done: list[Architecture] = []
    while len(done) < count:
        trial = record.next_trial()
        if trial is None:
            break
        if len(done) in interrupt:
            interrupt -= {len(done)}
            record.live.clear()
            record.queue.reclaim()
            continue
        done.append(shape_of(trial))
        record.complete(trial.number, score(record.space, done[-1]))
    return done


def test_a_restart_goes_on_and_does_not_repeat(space: Space, record_on: RecordOn) -> None:
    whole = run(record_on(optuna.create_study(), space), 14)
    study = optuna.create_study()
    first = run(record_on(study, space), 9)
    rest = run(record_on(study, space), 5)
    assert first + rest == whole
    assert len(set(whole)) == 14


def test_interruptions_change_nothing(space: Space, record_on: RecordOn) -> None:
    calm = run(record_on(optuna.create_study(), space), 16)
    study = optuna.create_study()
    torn = run(record_on(study, space), 16, interrupt=frozenset({0, 3, 9, 13}))
    assert torn == calm
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 4
    assert states.count(TrialState.COMPLETE) == 16
