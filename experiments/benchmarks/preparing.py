"""Preparation of a study, as before its trials, for benchmarks that run students themselves."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.log import plain_lines
from experiments.benchmarks.demo_setting import LIBRARY_FILES
from pruning import Architecture
from search.config import BudgetConfig, SearchConfig
from search.inputs import Inputs
from search.run import Preparation
from search.space import UNIFORM
from search.workers import SearchAssets
from workspace.layout import Workspace


def study_config(options: argparse.Namespace, workspace: Path, **settings: Any) -> SearchConfig:
    """A study on a CPU whose runs all have `options.tokens`; `settings` win."""
    common = {
        "budget": BudgetConfig(0.5, 0.2),
        "short_tokens": options.tokens,
        "full_tokens": options.tokens,
        "corpus_files": LIBRARY_FILES,
        "device": "cpu",
    }
    return SearchConfig(workspace=workspace, **(common | settings))


@plain_lines()
def prepared(inputs: Inputs, folder: Path, *, sorted_by: int | None = None) -> SearchAssets:
    """Corpus, importance, sorted teacher and targets in the folder, computed or found there.

    The teacher is sorted by so many calibration sequences, where these are not those that the
    corpus is packed for.
    """
    workspace = Workspace(folder)
    workspace.make()
    corpus = inputs.packed(None, workspace.root)
    if sorted_by is not None:
        inputs = replace(inputs, config=replace(inputs.config, calibration=sorted_by))
    training = inputs.resolved_training(None)
    preparation = Preparation(inputs, training, workspace, corpus, 1)
    preparation.check()
    return preparation.run()


def uniform_shrink(inputs: Inputs) -> Architecture:
    """The uniform shrink inside the budget."""
    shape = inputs.space.anchors()[UNIFORM]
    assert shape is not None, "a band with any architecture has a uniform shrink"
    return shape
