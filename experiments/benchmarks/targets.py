"""What each form of stored targets costs, and how wrong loss and gradient are that it gives.

    python experiments/benchmarks/targets.py [--tokens 256] [--repetitions 32]

Held against the live teacher, with no error of their own: forward KL, its gradient by the student's
logits (q - p), and by the hidden states before the output embedding. Bias is what is left on
average over all draws, noise how far one draw is off; both as shares of the live value's size.
Speeds are of the forms alone, on files the system holds in memory, without a teacher's pass.

The small vocabulary is that of the demo's teacher and of a cut of it, on real text. For the larger
ones there is no trained model here: the sorted probabilities of the same positions are stretched
over the larger vocabulary in the logarithm of the rank, and sharpened until their mean entropy is
the demo's again; the student is the teacher with Gaussian noise on its logits, of the same KL.
"""

import argparse
import json
import math
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from distill.describe import draw, unpack_ids
from distill.documents import read_documents
from distill.formats import EVALUATION_DRAWS, TargetFormat
from distill.losses import token_losses
from distill.targets import TargetBatch, Targets, write_targets
from experiments.benchmarks.demo_setting import LIBRARY_FILES, TEACHER
from pruning import (
    DEFAULT_SCORE,
    Checkpoint,
    Ordering,
    architecture_of,
    cut_student,
    measure_importance,
)

VOCABULARIES = (32_768, 131_072)
TOPK = (16, 64, 256)
DRAWS = (16, 50, 200)
HIDDEN = 128
"""Width of the made-up output embeddings."""
BLOCK = 64
EVALUATION_TOPK = (4_096, 8_192)


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


@dataclass(frozen=True)
class Errors:
    """Loss and gradient errors of one form; a share of the live value's size each."""

    loss_bias: float
    loss_bias_error: float
    """Standard error of `loss_bias`, and so on."""
    loss_noise: float
    """Standard deviation per token over the draws, by the mean KL."""
    logits_bias: float
    logits_bias_error: float
    logits_noise: float
    hidden_bias: float
    hidden_bias_error: float
    hidden_noise: float


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
    importance = measure_importance(teacher, [calibration], DEFAULT_SCORE, "block-influence")
    shape = replace(whole, hidden=168, heads=6, ffn=544)
    ordering = Ordering.from_importance(importance, whole)
    return teacher, cut_student(Checkpoint(TEACHER), shape, list(range(whole.layers)), ordering)


def windows(most: int = 1, length: int = 256) -> Iterator[list[int]]:
    """Up to `most` windows of `length` token ids of each of the library's files; none is short."""
    tokenizer = AutoTokenizer.from_pretrained(TEACHER)
    source, files = sysconfig.get_path("stdlib"), LIBRARY_FILES
    for document in read_documents(source, tuple(files.include), tuple(files.exclude)):
        ids = tokenizer(document.text[: 20 * length * most])["input_ids"]
        for start in range(length, min(len(ids) - length, length * most) + 1, length):
            yield ids[start : start + length]


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


def rounded(log_probs: Tensor) -> Tensor:
    """As they come back from the disk."""
    return log_probs.clamp_min(-6e4).half().float()


