"""Written students on the test split, loaded again as their users will load them."""

from pathlib import Path

import torch

from distill import Corpus, Evaluation, Targets, evaluate
from distill.backend import load
from workspace.corpus_and_targets import TEST


def evaluate_on_test_split(
    model: Path, corpus: Corpus, *, targets: Path, device: torch.device | str
) -> Evaluation:
    """The student in the folder `model`, in fp32, against the targets of the test split."""
    student = load(model, torch.float32).to(torch.device(device))
    blocks, weights = corpus.blocks(TEST), corpus.weights(TEST)
    return evaluate(student, blocks, targets=Targets(targets), weights=weights)
