"""Students as trials cut them: the same as those of a cut without a search."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import TargetFormat
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Checkpoint, Slice, architecture_of, load_slice, write_sorted_teacher
from pruning.importance.moments import measure_moments
from pruning.slicing.compensation import rms_rescale
from pruning.slicing.edits import NO_EDITS
from search.workers.candidate import CandidateRun, Job, build_student
from tests.exactness import fp32_tolerance
from tests.pruning.models import build_teacher, difference, logits, random_ordering, token_ids
from tests.search.assets import BLOCK, SELECTED, assets_in, write_assets


@pytest.mark.parametrize("rescale", [True, False])
def test_a_trials_student_is_that_of_a_direct_cut(rescale: bool, tmp_path: Path) -> None:
    model: Any = build_teacher("gemma2")
    model.save_pretrained(tmp_path / "teacher")
    teacher = Checkpoint(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    squares = measure_moments(model, [token_ids(4, 13)]).mean_squares if rescale else None
    write_sorted_teacher(teacher, ordering, tmp_path / "sorted", mean_squares=squares)
    shape = replace(architecture_of(model.config), hidden=36, layers=2)
    kept = ordering.kept_layers(2)
    cut = Slice.of(model.config, shape, kept_layers=kept, ordering=ordering)
    edits = NO_EDITS if squares is None else rms_rescale(cut, squares)
    direct = load_slice(teacher, cut, edits=edits)
    assets = assets_in(tmp_path)
    student = build_student(assets, Job("trial", shape, RunLimits(1)))
    assert difference(logits(student), logits(direct)) <= fp32_tolerance(model.config)
    plain = load_slice(teacher, cut)
    assert torch.equal(logits(direct), logits(plain)) != rescale


VOCABULARY = 96
"""Of the teacher that `write_assets` writes."""


@pytest.mark.parametrize("targets", ["topk", "sampled", "live"])
def test_a_trial_learns_from_stored_and_from_live_targets(targets: str, tmp_path: Path) -> None:
    training = ResolvedTraining(batch=2, learning_rate=5e-3, targets=targets, precision="fp32")
    form = {"topk": TargetFormat(VOCABULARY, 16), "sampled": TargetFormat.sampled(VOCABULARY)}
    assets = write_assets(tmp_path, training, targets=form.get(targets))
    if targets == "live":
        assets = replace(assets, training_targets=None)
    shape = replace(architecture_of(Checkpoint(assets.teacher).config), ffn=24)
    tokens = 60 * 2 * BLOCK
    job = Job("trial", shape, RunLimits(tokens, reports=2, checkpoint=tmp_path / "checkpoint"))
    run = CandidateRun(assets, job)
    report = run.next_report()
    assert not report.done and report.tokens == tokens // 2
    report = CandidateRun(assets, job).next_report()  # as a new worker takes it up
    assert not report.done and report.resumed_tokens == tokens // 2
    report = run.next_report()
    assert report.done and len(report.kl_sequences) == SELECTED
    first, last = (point.loss for point in report.curve)
    assert first is not None and last is not None and last < 0.8 * first


def test_a_run_without_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    assets = write_assets(tmp_path, ResolvedTraining(batch=2, precision="fp32"))
    before = sorted(tmp_path.rglob("*"))
    shape = architecture_of(Checkpoint(assets.teacher).config)
    assert CandidateRun(assets, Job("trial", shape, RunLimits(2 * BLOCK))).next_report().done
    assert sorted(tmp_path.rglob("*")) == before
