"""Classes of per-layer students: subclasses of the stock configuration and model of a type.

In memory they are of the stock model type, so that all of transformers that asks for it, such as
for the names of tensors in files, works as ever. On disk they have a type of their own: what does
not know it refuses the folder, where it would misread the stock type.
"""

from functools import cache
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
)
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from common.errors import PruningError
from pruning.families.block import Block
from pruning.families.shapes import architecture_of
from pruning.families.table import FAMILIES, family_of
from pruning.per_layer.block_configs import block_configs, blocks_of
from pruning.per_layer.layers import build_layer
from pruning.per_layer.registration import PREFIX, class_name

OF_FILES = ("model_type", "base_model_type")
"""Keys of config.json that the classes know already."""


def per_layer_config(values: dict[str, Any], blocks: tuple[Block, ...]) -> PretrainedConfig:
    """The configuration of a student with these layers; `values` are those of a stock one."""
    config_class = config_class_of(values["model_type"])
    told = block_configs(blocks, values.get("sliding_window"))
    config: PretrainedConfig = config_class.from_dict(values | {"block_configs": told})
    return config


@cache
def config_class_of(model_type: str) -> Any:
    """The configuration class of per-layer students of a stock type; its model is registered.

    Raises PruningError for a type of which there are no such students.
    """
    if model_type not in FAMILIES:
        raise PruningError(
            f"the model type is {PREFIX}{model_type}, but students of type {model_type} do not "
            "differ in their layers"
        )
    stock: Any = CONFIG_MAPPING[model_type]
    name = class_name(model_type, "Config")
    config_class: Any = strict(type(name, (_Config, stock), {"__module__": __name__}))
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[stock]
    members = {"__module__": __name__, "config_class": config_class}
    model_class = type(f"Espalier{model.__name__}", (_Model, model), members)
    AutoModelForCausalLM.register(config_class, model_class)
    renamed = get_checkpoint_conversion_mapping(model.__name__)
    if renamed is not None:  # names in files that are the stock class's own, not those of its type
        register_checkpoint_conversion_mapping(model_class.__name__, renamed)
    return config_class


class _Config:
    """What the configuration of a per-layer student has beyond the stock one: `blocks`."""

    blocks: tuple[Block, ...]

    def __post_init__(self, block_configs: Any = (), **values: Any) -> None:
        self.blocks = blocks_of(block_configs)
        for name in OF_FILES:
            values.pop(name, None)
        super().__post_init__(**values)  # type: ignore[misc]
        layers = self.num_hidden_layers  # type: ignore[attr-defined]
        if self.blocks and len(self.blocks) != layers:
            raise PruningError(
                f"config.json has {len(self.blocks)} block_configs for {layers} layers; there must "
                "be one for each"
            )

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it."""
        values: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        if not values.pop("blocks"):
            return values
        told = block_configs(self.blocks, values.get("sliding_window"))
        stock = values["model_type"]
        own = {"model_type": PREFIX + stock, "base_model_type": stock, "block_configs": told}
        return values | own

    def __reduce__(self) -> Any:
        stock: str = self.model_type  # type: ignore[attr-defined]
        return _restored, (stock, self.__dict__)


def _restored(model_type: str, state: dict[str, Any]) -> Any:
    """A configuration from another process, or a copy."""
    config_class = config_class_of(model_type)
    config = config_class.__new__(config_class)
    config.__dict__.update(state)
    return config


class _Model:
    """A stock causal LM, whose layers have the sizes of `config.blocks`."""

    def __init__(self, config: Any):
        # The stock layers, all alike, are not even built.
        depth, config.num_hidden_layers = config.num_hidden_layers, 0
        try:
            super().__init__(config)  # type: ignore[call-arg]
        finally:
            config.num_hidden_layers = depth
        whole = architecture_of(config)
        layers = self.get_submodule(family_of(config).layers_module)  # type: ignore[attr-defined]
        layers.extend(build_layer(config, whole.block(index), index) for index in range(depth))
        self.post_init()  # type: ignore[attr-defined]

    @classmethod
    def is_custom_code(cls) -> bool:
        """Not for transformers, which converts the names in files for its own classes only."""
        return False
