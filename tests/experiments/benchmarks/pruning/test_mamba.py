"""Shapes and tables of the comparison of Mamba parts, on the configuration alone."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.benchmarks.pruning import mamba
from experiments.benchmarks.pruning.mamba_report import report
from experiments.demo.train_other_teachers import TEACHERS
from pruning import architecture_of, check_architecture, parameter_count

AXES = (*mamba.MAMBA_AXES, *mamba.OTHER_AXES)


def _config() -> Any:
    return TEACHERS["nemotron_h"](
        vocab_size=256, hidden_size=96, max_position_embeddings=64, tie_word_embeddings=False
    )


@pytest.fixture
def cutter(monkeypatch: pytest.MonkeyPatch) -> mamba.Cutter:
    monkeypatch.setattr(mamba, "Checkpoint", lambda folder: SimpleNamespace(config=_config()))
    setting: Any = SimpleNamespace(teacher="")
    return mamba.Cutter(setting, mamba.Run("axes", "ffn", 0))


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_is_cut_to_the_parameters_of_all_others(cutter: mamba.Cutter, axis: str) -> None:
    config, whole = _config(), architecture_of(_config())
    shape = cutter.equal(axis)
    check_architecture(config, shape)
    assert shape != whole and getattr(shape, axis) < getattr(whole, axis)
    goal = min(cutter.size(cutter.halved(one)) for one in mamba.MAMBA_AXES)
    neuron = cutter.size(shape) - cutter.size(replace(shape, ffn=shape.ffn - 1))
    assert goal - neuron < parameter_count(config, shape) <= goal


def test_every_seed_has_every_run_once(cutter: mamba.Cutter) -> None:
    options = argparse.Namespace(seeds=2)
    runs = list(mamba.all_runs(options, cutter.whole))
    assert len(set(runs)) == len(runs)
    assert {run.seed for run in runs} == {0, 1}
    without_seed = [(run.group, run.method) for run in runs]
    assert all(without_seed.count(one) == 2 for one in without_seed)


def test_a_table_has_the_differences_on_the_same_seeds(tmp_path: Path) -> None:
    after = {"ffn": (0.5, 0.7), "hidden": (0.6, 0.9)}
    rows = [
        {
            "group": "axes",
            "method": method,
            "seed": seed,
            "architecture": "L1",
            "parameters": 1000,
            "kl_before": 1.0,
            "kl_after": value,
        }
        for method, values in after.items()
        for seed, value in enumerate(values)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report(file, tmp_path)
    first, second = (tmp_path / "mamba.md").read_text().splitlines()[-2:]
    assert first.startswith("| ffn | L1 | 1,000 | 1.000 | 0.6000 ± 0.1414 |  |")
    assert "| +0.1500 ± 0.0707 | 2 |" in second
