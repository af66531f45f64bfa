"""Contenders: the models that are held side by side, located and checked."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import EspalierError, SearchError
from distill.data import beginning_of
from experiments.evaluation.config import EvaluateConfig
from pruning import architecture_of
from workspace.layout import Workspace
from workspace.models import ModelSource


@dataclass(frozen=True)
class Contender:
    """One model, as the user named it."""

    name: str
    """As it was given."""
    label: str
    """The end of it that no other model's name has."""
    source: ModelSource
    """Where it lies."""
    precision: str
    """What it is held and computes in: "file" or "fp32"."""
    bos: str
    """How texts begin (see `CorpusFrom`)."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its own."""
        return self.source.tokenizer

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """Tokens before a text: what it begins with, or else the end of the text before."""
        found = beginning_of(self.tokenizer, self.bos)
        end = self.tokenizer.eos_token_id
        return found or (() if end is None else (int(end),))

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.source.dtype_in(self.precision)

    @cached_property
    def key(self) -> list[str]:
        """What its figures depend on; content, never paths."""
        source = self.source
        return [source.weights_fingerprint(), source.tokenizer_fingerprint(), str(self.dtype)]

    @property
    def shape(self) -> str:
        """Its architecture in short, or its type where it is not in the table of types."""
        config = self.source.config
        return str(architecture_of(config)) if self.source.known else str(config.model_type)

    def same_tokens(self, other: "Contender") -> bool:
        """Whether both read a text as the same tokens."""
        return (
            self.tokenizer.get_vocab() == other.tokenizer.get_vocab()
            and self.beginning == other.beginning
        )

    def load(self, device: torch.device) -> PreTrainedModel:
        """The model. Raises SearchError where it cannot be loaded or does not answer."""
        try:
            return self.source.load(device, self.dtype)
        except SearchError as problem:
            said = str(problem).replace("--teacher_precision", "--precision")
            raise SearchError(f"{self.name}: {said}") from problem


def opened(config: EvaluateConfig, workspace: Workspace) -> list[Contender]:
    """The models, the one that others are compared with first; weights are checked, none loaded.

    Raises SearchError or PruningError where one cannot be used.
    """
    names = config.names
    labels = _labels(names)
    return [_opened(name, labels[name], config, workspace=workspace) for name in names]


def _opened(name: str, label: str, config: EvaluateConfig, *, workspace: Workspace) -> Contender:
    role = "reference" if name not in config.models else "models"
    try:
        source = ModelSource.located(name, role=role).placed(workspace)
        source.check()
        contender = Contender(name, label, source, config.precision, config.corpus_from.bos)
        size = contender.tokenizer.vocab_size
    except EspalierError as problem:
        text = str(problem)
        raise type(problem)(text if name in text else f"--{role} {name}: {text}") from problem
    if size > source.config.vocab_size:
        raise SearchError(
            f"the tokenizer of {name} has {size} tokens, the model only "
            f"{source.config.vocab_size}; they do not belong together"
        )
    return contender


def _labels(names: list[str]) -> dict[str, str]:
    """The shortest end of each name that is no number and tells it from the others; a Hub id as it
    is."""
    parts = {name: _parts(name) for name in names}
    labels: dict[str, str] = {}
    for name, own in parts.items():
        others = [other for key, other in parts.items() if key != name]
        for count in range(1, len(own) + 1):
            end = own[-count:]
            if not end[0].isdigit() and not any(other[-count:] == end for other in others):
                break
        labels[name] = "/".join(end)
    return labels


def _parts(name: str) -> tuple[str, ...]:
    path = Path(name).expanduser()
    return path.resolve().parts if path.exists() else (name,)


def common_positions(contenders: list[Contender]) -> int:
    """Longest sequence that all take."""
    return min(contender.source.positions for contender in contenders)


def facts(contender: Contender) -> dict[str, Any]:
    """What is known of it before anything is measured."""
    source = contender.source
    return {
        "name": contender.name,
        "label": contender.label,
        "type": source.config.model_type,
        "architecture": contender.shape,
        "parameters": source.parameters,
        "dtype": str(contender.dtype).removeprefix("torch."),
        "positions": source.positions,
    }
