"""The pairs of distributions that `targets.py` measures on: the demo's, and stretched ones."""

import math
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill import read_documents
from experiments.benchmarks.demo_setting import LIBRARY_FILES, TEACHER
from pruning import Checkpoint, Ordering, Scoring, architecture_of, cut_student, measure_importance

HIDDEN = 128
"""Width of the made-up output embeddings."""


@dataclass(frozen=True)
class Setting:
    """A teacher's and a student's distributions over the same positions."""

    name: str
    teacher: Tensor
    """Log-probabilities [tokens, vocab], and so is `student`."""
    student: Tensor
    embedding: Tensor
    """[vocab, hidden], the output embedding of the student."""

    @property
    def vocabulary(self) -> int:
        return self.teacher.shape[1]

    @property
    def kl(self) -> Tensor:
        """[tokens], in nats."""
        return (self.teacher.exp() * (self.teacher - self.student)).sum(-1)

    @property
    def entropy(self) -> float:
        return float(-(self.teacher.exp() * self.teacher).sum(-1).mean())


def demo_setting(tokens: int) -> Setting:
    """The demo's teacher and its cut to three quarters of width, on the standard library."""
    blocks = torch.tensor(list(islice(windows(), 80)))
    calibration, held_out = blocks[:64], blocks[64:]
    teacher, student = demo_pair(calibration)
    with torch.no_grad():
        logs = [
            model(input_ids=held_out).logits.float().log_softmax(-1).flatten(0, 1)
            for model in (teacher, student)
        ]
    chosen = torch.randperm(len(logs[0]), generator=torch.Generator().manual_seed(0))[:tokens]
    embedding = student.get_output_embeddings().weight.detach()
    return Setting("demo teacher, its cut", logs[0][chosen], logs[1][chosen], embedding)


def demo_pair(calibration: Tensor) -> tuple[Any, Any]:
    """The demo's teacher, and its cut by importance on `calibration` [blocks, sequence]."""
    teacher: Any = AutoModelForCausalLM.from_pretrained(TEACHER, dtype=torch.float32).eval()
    whole = architecture_of(teacher.config)
    importance = measure_importance(
        teacher, [calibration], scoring=Scoring(layer_score="block-influence")
    )
    shape = replace(whole, hidden=168, heads=6, ffn=544)
    ordering = Ordering.from_importance(importance, whole)
    return teacher, cut_student(Checkpoint(TEACHER), shape, range(whole.layers), ordering=ordering)


def windows(length: int = 256) -> Iterator[list[int]]:
    """A window of `length` token ids of each of the library's files that is long enough."""
    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    for document in read_documents(sysconfig.get_path("stdlib"), LIBRARY_FILES):
        ids = tokenizer(document.text[: 20 * length])["input_ids"]
        if len(ids) >= 2 * length:
            yield ids[length : 2 * length]


def stretched(demo: Setting, vocabulary: int) -> Setting:
    """Distributions of the demo's shape and entropy over a larger vocabulary."""
    generator = torch.Generator().manual_seed(1)
    ranked = demo.teacher.sort(-1, descending=True).values
    ranks = torch.arange(vocabulary, dtype=torch.float64) + 1
    where = ranks.log() / math.log(vocabulary) * math.log(demo.vocabulary)
    place = where.exp().sub(1).clamp(0, demo.vocabulary - 1)
    low = place.floor().long().clamp_max(demo.vocabulary - 2)
    logits = torch.lerp(ranked[:, low], ranked[:, low + 1], (place - low).float())
    sharpest, flattest = 1.0, 4.0
    for _ in range(12):
        sharpness = (sharpest + flattest) / 2
        log_probs = (sharpness * logits).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        sharpest, flattest = (
            (sharpness, flattest) if entropy > demo.entropy else (sharpest, sharpness)
        )
    for row in log_probs:  # tokens are not numbered by their probability
        row.copy_(row[torch.randperm(vocabulary, generator=generator)])
    size = math.sqrt(2 * float(demo.kl.mean()))
    noise = torch.randn(log_probs.shape, generator=generator)
    student = noise.mul_(size).add_(log_probs).log_softmax(-1)
    embedding = torch.randn(vocabulary, HIDDEN, generator=generator) / math.sqrt(HIDDEN)
    return Setting(f"made up, {vocabulary:,}", log_probs, student, embedding)
