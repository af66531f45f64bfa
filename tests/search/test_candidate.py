"""Students as trials cut them: the same as those of a cut without a search."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill import TargetFormat, evaluation_format, slot_blocks, write_targets
from distill.settings import ResolvedTraining
from pruning import Checkpoint, architecture_of, cut_student, write_sorted_teacher
from pruning.moments import measure_moments
from pruning.options import rms_rescale
from pruning.rows import Cut
from pruning.slicing import NO_CHANGES
from search.candidate import Assets, CandidateRun, Job, build_student
from tests.exactness import fp32_tolerance
from tests.pruning.models import (
    build_teacher,
    difference,
    logits,
    random_ordering,
    token_ids,
)


@pytest.mark.parametrize("rescale", [True, False])
def test_a_trials_student_is_that_of_a_direct_cut(rescale: bool, tmp_path: Path) -> None:
    model: Any = build_teacher("gemma2")
    model.save_pretrained(tmp_path / "teacher")
    teacher = Checkpoint(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    energies = measure_moments(model, [token_ids(4, 13)]).energies if rescale else None
    write_sorted_teacher(teacher, ordering, tmp_path / "sorted", energies)
    shape = replace(architecture_of(model.config), hidden=36, layers=2)
    kept = ordering.kept_layers(2)
    changes = NO_CHANGES
    if energies is not None:
        changes = rms_rescale(Cut(model.config, ordering, shape), kept, energies)
    direct = cut_student(teacher, shape, kept, ordering, changes)
    assets = Assets(
        sorted_teacher=tmp_path / "sorted",
        teacher=tmp_path / "teacher",
        vocabulary=model.config.vocab_size,
        corpus=tmp_path,
        training_targets=tmp_path,
        selection_targets=tmp_path,
        test_targets=tmp_path,
        training=ResolvedTraining(batch=1, precision="fp32"),
        seed=0,
        device="cpu",
        precision="fp32",
    )
    student = build_student(assets, Job("trial", shape, 1, tmp_path, 1.0))
    assert difference(logits(student), logits(direct)) <= fp32_tolerance(model.config)
    plain = cut_student(teacher, shape, kept, ordering)
    assert torch.equal(logits(direct), logits(plain)) != rescale


@pytest.mark.parametrize("targets", ["topk", "sampled", "live"])
def test_a_trial_learns_from_stored_and_from_live_targets(targets: str, tmp_path: Path) -> None:
    model: Any = build_teacher("llama-gqa-tied")
    model.save_pretrained(tmp_path / "teacher")
    write_sorted_teacher(
        Checkpoint(tmp_path / "teacher"), random_ordering(model.config), tmp_path / "sorted"
    )
    vocabulary, block = model.config.vocab_size, 16
    blocks = np.random.default_rng(0).integers(0, vocabulary, (24, block)).astype(np.uint16)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "facts.json").write_text(json.dumps({"block": block}))
    for split, some in (("train", blocks[:20]), ("selection", blocks[20:])):
        np.save(tmp_path / "corpus" / f"{split}.npy", some)
    form = TargetFormat(vocabulary, 16)
    if targets == "sampled":
        form = TargetFormat.sampled(vocabulary)
    write_targets(
        model, blocks[:20][slot_blocks(20, 0)], target_format=form, directory=tmp_path / "train"
    )
    write_targets(
        model,
        blocks[20:],
        target_format=evaluation_format(vocabulary),
        directory=tmp_path / "selection",
    )
    assets = Assets(
        sorted_teacher=tmp_path / "sorted",
        teacher=tmp_path / "teacher",
        vocabulary=vocabulary,
        corpus=tmp_path / "corpus",
        training_targets=None if targets == "live" else tmp_path / "train",
        selection_targets=tmp_path / "selection",
        test_targets=tmp_path / "selection",
        training=ResolvedTraining(batch=2, learning_rate=5e-3, targets=targets, precision="fp32"),
        seed=0,
        device="cpu",
        precision="fp32",
    )
    shape = replace(architecture_of(model.config), ffn=24)
    job = Job("trial", shape, 60 * 2 * block, tmp_path / "checkpoint", 1e9, reports=2)
    run = CandidateRun(assets, job)
    result = run.next_report()
    assert not result["done"] and result["tokens"] == 30 * 2 * block
    result = CandidateRun(assets, job).next_report()  # as a new worker takes it up
    assert not result["done"] and result["resumed_tokens"] == 30 * 2 * block
    result = run.next_report()
    assert result["done"]
    first, last = (point["loss"] for point in result["curve"])
    assert last < 0.8 * first
