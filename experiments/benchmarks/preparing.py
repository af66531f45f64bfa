"""What a study computes before its trials, for benchmarks that run students themselves."""

from pathlib import Path

from common.log import plain_lines
from search.inputs import Inputs
from search.run import Preparation
from search.workers import SearchAssets
from workspace.layout import Workspace


@plain_lines()
def prepared(inputs: Inputs, folder: Path) -> SearchAssets:
    """Corpus, importance, sorted teacher and targets in the folder, computed or found there."""
    workspace = Workspace(folder)
    workspace.make()
    corpus = inputs.packed(None, workspace.root)
    training = inputs.resolved_training(None)
    return Preparation(inputs, training, workspace, corpus, 1).run()