def systematic(setting: Setting, draws: int, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, ids and shares [entries] of one draw for every token, as `distill` makes it."""
    form = TargetFormat.sampled(setting.vocabulary, draws, seed=draws)
    drawn = draw(setting.teacher, form, turn)
    rows = torch.arange(len(setting.teacher)).repeat_interleave(_whole(drawn["lengths"]))
    return rows, torch.from_numpy(unpack_ids(drawn)), _whole(drawn["counts"]) / draws


def _whole(values: Any) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def independent(setting: Setting, draws: int, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same of independent draws, as in arXiv 2503.16870."""
    generator = torch.Generator().manual_seed(1000 * draws + turn)
    ids = torch.multinomial(setting.teacher.exp(), draws, True, generator=generator).flatten()
    rows = torch.arange(len(setting.teacher)).repeat_interleave(draws)
    return rows, ids, torch.full(ids.shape, 1 / draws)


Sampler = Callable[[Setting, int, int], tuple[Tensor, Tensor, Tensor]]


def sampled_errors(setting: Setting, sampler: Sampler, draws: int, repetitions: int) -> Errors:
    """Errors over many draws. The bias of a gradient is the product of two halves' mean errors."""
    probs = setting.teacher.exp()
    tokens = len(probs)
    live_hidden = probs @ setting.embedding
    squares = (probs**2).sum(-1)
    halves = [torch.zeros_like(probs), torch.zeros_like(probs)]
    losses, logits_noise, hidden = [], [], []
    for turn in range(repetitions):
        rows, ids, share = sampler(setting, draws, turn)
        terms = share * (rounded(setting.teacher[rows, ids]) - setting.student[rows, ids])
        losses.append(torch.zeros(tokens).index_add_(0, rows, terms))
        halves[turn % 2].index_put_((rows, ids), share, accumulate=True)
        apart = torch.zeros(tokens).index_add_(0, rows, share * probs[rows, ids])
        again = torch.sparse_coo_tensor(
            torch.stack([rows, ids]), share, probs.shape, check_invariants=False
        ).coalesce()
        drawn = torch.zeros(tokens).index_add_(0, again.indices()[0], again.values() ** 2)
        logits_noise.append(squares - 2 * apart + drawn)
        hidden.append(live_hidden - torch.sparse.mm(again, setting.embedding))
    means = [probs - half / (repetitions / 2) for half in halves]
    of_hidden = torch.stack(hidden)
    hidden_means = [of_hidden[first::2].mean(0) for first in (0, 1)]
    kl, loss = setting.kl, torch.stack(losses)
    of_turns = loss.mean(1)
    size_logits, size_hidden = _sizes(setting)
    logits_bias = _cross(means[0], means[1], size_logits)
    hidden_bias = _cross(hidden_means[0], hidden_means[1], size_hidden)
    return Errors(
        float(of_turns.mean() / kl.mean() - 1),
        float(of_turns.std() / math.sqrt(repetitions) / kl.mean()),
        float(loss.var(0).mean().sqrt() / kl.mean()),
        *logits_bias,
        _share(torch.stack(logits_noise).mean(), size_logits),
        *hidden_bias,
        _share((of_hidden**2).sum(-1).mean(), size_hidden),
    )


def _sizes(setting: Setting) -> tuple[Tensor, Tensor]:
    """Mean squared lengths of the live gradients by logits and by hidden states."""
    gradient = setting.student.exp() - setting.teacher.exp()
    return (gradient**2).sum(-1).mean(), ((gradient @ setting.embedding) ** 2).sum(-1).mean()


def _share(squared: Tensor, size: Tensor) -> float:
    return float((squared.clamp_min(0) / size).sqrt())


def _cross(one: Tensor, two: Tensor, size: Tensor) -> tuple[float, float]:
    """Size of the bias, free of the noise, and its standard error over the tokens.

    Of independent halves, so that the square is right on average; it may be negative by chance.
    """
    products = (one * two).sum(-1) / size
    square = max(0.0, float(products.mean()))
    above = square + float(products.std()) / math.sqrt(len(products))
    return math.sqrt(square), math.sqrt(above) - math.sqrt(square)


def fixed_errors(setting: Setting, loss: Tensor, target: Tensor) -> Errors:
    """Errors of a form without chance: `loss` [tokens], and `target` in place of p in q - p."""
    kl, off = setting.kl, setting.teacher.exp() - target
    size_logits, size_hidden = _sizes(setting)
    squares = (off**2).sum(-1).mean(), ((off @ setting.embedding) ** 2).sum(-1).mean()
    bias = float(loss.mean() / kl.mean() - 1)
    logits, hidden = _share(squares[0], size_logits), _share(squares[1], size_hidden)
    return Errors(bias, 0.0, 0.0, logits, 0.0, 0.0, hidden, 0.0, 0.0)


def full_errors(setting: Setting) -> Errors:
    stored = rounded(setting.teacher).log_softmax(-1)
    return fixed_errors(setting, (stored.exp() * (stored - setting.student)).sum(-1), stored.exp())


def topk_errors(setting: Setting, topk: int, bucket: bool) -> Errors:
    """The k likeliest with all others in one bucket, or cut off and scaled to sum to one."""
    values, ids = setting.teacher.topk(topk, -1)
    rest = 1 - values.exp().sum(-1, keepdim=True).clamp_max(1)
    kept = rounded(values).exp()
    kept = kept / (kept.sum(-1, keepdim=True) + (rest if bucket else 0))
    if not bucket:
        student = setting.student.gather(-1, ids)
        target = torch.zeros_like(setting.teacher).scatter_(-1, ids, kept)
        return fixed_errors(setting, (kept * (kept.log() - student)).sum(-1), target)
    others = setting.student.exp().scatter_(-1, ids, 0.0)
    share = rest / others.sum(-1, keepdim=True).clamp_min(1e-30)
    return fixed_errors(setting, topk_loss(setting, topk), (others * share).scatter_(-1, ids, kept))


def topk_loss(setting: Setting, topk: int) -> Tensor:
    """Forward KL [tokens] from the k likeliest and the bucket, as `distill` computes it."""
    values, ids = setting.teacher.topk(topk, -1)
    rest = 1 - values.exp().sum(-1).clamp_max(1)
    total = (rounded(values).exp().sum(-1) + rest).log()
    target = TargetBatch(ids, rounded(values) - total.unsqueeze(-1), rest / total.exp())
    losses, _ = token_losses(setting.student, target)
    return losses


class Table(nn.Module):
    """A teacher that costs nothing: the logits of a token are a row of a table."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows, requires_grad=False)

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.rows[input_ids])


def speeds(setting: Setting, form: TargetFormat, folder: Path, rounds: int = 3) -> dict[str, float]:
    """Bytes per token, and tokens per second to write, read and check."""
    count = max(2, 2**25 // setting.vocabulary // BLOCK)
    blocks = np.resize(np.arange(len(setting.teacher)), (count, BLOCK))
    writing, checking, reading = [], [], []
    for turn in range(rounds):
        start = time.perf_counter()
        targets = write_targets(Table(setting.teacher), blocks, form, folder / str(turn))
        writing.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert targets.holds(len(blocks))
        checking.append(time.perf_counter() - start)
        targets = Targets(targets.directory)
        targets.batch(np.arange(1), torch.device("cpu"))
        start = time.perf_counter()
        for first in range(0, len(blocks) - 1, 2):
            targets.batch(np.arange(first, first + 2), torch.device("cpu"))
        reading.append((time.perf_counter() - start) / (len(blocks) // 2 * 2) * len(blocks))
    size = sum(np.load(file, mmap_mode="r").nbytes for file in (folder / "0").rglob("*.npy"))
    rates = {"write": writing, "read": reading, "check": checking}
    return {
        "bytes_per_token": size / blocks.size,
        **{name: blocks.size / statistics.median(times) for name, times in rates.items()},
    }


def measure(setting: Setting, repetitions: int) -> Iterator[dict[str, Any]]:
    vocabulary = setting.vocabulary
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        form = TargetFormat.whole(vocabulary)
        yield _row(setting, "full", full_errors(setting), speeds(setting, form, folder / "full"))
        for topk in TOPK:
            form = TargetFormat(vocabulary, topk)
            cost = speeds(setting, form, folder / f"topk{topk}")
            yield _row(setting, f"top {topk} + rest", topk_errors(setting, topk, True), cost)
            yield _row(setting, f"top {topk} alone", topk_errors(setting, topk, False), {})
        for draws in DRAWS:
            form = TargetFormat.sampled(vocabulary, draws)
            cost = speeds(setting, form, folder / f"sampled{draws}")
            errors = sampled_errors(setting, systematic, draws, repetitions)
            yield _row(setting, f"sampled {draws}", errors, cost)
        errors = sampled_errors(setting, independent, 50, repetitions)
        yield _row(setting, "50 independent", errors, {})


def _row(setting: Setting, name: str, errors: Errors, cost: dict[str, float]) -> dict[str, Any]:
    values = {key: round(value, 5) for key, value in vars(errors).items()}
    costs = {key: round(value, 1) for key, value in cost.items()}
    return {"vocabulary": setting.vocabulary, "form": name, **costs, **values}


def evaluation_errors(setting: Setting) -> Iterator[dict[str, Any]]:
    """Of the KL that an evaluation reports: over all positions, and where entropy is highest."""
    probs, kl = setting.teacher.exp(), setting.kl
    entropy = -(probs * setting.teacher).sum(-1)
    undecided = entropy >= entropy.quantile(0.9)
    for topk in EVALUATION_TOPK:
        loss = topk_loss(setting, topk)
        yield _evaluation_row(setting, f"top {topk} + rest", loss, kl, undecided, topk)
    draws = EVALUATION_DRAWS
    rows, ids, share = systematic(setting, draws, 0)
    terms = share * (rounded(setting.teacher[rows, ids]) - setting.student[rows, ids])
    loss = torch.zeros(len(kl)).index_add_(0, rows, terms)
    entries = len(rows) / len(kl)
    yield _evaluation_row(setting, f"sampled {draws}", loss, kl, undecided, entries)


def _evaluation_row(
    setting: Setting, name: str, loss: Tensor, kl: Tensor, undecided: Tensor, entries: float
) -> dict[str, Any]:
    def bias(chosen: Tensor) -> float:
        return round(float(loss[chosen].mean() / kl[chosen].mean() - 1), 5)

    return {
        "vocabulary": setting.vocabulary,
        "form": name,
        "entries": round(entries, 1),
        "kl_bias": bias(kl >= 0),
        "kl_bias_where_undecided": bias(undecided),
        "kl_error_of_a_position": round(float(((loss - kl) ** 2).mean().sqrt() / kl.mean()), 5),
    }


def show_evaluation(row: dict[str, Any]) -> None:
    share = {key: f"{100 * value:.2f} %" for key, value in row.items() if key.startswith("kl")}
    print(
        f"{row['form']:<15}{row['entries']:>9,.0f} entries, KL off by {share['kl_bias']}, by "
        f"{share['kl_bias_where_undecided']} in the least certain tenth of the positions, by "
        f"{share['kl_error_of_a_position']} of the mean at one",
        flush=True,
    )


def show(row: dict[str, Any]) -> None:
    cost = "".join(f"{row[key]:>11,.0f}" if key in row else " " * 11 for key in COSTS)
    errors = "".join(
        f"  {100 * row[f'{part}_bias']:>7.2f} ±{100 * row[f'{part}_bias_error']:<5.2f}"
        f"{100 * row[f'{part}_noise']:>7.1f}"
        for part in ("loss", "logits", "hidden")
    )
    print(f"{row['form']:<15}{cost}{errors}", flush=True)


COSTS = ("bytes_per_token", "write", "read", "check")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=32, help="draws of each token")
    parser.add_argument("--vocabularies", type=int, nargs="*", default=VOCABULARIES)
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    torch.manual_seed(0)
    demo = demo_setting(options.tokens)
    rows, evaluations = [], []
    for vocabulary in (demo.vocabulary, *options.vocabularies):
        setting = demo if vocabulary == demo.vocabulary else stretched(demo, vocabulary)
        kind = "real text" if setting is demo else "no trained model: stretched from the demo's"
        print(
            f"\nvocabulary {vocabulary:,} ({setting.name}; {kind}), {options.tokens} tokens, "
            f"entropy {setting.entropy:.2f}, KL {float(setting.kl.mean()):.3f} nats per token"
        )
        print(
            f"{'':15}{'bytes':>11}{'write':>11}{'read':>11}{'check':>11}"
            + "".join(f"  {part + ' bias, noise %':>22}" for part in ("loss", "logits", "hidden"))
        )
        for row in measure(setting, options.repetitions):
            show(row)
            rows.append(row)
        if vocabulary > max(EVALUATION_TOPK):
            print("to evaluate on:")
            for row in evaluation_errors(setting):
                show_evaluation(row)
                evaluations.append(row)
    result = {
        "benchmark": "targets",
        "tokens": options.tokens,
        "repetitions": options.repetitions,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "evaluation": evaluations,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
