"""A written student on the test split."""

from pathlib import Path

import torch

from distill import Corpus, Evaluation, Targets, evaluate
from distill.student_run import load


def test_student(model: Path, corpus: Corpus, *, targets: Path, device: str) -> Evaluation:
    """Scores of a written student, loaded again in fp32, on the test split."""
    student = load(model, torch.float32).to(torch.device(device))
    blocks, weights = corpus.blocks("test"), corpus.weights("test")
    return evaluate(student, blocks, Targets(targets), weights=weights)
