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

from distill import Distillation
from experiments.benchmarks.demo_setting import TEACHER
from experiments.benchmarks.distill.kd_setting import twin

INSTALLED = find_spec("trl") is not None
MISSING = (
    "TRL's GKDTrainer is left out, since trl is not installed; to have it: pip install trl==1.16.0"
)


class Rounds(TrainerCallback):
    """Wall time per optimiser step of each of `count` rounds, of all that the trainer's loop does.

    `drain` waits for what the device has yet to do; `between` is called after each round.
    """

    def __init__(
        self, steps: int, count: int, *, drain: Callable[[], None], between: Callable[[], None]
    ):
        self.steps, self.count, self.drain, self.between = steps, count, drain, between
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
    run: Distillation, teacher: Any, *, blocks: NDArray[np.int32], scratch: Path, rounds: Rounds
) -> list[float]:
    """Seconds per optimiser step in each of the `rounds`, on the student and with the optimiser and
    settings of `run`.

    All tokens of `blocks` [blocks, sequence] count, and nothing is logged, saved or evaluated.
    """
    settings_type, trainer_type = load()
    training, steps = run.training, rounds.steps * rounds.count
    needed = np.resize(blocks, (training.batch * steps, blocks.shape[1]))
    rate = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda _: 1.0)
    trainer = trainer_type(
        model=twin(run.student),  # its `forward` is changed
        teacher_model=twin(teacher),
        args=settings_type(
            output_dir=str(scratch),
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            per_device_train_batch_size=training.forward_batch,
            gradient_accumulation_steps=training.batch // training.forward_batch,
            max_steps=steps,
            bf16=training.precision == "bf16",
            use_cpu=run.device.type == "cpu",
            gradient_checkpointing=training.gradient_checkpointing,
            max_grad_norm=training.clip_norm,
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
        callbacks=[rounds],
        optimizers=(run.optimizer, rate),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return rounds.spent


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
