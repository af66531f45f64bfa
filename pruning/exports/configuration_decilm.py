"""Configuration of a model whose layers differ, as DeciLM's readers look for it.

Software that serves DeciLM but has no configuration class for it (vLLM) loads this file where it
is told to trust the code beside the weights. It holds no model.
"""

from typing import Any

from transformers import LlamaConfig


class Words(dict[str, Any]):
    """Part of a configuration whose keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as missing:
            raise AttributeError(name) from missing


class DeciLMConfig(LlamaConfig):
    """Llama's configuration, and the sizes of each layer."""

    model_type = "nemotron-nas"

    def __init__(self, block_configs: list[dict[str, Any]] | None = None, **values: Any) -> None:
        self.block_configs = [
            Words({name: Words(part) for name, part in block.items()})
            for block in block_configs or []
        ]
        super().__init__(**values)
