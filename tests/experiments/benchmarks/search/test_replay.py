"""Replays of searches on a table: what they spend, what they choose, and what is said of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import LlamaConfig

from experiments.benchmarks.search.replay import code_fingerprint, known, replay_missing
from experiments.benchmarks.search.replays.replay_report import (
    draw,
    fidelity_markdown,
    markdown,
    median_shares,
    regret_after,
    summarise,
    tokens_to,
)
from experiments.benchmarks.search.replays.simulation import (
    SCORING_TOKENS,
    Replay,
    Step,
    Table,
    replayed,
)
from experiments.benchmarks.search.replays.strategies import (
    ALL,
    BEST_BEFORE,
    LARGEST,
    LARGEST_WIDTH,
    RANDOM,
    STRATEGIES,
    Strategy,
)
from search.config.names import HALVING, HYPERBAND
from search.config.sampler import SamplerSettings
from search.space.anchors import CUT_AXES, UNIFORM
from search.space.space import Space
from search.study.observation import FINISHED, STOPPED
from tests.search.conftest import SIZES, build_space

TOKENS = [0, 100, 200, 400, 800]
WHOLE = 10.0


def rows(space: Space, seeds: int = 2, noise: float = 0.0) -> pd.DataFrame:
    """Curves that fall alike, from a smooth function of the shape."""
    generator = np.random.default_rng(0)
    found = []
    for shape in space.feasible:
        place = space.position(shape)
        final = 0.5 + sum((p - 0.6) ** 2 for p in place)
        for seed in range(seeds):
            kl = [final * f * np.exp(noise * generator.normal()) for f in (5, 3, 2, 1.4, 1)]
            found.append({**shape.to_dict(), "seed": seed, "tokens": TOKENS, "kl": kl})
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def space() -> Space:
    return build_space(LlamaConfig(**SIZES))


@pytest.fixture(scope="module")
def table(space: Space) -> Table:
    return Table.of(space, rows(space))


def test_a_table_knows_its_best_and_its_noise(space: Space) -> None:
    noisy = Table.of(space, rows(space, noise=0.03))
    assert noisy.noise == pytest.approx(0.03, rel=0.3)
    assert min(noisy.regret(shape) for shape in noisy.kl) == 0
    assert Table.of(space, rows(space, seeds=1)).training_tokens == 800 * len(space.feasible)
    assert np.isnan(Table.of(space, rows(space, seeds=1)).noise)


def test_one_candidate_costs_one_run(table: Table) -> None:
    (step,) = replayed(table, Strategy("", order=UNIFORM, limit=WHOLE), 0)
    shape = table.space.anchors()["uniform shrink"]
    assert shape is not None
    assert step == Step(800, table.regret(shape))


def test_without_stopping_the_best_is_found_and_the_replay_ends(table: Table) -> None:
    steps = replayed(table, replace(RANDOM, limit=WHOLE), 0)
    assert steps[-1].regret == 0
    assert steps[-1].spent <= table.training_tokens
    assert [s.regret for s in steps] == sorted((s.regret for s in steps), reverse=True)
    assert [s.spent for s in steps] == sorted(s.spent for s in steps)


def test_the_limit_ends_a_replay(table: Table) -> None:
    steps = replayed(table, replace(RANDOM, limit=0.1), 0)
    assert 0 < steps[-1].spent <= 0.1 * table.training_tokens


def test_candidates_of_two_slots_share_the_clock(table: Table) -> None:
    replay = Replay(table, replace(RANDOM, limit=WHOLE), 0)
    first = next(replay.steps())
    assert first.spent == 1600, "both slots have trained a whole run"


def test_the_known_orders_are_kept(table: Table) -> None:
    replay = Replay(table, Strategy("", order=LARGEST, limit=WHOLE), 0)
    list(replay.steps())
    sizes = [table.space.parameters_of[c.architecture] for c in replay.candidates]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(table.space.parameters)
    scored = Replay(table, Strategy("", order=BEST_BEFORE, scored=5, limit=WHOLE), 0)
    steps = list(scored.steps())
    assert len(scored.candidates) == 5
    assert steps[0].spent == pytest.approx(5 * SCORING_TOKENS + 1600)
    before = [c.kl[0] for c in scored.candidates]
    assert before == sorted(before)
    largest = Strategy("", order=BEST_BEFORE, scored=5, largest=True)
    assert {table.space.parameters_of[s] for s in Replay(table, largest, 0).zero_shot} == set(
        sorted(table.space.parameters)[-5:]
    )


@pytest.mark.parametrize("stopper", [HALVING, HYPERBAND])
def test_stopping_tries_more_for_the_same_tokens(table: Table, stopper: str) -> None:
    def tried(strategy: Strategy) -> tuple[int, Replay]:
        replay = Replay(table, strategy, 0)
        list(replay.steps())
        return len(replay.candidates), replay

    whole = replace(RANDOM, limit=0.05)
    count, _ = tried(whole)
    more, replay = tried(replace(whole, stopper=stopper, reduction=2, first_part=8))
    assert more > 1.4 * count
    stopped = [c for c in replay.candidates if c.state == STOPPED]
    assert stopped and all(TOKENS[c.reached] in (100, 200, 400) for c in stopped)
    best = min(c.kl[-1] for c in stopped)
    assert best >= min(c.kl[-1] for c in replay.candidates if c.state == FINISHED)


def test_anchors_come_first_and_some_are_spared(table: Table) -> None:
    names = (*CUT_AXES, LARGEST_WIDTH)
    whole = Strategy("", SamplerSettings("random"), HALVING, 2, 8, anchors=names, limit=0.5)
    for spared in ((UNIFORM,), names):
        replay = Replay(table, replace(whole, spared=spared), 0)
        list(replay.steps())
        known = table.space.anchors()
        largest = [c.architecture for c in replay.candidates][len([*filter(None, known.values())])]
        assert largest.layers == 6 and largest.hidden < 64
        first = [shape for shape in dict.fromkeys([*known.values(), largest]) if shape]
        assert [c.architecture for c in replay.candidates[: len(first)]] == first
        found = [c for c in replay.candidates if c.spared]
        assert [c.architecture for c in found] == (first[:1] if spared == (UNIFORM,) else first)
        assert all(c.state == FINISHED for c in found)


def test_the_seed_decides(table: Table) -> None:
    strategy = Strategy("", SamplerSettings(startup=3), HALVING, 2, 8)
    assert replayed(table, strategy, 3) == replayed(table, strategy, 3)
    assert replayed(table, strategy, 3) != replayed(table, strategy, 4)


def test_the_surrogate_needs_fewer_tokens_than_random(table: Table) -> None:
    seeds = range(5)
    random, surrogate = (
        median_shares(table, [replayed(table, replace(s, limit=WHOLE), seed) for seed in seeds])[0]
        for s in (RANDOM, Strategy("", stopper=HALVING))
    )
    assert surrogate < random / 2


def test_what_is_read_off_a_replay() -> None:
    steps = [Step(10, 0.5), Step(30, 0.04), Step(90, 0.0)]
    assert [regret_after(steps, t) for t in (9, 10, 89, 90)] == [np.inf, 0.5, 0.04, 0.0]
    assert [tokens_to(steps, r) for r in (0.6, 0.05, 0.02)] == [10, 30, 90]
    assert tokens_to(steps[:2], 0.02) == np.inf


def test_a_summary_holds_a_strategy_against_random(table: Table) -> None:
    total = table.training_tokens
    fast = [[Step(total / 64, 0.5), Step(total / 20, 0.01)]] * 4 + [[Step(total / 64, 0.5)]]
    summary = summarise(table, RANDOM, fast, [0.5, 0.3])
    assert summary.near == [0.0, 0.8, 0.8]
    assert summary.regret[0] == [0.5, 0.5, 0.5]
    assert summary.regret[2][:2] == [0.01, 0.01]
    assert summary.to_wanted == pytest.approx(1 / 20, abs=1e-4)
    assert summary.ratio_wanted == pytest.approx(10, rel=1e-3)
    assert "| 0% / 80% / 80% |" in markdown([summary])
    never = summarise(table, RANDOM, [[]], [0.5, 0.3])
    assert never.to_wanted is None and never.ratio_easier is None


def test_finished_replays_are_not_replayed_again(table: Table, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    strategies = [RANDOM, Strategy("uniform", order=UNIFORM)]
    first = replay_missing(table, strategies, 2, 1, file)
    lines = file.read_text().splitlines()
    assert len(lines) == 4
    kept = [json.loads(line) for line in lines[:3]]
    kept[0]["steps"] = [[1.0, 0.123]]
    file.write_text("\n".join([*map(json.dumps, kept), lines[3][:20]]))
    assert len(known(file)) == 3
    file.write_text("\n".join(map(json.dumps, kept)) + "\n")
    again = replay_missing(table, strategies, 2, 1, file)
    assert again[RANDOM][0] == [Step(1.0, 0.123)]
    assert again[RANDOM][1] == first[RANDOM][1]
    assert again[strategies[1]] == first[strategies[1]]
    assert len(file.read_text().splitlines()) == 4


def test_replays_are_kept_by_the_code_that_made_them() -> None:
    assert len(code_fingerprint()) == 16  # of files that are all there


def test_a_strategy_has_one_name_and_one_name_one_strategy() -> None:
    names = {strategy.name for strategy in STRATEGIES}
    parts = {json.dumps(strategy.parts(), sort_keys=True) for strategy in STRATEGIES}
    assert len(names) == len(parts) == len(STRATEGIES)


def test_the_report_ranks_what_is_known_early(table: Table, space: Space) -> None:
    text = fidelity_markdown(Table.of(space, rows(space, noise=0.01)))
    assert "| rung of 400 tokens | 0.9" in text or "| rung of 400 tokens | 1.0" in text
    assert "| parameter count |" in text


def test_without_a_browser_the_plot_is_a_page(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    draw(table, {RANDOM: [replayed(table, RANDOM, 0)]}, tmp_path / "regret.png")
    assert RANDOM.name in (tmp_path / "regret.html").read_text()


def test_all_scored_is_more_than_any_table(table: Table) -> None:
    assert len(Replay(table, Strategy("", scored=ALL), 0).zero_shot) == len(table.kl)
