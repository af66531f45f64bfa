"""Engines: the programs that serve models, and the model types that each takes."""

from pruning.engines.spec import READ, RUN, Engine

TRANSFORMERS_4, VLLM, SGLANG = "transformers4", "vllm", "sglang"
LLAMA_CPP, CTRANSLATE2, MLX = "llama.cpp", "ctranslate2", "mlx"
TRIED = frozenset(
    {
        *("llama", "mistral", "nemotron", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3"),
        *("olmo2", "granite", "smollm3", "gpt2", "gpt_neox", "mixtral", "qwen3_moe"),
    }
)
"""The model types that all engines were tried with, or read for."""
ALSO_TRANSFORMERS_4 = frozenset(
    {
        *("arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "glm", "glm4"),
        *("helium", "hunyuan_v1_dense", "ministral", "olmo", "olmo3", "persimmon", "phi"),
        *("seed_oss", "stablelm", "starcoder2", "vaultgemma"),
    }
)
"""Those that transformers 4 was tried with besides."""

_CONVERTED = frozenset(
    {
        *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"),
        *("gpt2", "gpt_neox"),
    }
)

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(TRANSFORMERS_4, "transformers 4.57.6", RUN, TRIED | ALSO_TRANSFORMERS_4),
        Engine(VLLM, "vLLM 0.33.0", READ, TRIED),
        Engine(
            SGLANG,
            "SGLang 0.5.23",
            READ,
            TRIED - {"phi3", "nemotron", "smollm3", "gpt_neox"},
            TRIED & {"phi3", "nemotron", "smollm3", "gpt_neox"},
            "it has no class for them, and its fallback to transformers was not tried",
        ),
        Engine(LLAMA_CPP, "llama.cpp of llama-cpp-python 0.3.36", RUN, TRIED),
        Engine(
            CTRANSLATE2,
            "CTranslate2 4.8.5",
            RUN,
            _CONVERTED,
            TRIED - _CONVERTED,
            "its converter fails on them or there is none",
        ),
        Engine(
            MLX,
            "mlx-lm 0.32.2",
            RUN,
            TRIED - {"gpt2"},
            frozenset({"gpt2"}),
            "it looks for tensor names without transformer., as transformers does not write them",
        ),
    )
}
