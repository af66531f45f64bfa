"""What a BOS before every document is worth to a teacher that was trained with it.

    python experiments/benchmarks/bos/measure.py       # after train_teacher.py, with its --work

Holds `--corpus_from.bos never` against `auto`: the teacher's own cross-entropy; the KL of a student
of half its size, cut and distilled with one or the other; each on the test split, and there on the
first tokens of documents alone. Students are always scored on text with BOS, as they will be used.
Only what both ways predict is counted: neither the BOS nor the first token of a block.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from common.intervals import Interval, difference_interval, mean_interval
from distill import Corpus, Distillation, SplitSizes, Targets, evaluate
from distill.backend import load
from distill.data import AUTO, NEVER, CorpusFiles, CorpusFrom
from distill.evaluation import text_loss
from distill.train import TrainingSettings
from experiments.benchmarks.bos.train_teacher import CORPUS, MODEL
from experiments.benchmarks.preparing import prepared, study_config, uniform_shrink
from search.inputs import Inputs
from search.workers import SearchAssets
from workspace.sorted_teacher import SortedTeacher

EVERYWHERE, NEAR = "all tokens", "first 16 tokens of a document"
FIRST_TOKENS = 16
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class MeasuredText:
    """The test blocks with their BOS and without, and what is predicted in both."""

    blocks: dict[str, NDArray[Any]]
    """[blocks, block], by `bos`; without the BOS a block is filled up at its end."""
    weights: dict[str, dict[str, Bools]]
    """[blocks, block], by where (all, or near) and `bos`: which predictions count."""

    @classmethod
    def of(cls, blocks: NDArray[Any], bos: int, filling: int) -> "MeasuredText":
        without = np.full_like(blocks, filling)
        weights = {
            where: {name: np.zeros(blocks.shape, np.bool_) for name in (AUTO, NEVER)}
            for where in (EVERYWHERE, NEAR)
        }
        for row, block in enumerate(blocks):
            kept = np.flatnonzero(block != bos)
            without[row, : len(kept)] = block[kept]
            # the first token of a block is predicted from nothing
            near = _since(block, bos)[kept[1:]] <= FIRST_TOKENS
            for where, chosen in ((EVERYWHERE, np.ones_like(near)), (NEAR, near)):
                weights[where][AUTO][row, kept[1:] - 1] = chosen
                weights[where][NEVER][row, np.arange(len(kept) - 1)] = chosen
        return cls({AUTO: blocks, NEVER: without}, weights)

    def counting(self, where: str) -> NDArray[np.intp]:
        """The blocks in which anything counts."""
        return np.flatnonzero(self.weights[where][AUTO].any(1))


def _since(block: NDArray[Any], bos: int) -> NDArray[np.int64]:
    """How many tokens ago the last BOS of the block was; many where there is none."""
    at = np.arange(len(block))
    last = np.maximum.accumulate(np.where(block == bos, at, -len(block)))
    return at - last


def prepared_with(options: argparse.Namespace, bos: str) -> tuple[Inputs, SearchAssets]:
    """What a search would compute before its first trial."""
    config = study_config(
        options,
        options.work / bos,
        teacher=str(options.work / MODEL),
        corpus=str(options.work / CORPUS),
        corpus_files=CorpusFiles(),
        corpus_from=CorpusFrom(bos=bos),
        training=TrainingSettings(batch=options.batch),
        calibration=options.calibration,
        splits=SplitSizes(selection_tokens=4_096, test_tokens=options.test_tokens),
    )
    inputs = Inputs.read(config)
    return inputs, prepared(inputs, config.workspace)


def distilled(student: Any, assets: SearchAssets, tokens: int, seed: int) -> Any:
    data = replace(assets.training_data(), shuffle=seed)
    run = Distillation(student, data, training=assets.training, tokens=tokens)
    run.advance(run.total_steps)
    return student


def scores(student: Any, text: MeasuredText, targets: Targets) -> dict[str, NDArray[np.float64]]:
    """KL to the teacher by where, nats per token [blocks]; both read the BOS."""
    found = {}
    for where in (EVERYWHERE, NEAR):
        kl = evaluate(
            student, text.blocks[AUTO], targets=targets, weights=text.weights[where][AUTO]
        ).kl
        found[where] = kl[text.counting(where)]  # that of the others is a mean of nothing
    return found


def teacher_losses(options: argparse.Namespace, text: MeasuredText) -> list[dict[str, Any]]:
    teacher = load(options.work / MODEL, torch.float32)
    rows = []
    for where in (EVERYWHERE, NEAR):
        chosen = text.counting(where)
        never, auto = (
            text_loss(teacher, text.blocks[bos][chosen], weights=text.weights[where][bos][chosen])
            for bos in (NEVER, AUTO)
        )
        rows.append(compared("teacher's own cross-entropy", where, [never], [auto]))
    return rows


def compared(
    what: str, where: str, never: list[NDArray[np.float64]], auto: list[NDArray[np.float64]]
) -> dict[str, Any]:
    return {
        "what": what,
        "where": where,
        NEVER: mean_interval(never).mean,
        AUTO: mean_interval(auto).mean,
        "difference": difference_interval(never, auto),
    }


def student_scores(
    options: argparse.Namespace, assets: dict[str, SearchAssets], shape: Any, text: MeasuredText
) -> list[dict[str, Any]]:
    targets = Targets(assets[AUTO].test_targets)
    cut: dict[str, dict[str, NDArray[np.float64]]] = {}
    after: dict[str, list[dict[str, NDArray[np.float64]]]] = {NEVER: [], AUTO: []}
    for bos, own in assets.items():
        cut[bos] = scores(SortedTeacher(own.sorted_teacher).cut(shape), text, targets)
        for seed in range(options.seeds):
            student = SortedTeacher(own.sorted_teacher).cut(shape)
            after[bos].append(scores(distilled(student, own, options.tokens, seed), text, targets))
            print(f"{bos} seed {seed}: KL {after[bos][-1][EVERYWHERE].mean():.4f}", flush=True)
    rows = []
    for where in (EVERYWHERE, NEAR):
        rows.append(compared("KL of the cut", where, [cut[NEVER][where]], [cut[AUTO][where]]))
        runs = ([run[where] for run in after[bos]] for bos in (NEVER, AUTO))
        rows.append(compared("KL after distillation", where, *runs))
    return rows


def shown(row: dict[str, Any]) -> str:
    difference: Interval = row["difference"]
    return (
        f"| {row['what']}, {row['where']} | {row[NEVER]:.4f} | {row[AUTO]:.4f} | "
        f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/bos"), help="of train_teacher.py")
    parser.add_argument("--seeds", type=int, default=3, help="distillations of each kind")
    parser.add_argument("--tokens", type=int, default=131_072, help="of every distillation")
    parser.add_argument("--test_tokens", type=int, default=65_536)
    parser.add_argument("--calibration", type=int, default=256, help="sequences")
    parser.add_argument("--batch", type=int, default=4, help="sequences per step")
    options = parser.parse_args()
    disable_progress_bar()
    found = {bos: prepared_with(options, bos) for bos in (NEVER, AUTO)}
    inputs, assets = found[AUTO][0], {bos: own for bos, (_, own) in found.items()}
    tokenizer = inputs.teacher.tokenizer
    blocks = np.asarray(Corpus(assets[AUTO].corpus).blocks("test"))
    text = MeasuredText.of(blocks, tokenizer.bos_token_id, tokenizer.eos_token_id)
    shape = uniform_shrink(inputs)
    rows = teacher_losses(options, text) + student_scores(options, assets, shape, text)
    share = float((blocks == tokenizer.bos_token_id).mean())
    print(
        f"\n{len(blocks)} test blocks of {blocks.shape[1]} tokens, {share:.2%} of them BOS; {shape}"
    )
    print("| | `never` | `auto` | `never` - `auto` |\n|---|---|---|---|")
    print("\n".join(shown(row) for row in rows))
    plain = [row | {"difference": row["difference"].to_dict()} for row in rows]
    print(json.dumps({"benchmark": "bos", "bos_share": share, "rows": plain}))


if __name__ == "__main__":
    main()
