"""Model sources: a model as the user names it, located, checked, with its tokenizer."""

import logging
import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common.errors import PruningError, SearchError, reason_of
from common.fingerprint import fingerprint_files
from common.progress import tell
from distill.backend import load
from distill.loss import with_fast_products
from pruning import FAMILIES, Checkpoint, architecture_of, parameter_count
from pruning.families import check_cuttable, opened, quiet
from pruning.importance import input_device
from pruning.multimodal import PROCESSOR, TextPart, is_multimodal
from workspace.layout import Workspace
from workspace.models.locating import described, has_weights, located
from workspace.models.text_model import place_text_model, text_part_of
from workspace.models.tokenizer import open_tokenizer

LOGGER = logging.getLogger(__name__)
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
GENERATION = "generation_config.json"
DOWNLOADED = (*WEIGHTS, *TOKENIZER_FILES, *BESIDE, *LICENCES, CARD, GENERATION, PROCESSOR)
"""What is wanted of a model on the Hub."""
ASKED = 32
"""Tokens of the first question: of fewer, some kernels hide what is not finite."""
SHORT_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class ModelSource:
    """A directory with a causal LM and, if it is to teach, its tokenizer."""

    directory: Path
    """Its folder, on this machine."""
    part: TextPart | None = field(default=None, compare=False, repr=False)
    """Where the user named a multimodal model, its text model, which this is."""

    @classmethod
    def open(cls, name: str, *, prunable: bool = True) -> "ModelSource":
        """Raises SearchError or PruningError where `name` cannot serve as a teacher.

        Looks at configuration and tokenizer only; `check` reads the weights. Any causal LM will do
        where it need not be `prunable`.
        """
        teacher = cls.located(name, prunable=prunable)
        config = teacher.config
        size = teacher.tokenizer.vocab_size  # without tokens of other modalities that were added
        if max(size, (teacher.tokenizer.eos_token_id or 0) + 1) > config.vocab_size:
            raise SearchError(
                f"the tokenizer of {name} has {size} tokens, the model only {config.vocab_size}; "
                "they do not belong together"
            )
        return teacher

    @classmethod
    def located(cls, name: str, *, prunable: bool = False, role: str = "teacher") -> "ModelSource":
        """The causal LM called `name`, which may have no tokenizer.

        `role` is the option that names it. Raises SearchError, or PruningError where it shall be
        `prunable` and is not.
        """
        tell(LOGGER, work=f"look at the {role}")
        directory = located(name, role=role, patterns=DOWNLOADED)
        return cls._checked(directory, name, prunable=prunable, role=role)

    @classmethod
    def described(
        cls, name: str, *, prunable: bool = False, role: str = "teacher"
    ) -> "ModelSource":
        """The same by its config.json alone, to plan with: its weights and tokenizer need not be
        there, and nothing is downloaded."""
        return cls._checked(described(name, role=role), name, prunable=prunable, role=role)

    @classmethod
    def _checked(cls, directory: Path, name: str, *, prunable: bool, role: str) -> "ModelSource":
        model = cls(directory)
        if is_multimodal(model.config):
            model = cls(model.directory, text_part_of(model.directory, name, role=role))
        config = model.config
        if prunable:
            check_cuttable(config)
        kinds: list[str] = getattr(config, "architectures", None) or []
        wanted = _class_name(config)
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
        _check_config(config, name)
        return model

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its configuration and tensors, read when they are asked for."""
        if self.part is not None and self.part.folder == self.directory:
            return self.part.checkpoint
        return Checkpoint(self.directory)

    def placed(self, workspace: Workspace) -> "ModelSource":
        """Where transformers loads it from: of a multimodal model, the text model in a folder of
        its own in the workspace, written now or before. Raises SearchError or PruningError where
        it cannot be written."""
        if self.part is None:
            return self
        workspace.make()
        directory = workspace.text_model(self.weights_fingerprint())
        beside = (*TOKENIZER_FILES, *BESIDE, *LICENCES, CARD, GENERATION)
        return ModelSource(place_text_model(self.part, directory, beside), self.part)

    @property
    def config(self) -> Any:
        """Its configuration, as transformers has it."""
        return self.checkpoint.config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Raises SearchError where there is none that can be loaded."""
        return open_tokenizer(self.directory, TOKENIZER_FILES)

    @property
    def has_weights(self) -> bool:
        """Whether its weights are there."""
        return has_weights(self.directory)

    @property
    def known(self) -> bool:
        """Whether its type has a row in the table of families."""
        return self.config.model_type in FAMILIES

    def check(self) -> None:
        """Raises PruningError for weights that are not those that the configuration promises.

        Of a type that is not in the table, that transformers finds all of them.
        """
        if self.known:
            try:
                self.checkpoint.check()
            except PruningError as problem:
                if self.part is None:
                    raise
                # The copy may be gone when this is read; the user's folder has what is wrong.
                text = str(problem).replace(str(self.directory), str(self.part.folder))
                raise PruningError(f"of the text model, {text}") from problem
            return
        missing = self.checkpoint.loading.missing
        if missing:
            raise PruningError(f"{self.directory} lacks the tensor {missing[0]}; copy it again")

    @property
    def left_aside(self) -> tuple[str, ...]:
        """Tensors of its files that the model does not have."""
        checkpoint = self.checkpoint
        return checkpoint.left_aside if self.known else checkpoint.loading.left_aside

    @cached_property
    def parameters(self) -> int:
        """How many it has."""
        if self.known or not self.has_weights:
            return int(parameter_count(self.config, architecture_of(self.config)))
        total = 0
        for file, names in self.checkpoint.files().items():
            with opened(file) as source:
                total += sum(math.prod(source.get_slice(name).get_shape()) for name in names)
        return total

    @cached_property
    def positions(self) -> int:
        """Longest sequence that the model takes."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is None:
            return 1024
        if not isinstance(positions, int) or positions < 1:
            raise SearchError(
                f"config.json of {self.directory} says max_position_embeddings {positions!r}; it "
                "must be a number above 0"
            )
        return positions

    def weights_fingerprint(self) -> str:
        """Of the content of weights and configuration."""
        return self._fingerprint_of(WEIGHTS)

    def tokenizer_fingerprint(self) -> str:
        """Of the content of the tokenizer's files."""
        return self._fingerprint_of(TOKENIZER_FILES)

    @cache  # noqa: B019 - a command opens a handful of models, which live as long as it does
    def _fingerprint_of(self, patterns: tuple[str, ...]) -> str:
        files = {f for pattern in patterns for f in self.directory.glob(pattern) if f.is_file()}
        return fingerprint_files(list(files))

    @property
    def dtype(self) -> torch.dtype:
        """Type of most of the weights' bytes on disk, in which students are written too; without
        them the one that config.json names."""
        if self.has_weights:
            return self.checkpoint.dtype
        named = getattr(self.config, "dtype", None)
        return named if isinstance(named, torch.dtype) else torch.float32

    def dtype_in(self, precision: str) -> torch.dtype:
        """Type that the model computes in: of its "file" (fp64 as fp32), or "fp32"."""
        own = self.dtype
        return torch.float32 if precision == "fp32" or own == torch.float64 else own

    def precision_part(self, precision: str) -> dict[str, str]:
        """What a study's fingerprint says of it: nothing for fp32, as it ever was."""
        name = SHORT_NAMES[self.dtype_in(precision)]
        return {} if name == "fp32" else {"teacher_precision": name}

    def load(
        self, device: torch.device, dtype: torch.dtype = torch.float32, **placement: Any
    ) -> PreTrainedModel:
        """The model, for evaluation; with a `placement` for transformers instead on `device`.

        It has answered once. Raises SearchError, with the library's reason, where it cannot be
        loaded or cannot answer, and where its head is not what its configuration says.
        """
        try:
            with quiet():
                loaded: Any = load(self.directory, dtype, **placement)
            model: PreTrainedModel = loaded if placement else with_fast_products(loaded.to(device))
            self._ask(model)
        except SearchError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as problem:
            raise SearchError(
                f"the model of {self.directory} does not fit the memory of {device} in "
                f"{SHORT_NAMES[dtype]}: {reason_of(problem)}"
            ) from problem
        except Exception as problem:  # torch and transformers raise whatever comes up
            raise SearchError(
                f"the model of {self.directory} cannot be used: {reason_of(problem)}; mend its "
                "files"
            ) from problem
        return model

    def _ask(self, model: Any) -> None:
        """One short question, so that what is wrong shows before anything is computed."""
        if model.config.tie_word_embeddings and not _one_embedding(model):
            raise SearchError(
                f"{self.directory} has an output head of its own that differs from the embedding, "
                "but config.json ties them; set tie_word_embeddings to false there if the head is "
                "meant, or take the tensor out"
            )
        length = min(ASKED, self.positions)
        ids = torch.arange(length).remainder(self.config.vocab_size)[None]
        with torch.no_grad():
            answer = model(input_ids=ids.to(input_device(model)), use_cache=False).logits
        if not torch.isfinite(answer).all():
            kind = SHORT_NAMES[model.dtype]
            wider = "" if kind == "fp32" else ", or give --teacher_precision fp32"
            raise SearchError(
                f"the model of {self.directory} answers with values that are not finite in {kind}; "
                f"mend its weights or its config.json{wider}"
            )


