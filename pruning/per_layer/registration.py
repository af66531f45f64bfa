"""Registration of the types of per-layer students with the Auto classes of transformers.

It takes part in `import pruning`, and imports nothing before a configuration is read.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

PREFIX = "espalier_"
"""Before the stock model type, in config.json."""


def register(transformers: ModuleType) -> None:
    """Have the Auto classes of transformers know the types of per-layer students.

    The classes themselves, and the modules of transformers that they need, come when they are asked
    for.
    """
    auto = import_module(f"{transformers.__name__}.models.auto.configuration_auto")
    for model_type in list(auto.CONFIG_MAPPING_NAMES):
        reader: Any = type(class_name(model_type, "Reader"), (_Reader,), {"base": model_type})
        auto.AutoConfig.register(PREFIX + model_type, reader, exist_ok=True)


def class_name(model_type: str, what: str) -> str:
    """Name of a class for students of a stock type."""
    return f"Espalier{model_type.title().replace('_', '')}{what}"


class _Reader:
    """Stand-in for a configuration class that is made when a configuration is read."""

    base = ""

    def __new__(cls, **values: Any) -> Any:
        return cls._made()(**values)

    @classmethod
    def from_dict(cls, values: dict[str, Any], **options: Any) -> Any:
        return cls._made().from_dict(values, **options)

    @classmethod
    def _made(cls) -> Any:
        return import_module("pruning.per_layer.classes").config_class_of(cls.base)
