"""Samples of calibration text, how their orders agree, and the tables, on a tiny teacher."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t

from experiments.benchmarks.pruning import calibration, calibration_samples
from experiments.benchmarks.pruning.calibration_report import student_table, with_interval
from experiments.benchmarks.pruning.calibration_samples import Agreement, Samples, agreements
from experiments.benchmarks.pruning.prune_quality import model_of
from pruning import Checkpoint, Scoring, measure_importance
from tests.pruning.models import build_teacher

TEXT = np.random.default_rng(0).integers(0, 32, size=(9, 8), dtype=np.uint16)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    build_teacher("qwen3").save_pretrained(tmp_path / "teacher")
    corpus = SimpleNamespace(blocks=lambda split: TEXT)
    monkeypatch.setattr(calibration_samples, "Corpus", lambda folder: corpus)
    setting: Any = SimpleNamespace(
        teacher=tmp_path / "teacher", assets=SimpleNamespace(corpus=tmp_path)
    )
    found = Samples(setting, tmp_path / "sums", (2, 4), count=2, left_out=2)
    for piece in found.pieces():
        found.write(*piece)
    return found


def test_pieces_add_up_to_the_importance_of_the_beginning_of_a_sample(samples: Samples) -> None:
    blocks = samples._blocks()
    assert len(np.unique(blocks, axis=0)) == 8  # disjoint
    model = model_of(Checkpoint(samples.setting.teacher))
    text = torch.from_numpy(blocks[4:8].astype("int64"))  # the second sample, wholly
    expected = measure_importance(model, [text], scoring=Scoring(layer_score="block-influence"))
    found = samples.importance(1, 4, layers="block-influence")
    torch.testing.assert_close(found.ffn, expected.ffn)
    torch.testing.assert_close(found.layers, expected.layers)
    few = measure_importance(model, [text[:2]], scoring=Scoring(layer_score="kl"))
    torch.testing.assert_close(samples.importance(1, 4).layers, few.layers)  # left_out is 2


def test_layers_are_left_out_on_no_more_than_was_asked(samples: Samples) -> None:
    found = agreements(samples)
    assert set(found["ffn"]) == {2, 4} and set(found["layers, kl"]) == {2}
    same, most = found["ffn"][4]
    assert same == most and found["ffn"][2][0] != found["ffn"][2][1]


def test_agreement_is_of_ranks_and_of_the_better_half() -> None:
    one = torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])  # a layer without such parts
    assert Agreement.of(one, one.square()) == Agreement(1.0, 1.0)
    assert Agreement.of(one, -one) == Agreement(-1.0, 0.0)
    assert Agreement.of(torch.zeros(2, 0), torch.zeros(2, 0)) is None
    assert Agreement.of(torch.ones(2, 4), torch.ones(2, 4)) is None


def test_a_difference_is_between_students_of_one_sample() -> None:
    after = {(16, 0): 0.5, (16, 1): 0.9, (64, 0): 0.4, (64, 1): 0.8}
    rows = [
        {
            "group": "width",
            "sequences": size,
            "sample": sample,
            "architecture": "L1",
            "tokens": 8,
            "kl_before": 1.0,
            "kl_after": kl,
        }
        for (size, sample), kl in after.items()
    ]
    half = t.ppf(0.975, 1) * np.std([0.5, 0.9], ddof=1) / 2**0.5
    line = f"| 16 | 1.000 ± 0.000 | 0.7000 ± {half:.4f} | +0.1000 ± 0.0000 | 2 |"
    assert line in student_table(rows, "width").splitlines()
    assert student_table(rows, "depth") == "No depth cut was measured."
    assert with_interval([], digits=3) == ""
    assert with_interval([2.0], digits=1) == "2.0"


@pytest.mark.parametrize(
    "words", ["--calibration 16 24", "--seeds 1", "--cut 32", "--left_out 20", "--calibration 0"]
)
def test_options_that_cannot_be_are_refused(words: str) -> None:
    with pytest.raises(SystemExit):
        calibration.options_of(words.split())