def _class_name(config: Any) -> str | None:
    """Name of the class of a causal LM with this configuration, of a type that has one."""
    if getattr(config, "blocks", ()):  # a per-layer student's, which is no stock class
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        return str(model_class.__name__)
    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)


def _one_embedding(model: Any) -> bool:
    """Whether the output head is the embedding, as far as that is in memory."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is embedding.weight:
        return True
    if head.weight.is_meta or embedding.weight.is_meta:
        return True
    return torch.equal(head.weight, embedding.weight.to(head.weight.device))


def _check_config(config: Any, name: str) -> None:
    """Raises SearchError for a configuration that no model can be built of or used with."""
    if getattr(config, "quantization_config", None):
        raise SearchError(
            f"{name} is quantised; dequantise it and save it in bf16 or fp32 first "
            "(model.dequantize() and save_pretrained in transformers)"
        )
    size, padding = config.vocab_size, getattr(config, "pad_token_id", None)
    if size < 1:
        raise SearchError(f"config.json of {name} says vocab_size {size}; it must be at least 1")
    if isinstance(padding, int) and not -size <= padding < size:
        raise SearchError(
            f"config.json of {name} says pad_token_id {padding}, beyond the model's {size:,} "
            "tokens, and transformers cannot build it so; set it to null"
        )
    _check_attention(config, name)


def _check_attention(config: Any, name: str) -> None:
    """Raises SearchError where attention would be computed without the cap of its logits.

    transformers 5.17 runs Gemma 2 and VaultGemma by torch's fused attention, which has no cap, and
    says nothing; 5.23 does not.
    """
    if getattr(config, "attn_logit_softcapping", None) is None:
        return
    if getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "_supports_sdpa", False):
        raise SearchError(
            f"transformers {transformers.__version__} leaves attn_logit_softcapping of {name} out "
            "of its attention, so that it would be another model; install transformers 5.23 or "
            "newer"
        )
