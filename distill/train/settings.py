"""Training settings: those that a user may set, and defaults derived from tokens and sizes."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from common.errors import DistillError
from distill.backend.names import PRECISIONS
from distill.loss.names import CROSS_ENTROPY, FORWARD_KL, LOSSES
from distill.targets.names import DRAWS, KINDS, MOST_DRAWS, SAMPLED, TRAINING_TOPK

if TYPE_CHECKING:
    from distill.loss.divergences import DistillationLoss

MINIMUM_STEPS = 400
SWEPT_PARAMETERS = 1.65e6
SWEPT_RATE = 1.6e-3
"""The best peak rate measured at `SWEPT_PARAMETERS`."""
COSINE, WSD = "cosine", "wsd"
SCHEDULES = (COSINE, WSD)
ADAMW, ADAMW_8BIT = "adamw", "adamw-8bit"
OPTIMIZERS = (ADAMW, ADAMW_8BIT)
LIVE = "live"
"""In place of a kind of targets: the teacher runs beside the student."""
SOURCES = ("auto", *KINDS, LIVE)
TEMPERATURES = (0.001, 1000.0)
"""Beyond them a softmax is the likeliest token alone or nothing at all, and its loss overflows."""
FREE_SETTINGS = ("micro_batch", "gradient_checkpointing", "compile")
"""Settings that may change while a run goes on: they save memory or time."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a student learns. The same settings serve short and full runs."""

    learning_rate: float | None = None
    """Peak learning rate; by default it follows the student's size (see `default_rate`)."""
    batch: int | None = None
    """Sequences per optimiser step; by default what gives a full run 400 steps, at most 64."""
    micro_batch: int | None = None
    """Sequences per forward pass, whose gradients are added up to a batch; by default a batch."""
    schedule: str = COSINE
    """cosine, or wsd (warm up, stay, decay over the last decay_share of the steps)."""
    warmup_share: float = 0.05
    """Share of the steps that the learning rate takes to rise."""
    warmup_steps: int | None = None
    """Steps that it takes, instead of a share."""
    decay_share: float = 0.2
    """Share of the steps that a wsd schedule takes to fall."""
    final_rate_share: float = 0.05
    """The learning rate at the end, as a share of the peak."""
    optimizer: str = ADAMW
    """adamw, or adamw-8bit (moments in 8 bits; needs bitsandbytes and one worker per run)."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    average: float | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.99, which is what
    is evaluated and written then."""
    loss: str = FORWARD_KL
    """forward-kl, reverse-kl, jensen-shannon, mse (of logits), or ce (the text alone)."""
    temperature: float = 1.0
    """Softmax temperature of teacher and student in the loss."""
    lm_weight: float = 0.0
    """Weight of the next-token cross-entropy that is added to the loss."""
    targets: str = "auto"
    """What is stored of the teacher's distribution: sampled (draws, for forward-kl), topk (and the
    rest as one bucket), full, live (nothing: the teacher runs beside the student), or auto: sampled
    where it will do, as much of it as fits."""
    draws: int = DRAWS
    """Draws per training token of sampled targets."""
    topk: int = TRAINING_TOPK
    """Entries per training token of topk targets."""
    precision: str = "auto"
    """bf16, tf32, fp32, or auto: bf16 where the hardware multiplies it."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, which saves their memory."""
    compile: bool = False
    """Compile the student's layers and the loss with torch.compile: some seconds at the start of a
    run, then faster steps, by a third for a 1B student on an H100."""

    def __post_init__(self) -> None:
        for name in ("clip_norm", "topk", "draws", "learning_rate", "batch", "micro_batch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DistillError(f"{name} is {value}; it must be above zero")
        for name in ("warmup_share", "final_rate_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DistillError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("weight_decay", "lm_weight", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise DistillError(f"{name} is {value}; it must not be negative")
        low, high = TEMPERATURES
        if not low <= self.temperature <= high:
            raise DistillError(
                f"temperature is {self.temperature}; it must be from {low:g} to {high:g}"
            )
        if self.draws > MOST_DRAWS:
            raise DistillError(f"draws is {self.draws}; it must be from 1 to {MOST_DRAWS:,}")
        if self.average is not None and not 0 < self.average < 1:
            raise DistillError(f"average is {self.average}; it must be in (0, 1)")
        for name, known in (
            ("precision", PRECISIONS),
            ("schedule", SCHEDULES),
            ("optimizer", OPTIMIZERS),
            ("loss", LOSSES),
            ("targets", SOURCES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise DistillError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if self.targets == SAMPLED and self.loss not in (FORWARD_KL, CROSS_ENTROPY):
            raise DistillError(
                f"loss is {self.loss!r}, which sampled targets cannot estimate; use forward-kl, or "
                "targets topk, full or live"
            )

    @property
    def distillation_loss(self) -> "DistillationLoss":
        """The loss that these settings ask for."""
        from distill.loss.divergences import DistillationLoss

        return DistillationLoss(self.loss, self.temperature, self.lm_weight)

    def resolved(
        self,
        full_tokens: int,
        block: int,
        *,
        precision: str,
        known_batch: int | None = None,
        workers: int = 1,
    ) -> "ResolvedTraining":
        """The settings that a run computes with, in which nothing is left open.

        Args:
            full_tokens: Training tokens of a full run, which the default batch follows.
            block: Tokens of a sequence.
            precision: What `resolve_precision` gives for these settings and the device.
            known_batch: The batch that the run or its study began with, where it goes on.
            workers: Processes that share a batch; the default batch is one that they share evenly.
        """
        batch = self.batch if self.batch is not None else known_batch
        if batch is None:
            batch = -(-default_batch(full_tokens, block) // workers) * workers
        given = {field.name: getattr(self, field.name) for field in fields(TrainingSettings)}
        return ResolvedTraining(**{**given, "batch": batch, "precision": precision})


@dataclass(frozen=True, kw_only=True)
class ResolvedTraining(TrainingSettings):
    """Settings that a run computes with: made by `TrainingSettings.resolved`.

    Its fields are those of the settings, in their order, since `dataclasses.asdict` of it is what
    fingerprints and result files hold. The peak learning rate may still be None in them: it follows
    the student's size, and the students of a search differ in that (see `peak_rate`).
    """

    batch: int
    """Sequences per optimiser step."""
    precision: str
    """bf16, tf32 or fp32."""

    def peak_rate(self, parameters: int) -> float:
        """Peak learning rate for a student of so many parameters."""
        return self.learning_rate or default_rate(parameters)

    @property
    def forward_batch(self) -> int:
        """Sequences of a forward pass, at most."""
        return min(self.micro_batch or self.batch, self.batch)

    @property
    def smaller(self) -> list[str]:
        """What takes less memory, as advice: only what is not at its least already."""
        size = self.forward_batch
        advice = [f"lower --training.micro_batch ({size} now)"] if size > 1 else []
        if not self.gradient_checkpointing:
            advice.append("set --training.gradient_checkpointing")
        return advice

    def longer_or_fewer(self, option: str, tokens: int, block: int) -> str:
        """How a run of `option` tokens gets more optimiser steps, of at least `tokens` in all."""
        raised = f"raise {option} to {tokens:,} or more"
        return (
            f"{raised}, or lower --training.batch ({self.batch} now)"
            if self.batch > 1
            else (f"{raised}, or lower --block ({block} now)")
        )


def default_batch(full_tokens: int, block: int) -> int:
    """Sequences per step that leave a full run at least 400 optimiser steps, at most 64."""
    return max(1, min(64, full_tokens // (block * MINIMUM_STEPS)))


def default_rate(parameters: int) -> float:
    """Peak learning rate for a student of so many parameters.

    Two power laws that meet at the larger size of the sweep in
    `experiments/benchmarks/distill/learning_rate.py`: below it through the best rate of the
    smaller size, above it to the 1e-4 that Minitron (arXiv 2407.14679) uses at 4B parameters.
    """
    exponent = 0.9 if parameters < SWEPT_PARAMETERS else 0.36
    rate: float = SWEPT_RATE * (parameters / SWEPT_PARAMETERS) ** -exponent
    return min(4e-3, rate)
