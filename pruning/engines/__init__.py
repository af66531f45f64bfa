"""Inference engines: which architectures each of them takes and computes rightly."""

from pruning.engines.decilm import why_not_as_decilm
from pruning.engines.programs import CTRANSLATE2, ENGINES, LLAMA_CPP, MLX, TRANSFORMERS_4
from pruning.engines.rules import RULES
from pruning.engines.spec import COMPUTING, LOADING, QUANTISING, WINDOWS
from pruning.engines.verdicts import decilm_verdicts, rules_of

__all__ = [
    "COMPUTING",
    "CTRANSLATE2",
    "ENGINES",
    "LLAMA_CPP",
    "LOADING",
    "MLX",
    "QUANTISING",
    "RULES",
    "TRANSFORMERS_4",
    "WINDOWS",
    "decilm_verdicts",
    "rules_of",
    "why_not_as_decilm",
]
