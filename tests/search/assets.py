"""Assets of runs: as names alone, and as a workspace with a tiny teacher."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from distill import TargetFormat, evaluation_format, slot_blocks, write_targets
from distill.train.settings import ResolvedTraining
from pruning import Checkpoint, write_sorted_teacher
from search.workers.candidate import SearchAssets
from tests.pruning.models import build_teacher, random_ordering

BLOCK = 16
"""Tokens of a sequence."""
TRAINED_ON, SELECTED = 20, 4
"""Sequences of the splits."""


def assets_in(folder: Path, **given: Any) -> SearchAssets:
    """Assets below `folder`, whether they are there or not; with other values where `given`."""
    values: dict[str, Any] = {
        "sorted_teacher": folder / "sorted",
        "teacher": folder / "teacher",
        "vocabulary": 9,
        "corpus": folder / "corpus",
        "training_targets": folder / "train",
        "selection_targets": folder / "selection",
        "test_targets": folder / "test",
        "training": ResolvedTraining(batch=1, precision="fp32"),
        "seed": 0,
        "device": "cpu",
    }
    return SearchAssets(**values | given)


def write_assets(
    root: Path, training: ResolvedTraining, *, targets: TargetFormat | None = None
) -> SearchAssets:
    """A workspace with a tiny teacher and all that its students learn from.

    `targets` is the format of the training targets; by default that of evaluations.
    """
    model: Any = build_teacher("llama-gqa-tied")
    assets = assets_in(root, vocabulary=model.config.vocab_size, training=training)
    model.save_pretrained(assets.teacher)
    ordering = random_ordering(model.config)
    write_sorted_teacher(Checkpoint(assets.teacher), ordering, assets.sorted_teacher)
    shape = (TRAINED_ON + SELECTED, BLOCK)
    blocks = np.random.default_rng(0).integers(0, assets.vocabulary, shape).astype(np.uint16)
    train, selection = blocks[:TRAINED_ON], blocks[TRAINED_ON:]
    assets.corpus.mkdir()
    (assets.corpus / "facts.json").write_text(json.dumps({"block": BLOCK}))
    for split, some in (("train", train), ("selection", selection)):
        np.save(assets.corpus / f"{split}.npy", some)
    evaluated = evaluation_format(assets.vocabulary)
    read = train[slot_blocks(TRAINED_ON, 0)]
    write_targets(model, read, target_format=targets or evaluated, directory=root / "train")
    write_targets(model, selection, target_format=evaluated, directory=root / "selection")
    return assets
