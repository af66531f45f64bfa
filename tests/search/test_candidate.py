"""Students as trials cut them: the same as those of a cut without a search."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.settings import TrainingSettings
from pruning import Checkpoint, architecture_of, cut_student, write_sorted_teacher
from pruning.moments import measure_moments
from pruning.options import rms_rescale
from pruning.rows import Cut
from pruning.slicing import NO_CHANGES
from search.candidate import Assets, Job, build_student
from tests.pruning.models import (
    TOLERANCE,
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
        training=TrainingSettings(),
        seed=0,
        device="cpu",
        precision="fp32",
    )
    student = build_student(assets, Job("trial", shape, 1, tmp_path, 1.0))
    assert difference(logits(student), logits(direct)) <= TOLERANCE
    plain = cut_student(teacher, shape, kept, ordering)
    assert torch.equal(logits(direct), logits(plain)) != rescale
