"""Disjoint samples of calibration text: scores by the beginnings of each, and how they agree."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from functools import cache, cached_property
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor

from common.files import append_rows, read_rows
from common.progress import Progress
from distill.data import Corpus
from experiments.benchmarks.pruning.prune_quality import Setting, model_of
from pruning import Architecture, Checkpoint, Importance, Ordering, Scoring, architecture_of
from pruning.importance import LayerMix, Moments, added, importance_of, moments_of
from workspace.importance import LAYERS, NORMS, SUMS, WIDTH, CalibrationPasses
from workspace.sorting import ENERGY_SEQUENCES

LEFT_OUT, INFLUENCE = "kl", "block-influence"
"""The scores of layers: with each left out, and by the residual stream."""


@dataclass(frozen=True)
class Samples:
    """Disjoint samples of calibration text, and what was measured on their beginnings."""

    setting: Setting
    """Teacher and corpus."""
    folder: Path
    """Where the sums are kept."""
    sizes: tuple[int, ...]
    """Numbers of sequences, all of them multiples of the smallest."""
    count: int
    """Number of samples."""
    left_out: int
    """Sequences that layers are left out on, at most."""

    @cached_property
    def teacher(self) -> Checkpoint:
        """What is cut."""
        return Checkpoint(self.setting.teacher)

    @property
    def whole(self) -> Architecture:
        """The teacher's."""
        return architecture_of(self.teacher.config)

    def pieces(self) -> Iterator[tuple[str, int, int]]:
        """(kind of pass, sample, first sequence) of every piece that the sums are made of."""
        for kind, most in self.most.items():
            for sample in range(self.count):
                yield from ((kind, sample, first) for first in range(0, most, self.sizes[0]))

    @property
    def most(self) -> dict[str, int]:
        """Kind of pass -> sequences of a sample that are read."""
        largest = self.sizes[-1]
        few = max(self.sizes[0], min(largest, ENERGY_SEQUENCES))
        return {WIDTH: largest, LAYERS: min(largest, self.left_out), NORMS: few}

    def measure(self, processes: int) -> None:
        """Measure what is missing in so many processes of a thread each, and record its seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [piece for piece in self.pieces() if not self._folder(*piece).exists()]
        progress, told = Progress(len(missing)), time.monotonic()
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            waiting = [pool.submit(self.write, *piece) for piece in missing]
            for number, finished in enumerate(as_completed(waiting), start=1):
                if finished.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                append_rows(self.times, [finished.result()])
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    left = progress.left(number) / 60
                    print(f"[{number} of {len(missing)} passes, {left:.0f} min left]", flush=True)

    def write(self, kind: str, sample: int, first: int) -> dict[str, Any]:
        """Write the sums of a piece; returns the row of its time."""
        torch.set_num_threads(1)
        model = _loaded(self.setting.teacher)
        begin = sample * self.sizes[-1] + first
        blocks = self._blocks()[begin : begin + self.sizes[0]]
        start = time.perf_counter()
        passes = CalibrationPasses(kind, blocks, Scoring(layer_score=LEFT_OUT))
        passes.write(model, self._folder(kind, sample, first))
        seconds = time.perf_counter() - start
        return {"kind": kind, "sequences": len(blocks), "seconds": seconds}

    @property
    def times(self) -> Path:
        """File of the seconds of each piece."""
        return self.folder / "seconds.jsonl"

    def seconds(self, kind: str, sequences: int) -> float:
        """Of passes of a kind over so many sequences, by the mean of all pieces."""
        own = [row for row in read_rows(self.times) if row["kind"] == kind]
        each = sum(row["seconds"] for row in own) / sum(row["sequences"] for row in own)
        return float(each * min(sequences, self.most[kind]))

    def importance(self, sample: int, sequences: int, *, layers: str = LEFT_OUT) -> Importance:
        """By the first sequences of a sample; with layers left out on no more than `left_out`."""
        sums = self._sums(WIDTH, sample, sequences) | self._sums(LAYERS, sample, sequences)
        scoring = Scoring(layer_score=layers)
        return importance_of(sums, self.teacher.config, scoring=scoring, weights=self.teacher)

    def ordering(self, sample: int, sequences: int) -> Ordering:
        """By the first sequences of a sample."""
        importance, mix = self.importance(sample, sequences), LayerMix.of(self.teacher.config)
        return Ordering.from_importance(importance, self.whole, mix=mix)

    def moments(self, sample: int, sequences: int) -> Moments:
        """On the first sequences of a sample, no more than a search takes."""
        return moments_of(self._sums(NORMS, sample, sequences))

    def _sums(self, kind: str, sample: int, sequences: int) -> dict[str, torch.Tensor]:
        ends = range(0, min(sequences, self.most[kind]), self.sizes[0])
        return added(load_file(self._folder(kind, sample, first) / SUMS) for first in ends)

    def _folder(self, kind: str, sample: int, first: int) -> Path:
        return self.folder / f"{kind}-{sample}-{first}-{self.sizes[0]}"

    def _blocks(self) -> NDArray[Any]:
        """All samples, one after the other: drawn from the whole training text."""
        train = Corpus(self.setting.assets.corpus).blocks("train")
        wanted = self.count * self.sizes[-1]
        if len(train) < wanted:
            raise SystemExit(
                f"{self.count} disjoint samples of {self.sizes[-1]:,} sequences take {wanted:,}, "
                f"and the text has {len(train):,}; lower --seeds, --calibration or --block"
            )
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:wanted]
        blocks: NDArray[Any] = train[chosen.numpy()]
        return blocks


@cache
def _loaded(teacher: Path) -> Any:
    """The model, once in a process."""
    return model_of(Checkpoint(teacher))


@dataclass(frozen=True)
class Agreement:
    """How alike two samples rank the parts of a teacher."""

    correlation: float
    """Spearman's, the mean over layers for what each layer ranks for itself."""
    overlap: float
    """The part of a half that both keep; half of it by chance."""

    @classmethod
    def of(cls, one: Tensor, other: Tensor) -> "Agreement | None":
        """Of scores [..., units]; None of an axis that the model has not, or that it does not sort.

        A layer without such parts has equal scores, and does not count.
        """
        if one.shape[-1] < 2:
            return None
        pairs = zip(one.flatten(0, -2), other.flatten(0, -2), strict=True)
        found = [cls._of_layer(a, b) for a, b in pairs if a.min() < a.max() and b.min() < b.max()]
        return cls.mean(found) if found else None

    @classmethod
    def mean(cls, several: list["Agreement"]) -> "Agreement":
        """Of some agreements."""
        return cls(
            sum(each.correlation for each in several) / len(several),
            sum(each.overlap for each in several) / len(several),
        )

    @classmethod
    def _of_layer(cls, one: Tensor, other: Tensor) -> "Agreement":
        half = len(one) // 2
        kept = [set(scores.topk(half).indices.tolist()) for scores in (one, other)]
        correlation = spearmanr(one.numpy(), other.numpy()).statistic
        return cls(float(correlation), len(kept[0] & kept[1]) / half)


