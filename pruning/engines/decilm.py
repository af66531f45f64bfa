"""Engines that read DeciLM, and so a per-layer student's copy in that form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from pruning.engines.programs import LLAMA_CPP, MLX, SGLANG, VLLM
from pruning.engines.spec import READ, RUN
from pruning.exports.decilm import decilm_layers, why_no_decilm
from pruning.exports.padding import PaddedLayer
from pruning.families.architecture import Architecture
from pruning.families.table import head_dim_of

LLAMA_3_VOCABULARY = 128_256
"""Tokens by which llama.cpp's converter knows Llama 3's tokenizer in a DeciLM."""

Find = Callable[[PretrainedConfig, Sequence[PaddedLayer]], str]
"""(configuration of the student, layers of the copy) -> a sentence; empty where all is well."""


@dataclass(frozen=True)
class DeciLMReader:
    """Demands of an engine on a DeciLM, beyond those that every copy meets."""

    known: str
    """RUN or READ."""
    source: str
    """File of the engine."""
    refuses: Find = lambda config, layers: ""
    """Why it does not take the copy."""
    cautions: Find = lambda config, layers: ""
    """What to know although it does."""


def _channels_follow(config: PretrainedConfig, layers: Sequence[PaddedLayer]) -> str:
    """Why not, of engines that read no `head_dim`."""
    heads = max(layer.target.heads for layer in layers)
    if heads * head_dim_of(config) == config.hidden_size:
        return ""
    return (
        f"it takes hidden size / query heads for the channels of a head, which are "
        f"{head_dim_of(config)} and not {config.hidden_size} / {heads}"
    )


def _own_biases(config: PretrainedConfig, layers: Sequence[PaddedLayer]) -> str:
    return "it has no biases of query, key and value alone" if config.model_type == "qwen2" else ""


def _equal_groups(config: PretrainedConfig, layers: Sequence[PaddedLayer]) -> str:
    if getattr(config, "mlp_bias", False):
        return "it has no biases in the FFN"
    if len({layer.target.kv_heads for layer in layers if layer.target.has_attention}) > 1:
        return "it wants as many KV groups in all layers that attend"
    return _own_biases(config, layers)


def _known_tokenizer(config: PretrainedConfig, layers: Sequence[PaddedLayer]) -> str:
    if config.vocab_size == LLAMA_3_VOCABULARY:
        return ""
    return (
        "its converter takes this form only with a tokenizer of Llama 2's kind (BPE with byte "
        f"fallback), or Llama 3's with {LLAMA_3_VOCABULARY:,} tokens"
    )


def _foreign_code(config: PretrainedConfig, layers: Sequence[PaddedLayer]) -> str:
    return "with --trust-remote-code, for the configuration class"


DECILM_READERS = {
    VLLM: DeciLMReader(
        READ,
        "vllm/model_executor/models/nemotron_nas.py",
        cautions=_foreign_code,
    ),
    SGLANG: DeciLMReader(
        READ,
        "sglang/srt/models/nemotron_nas.py, configs/model_config.py",
        refuses=_equal_groups,
        cautions=_foreign_code,
    ),
    LLAMA_CPP: DeciLMReader(
        RUN,
        "conversion/deci.py, src/models/deci.cpp",
        refuses=_channels_follow,
        cautions=_known_tokenizer,
    ),
    MLX: DeciLMReader(
        RUN,
        "mlx_lm/models/nemotron-nas.py",
        refuses=lambda config, layers: (
            _channels_follow(config, layers) or _own_biases(config, layers)
        ),
    ),
}
"""Engine -> how it reads a DeciLM. Other engines read none."""


def why_not_as_decilm(engine: str, config: PretrainedConfig, architecture: Architecture) -> str:
    """Why an engine does not take a student's copy as DeciLM; empty where it does.

    Args:
        engine: Its name.
        config: Of the student or of its teacher.
        architecture: Of the student.
    """
    if engine not in DECILM_READERS:
        return "it reads no DeciLM"
    reason = why_no_decilm(config, architecture)
    return reason or DECILM_READERS[engine].refuses(config, decilm_layers(config, architecture))


def decilm_caution(engine: str, config: PretrainedConfig, architecture: Architecture) -> str:
    """What to know of an engine that takes a student's copy as DeciLM; empty where nothing."""
    return DECILM_READERS[engine].cautions(config, decilm_layers(config, architecture))
