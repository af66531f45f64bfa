"""The teacher as the user names it: found, checked, with its tokenizer."""

import math
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distill.student_run import load
from pruning import FAMILIES, Checkpoint, architecture_of, family_of, parameter_count
from pruning.rows import TENSOR_TYPES
from search.errors import SearchError
from search.workspace import fingerprint_files

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
BESIDE = (
    "added_tokens.json",
    "*.tiktoken",
    "tekken.json",
    "chat_template.json",
    "additional_chat_templates/*",
)
"""More files of tokenizers, which no tokenizer's fingerprint has ever had in it."""
LICENCES = ("LICENSE*", "LICENCE*", "license*", "NOTICE*", "USE_POLICY*", "COPYING*")
CARD = "README.md"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


@dataclass(frozen=True)
class Teacher:
    """A checked directory with a causal LM and, if it is to teach, its tokenizer."""

    directory: Path

    @classmethod
    def open(cls, name: str, prunable: bool = True) -> "Teacher":
        """Raises SearchError or PruningError where `name` cannot serve as a teacher.

        Looks at configuration and tokenizer only; `check` reads the weights. Any causal LM will do
        where it need not be `prunable`.
        """
        teacher = cls.located(name, prunable)
        config = teacher.config
        size = teacher.tokenizer.vocab_size  # without tokens of other modalities that were added
        if max(size, (teacher.tokenizer.eos_token_id or 0) + 1) > config.vocab_size:
            raise SearchError(
                f"the tokenizer of {name} has {size} tokens, the model only {config.vocab_size}; "
                "they do not belong together"
            )
        return teacher

    @classmethod
    def located(cls, name: str, prunable: bool = False, what: str = "teacher") -> "Teacher":
        """The causal LM called `name`, which may have no tokenizer.

        Raises SearchError, or PruningError where it shall be `prunable` and is not.
        """
        model = cls(_located(name, what))
        config = model.config
        if prunable:
            family_of(config)
        kinds: list[str] = getattr(config, "architectures", None) or []
        wanted = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
        if wanted is None:
            raise SearchError(
                f"{name} is of type {config.model_type}, which transformers knows no causal "
                "language model of; give a causal language model"
            )
        if kinds and wanted not in kinds:
            raise SearchError(
                f"{name} is a {kinds[0]}, not a causal language model; give a model whose "
                f"config.json names a {wanted}"
            )
        return model

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.directory)

    @property
    def config(self) -> Any:
        return self.checkpoint.config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            return AutoTokenizer.from_pretrained(self.directory)
        except Exception as problem:  # tokenizers raises plain Exception for a broken file
            raise SearchError(
                f"{self.directory} has no tokenizer that can be loaded; save the teacher's beside "
                "its weights, with tokenizer.save_pretrained"
            ) from problem

    @property
    def known(self) -> bool:
        """Whether its type has a row in the table of families."""
        return self.config.model_type in FAMILIES

    def check(self) -> None:
        """Raises PruningError for weights that are not those that the configuration promises.

        Of a type that is not in the table, only that they can be read.
        """
        if self.known:
            self.checkpoint.check()
        else:
            self._stored()

    @cached_property
    def parameters(self) -> int:
        if self.known:
            return int(parameter_count(self.config, architecture_of(self.config)))
        return sum(math.prod(shape) for shape, _ in self._stored())

    def _stored(self) -> list[tuple[list[int], str]]:
        """(shape, type) of every tensor on disk."""
        found = []
        for file, names in self.checkpoint.files().items():
            with safe_open(file, framework="pt") as source:
                slices = [source.get_slice(name) for name in names]
                found += [(part.get_shape(), part.get_dtype()) for part in slices]
        return found

    @cached_property
    def positions(self) -> int:
        """Longest sequence that the model takes."""
        return int(getattr(self.config, "max_position_embeddings", 1024))

    def weights_fingerprint(self) -> str:
        return self._fingerprint_of(WEIGHTS)

    def tokenizer_fingerprint(self) -> str:
        return self._fingerprint_of(TOKENIZER_FILES)

    @cache  # noqa: B019 - a study has one teacher
    def _fingerprint_of(self, patterns: tuple[str, ...]) -> str:
        found = {f for pattern in patterns for f in self.directory.glob(pattern) if f.is_file()}
        return fingerprint_files(list(found))

    def load(self, device: torch.device) -> PreTrainedModel:
        """The model in fp32, for evaluation."""
        model: PreTrainedModel = load(self.directory, torch.float32).to(device)
        return model

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights on disk, in which students are written too."""
        return TENSOR_TYPES.get(self._stored()[0][1], torch.float32)


def _located(name: str, what: str) -> Path:
    if not name:
        raise SearchError(f"--{what} is empty; give a model's folder or Hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise SearchError(
                f"the {what} {name} has no config.json; give a folder that save_pretrained wrote"
            )
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
        raise SearchError(
            f"the {what} {name} does not exist or is no folder; give a model's folder or Hub id"
        )
    try:
        patterns = [*WEIGHTS, *TOKENIZER_FILES, *BESIDE, *LICENCES, CARD, "generation_config.json"]
        ignored = ["consolidated*"]  # the same weights again, in another layout
        found = snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored)
        return Path(found)
    except Exception as problem:  # the hub client raises many unrelated types
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise SearchError(
            f"the {what} {name} is neither a folder nor a model that can be downloaded from the "
            f"Hugging Face Hub{offline}"
        ) from problem