def scores_of(samples: Samples, sample: int, sequences: int) -> dict[str, Tensor]:
    """The scores [rows, units] of what is sorted, by name; layers have two."""
    importance = samples.importance(sample, sequences)
    names = [part.name for part in fields(importance) if part.name not in ("layers", "spans")]
    scores = {name: torch.atleast_2d(getattr(importance, name)) for name in names}
    influence = samples.importance(sample, sequences, layers=INFLUENCE).layers
    scores[f"layers, {INFLUENCE}"] = influence[None]
    scores[f"layers, {LEFT_OUT}"] = importance.layers[None]
    return scores


def agreements(samples: Samples) -> dict[str, dict[int, tuple[Agreement, Agreement]]]:
    """By part and number of sequences: with equally many of another sample, and with the most that
    were measured of another sample; the mean over all pairs."""
    scores = {
        (sample, size): scores_of(samples, sample, size)
        for sample in range(samples.count)
        for size in samples.sizes
    }
    pairs = list(permutations(range(samples.count), 2))
    found: dict[str, dict[int, tuple[Agreement, Agreement]]] = {}
    for size in samples.sizes:
        for part in scores[0, size]:
            if part == f"layers, {LEFT_OUT}" and size > samples.left_out:
                continue
            means = []
            for against in (size, samples.sizes[-1]):
                each = [
                    Agreement.of(scores[one, size][part], scores[other, against][part])
                    for one, other in pairs
                ]
                there = [agreement for agreement in each if agreement is not None]
                means += [Agreement.mean(there)] if there else []
            if means:
                found.setdefault(part, {})[size] = (means[0], means[1])
    return found
