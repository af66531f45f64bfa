"""TRL's trainer for distillation from a live teacher (GKD, arXiv 2306.13649), doing the same job.

With lmbda 0 it learns from the given text alone and generates nothing; with beta 0 its divergence
is KL(teacher || student), the forward KL, over the whole vocabulary. Not a dependency of the
project: `pip install trl==1.16.0`.
"""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

from experiments.benchmarks.demo_setting import TEACHER

INSTALLED = find_spec("trl") is not None
MISSING = (
    "TRL's GKDTrainer is left out, since trl is not installed; to have it: pip install trl==1.16.0"
)


class _Rounds(TrainerCallback):
    """Wall time per optimiser step of every `steps` steps, of all that the trainer's loop does."""

    def __init__(self, steps: int, drain: Callable[[], None], between: Callable[[], None]):
        self.steps, self.drain, self.between = steps, drain, between
        self.spent: list[float] = []
        self.start = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps == 0:
            self.drain()
            self.spent.append((time.perf_counter() - self.start) / self.steps)
            self.between()
            self._restart()

    def _restart(self) -> None:
        self.drain()
        self.start = time.perf_counter()


def load() -> tuple[Any, Any]:
    """GKDConfig and GKDTrainer, without the notice that they may change."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    return GKDConfig, GKDTrainer


def train(
    student: Any,
    teacher: Any,
    blocks: NDArray[np.int32],
    optimizer: torch.optim.Optimizer,
    precision: str,
    scratch: Path,
    *,
    batch: int,
    steps: int,
    rounds: int,
    gradient_checkpointing: bool,
    clip_norm: float,
    drain: Callable[[], None],
    between: Callable[[], None],
) -> list[float]:
    """Seconds per optimiser step in each of `rounds` rounds; `between` is called after each.

    All tokens of `blocks` [blocks, sequence] count, and nothing is logged, saved or evaluated. The
    trainer changes the `forward` of both models.
    """
    settings_type, trainer_type = load()
    callback = _Rounds(steps, drain, between)
    needed = np.resize(blocks, (batch * steps * rounds, blocks.shape[1]))
    trainer = trainer_type(
        model=student,
        teacher_model=teacher,
        args=settings_type(
            output_dir=str(scratch),
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            per_device_train_batch_size=batch,
            max_steps=steps * rounds,
            bf16=precision == "bf16",
            use_cpu=next(student.parameters()).device.type == "cpu",
            gradient_checkpointing=gradient_checkpointing,
            max_grad_norm=clip_norm,
            max_length=None,
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=_collate,
        train_dataset=Dataset.from_dict({"input_ids": needed.tolist()}),
        processing_class=AutoTokenizer.from_pretrained(TEACHER),
        callbacks=[callback],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return callback.spent


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
