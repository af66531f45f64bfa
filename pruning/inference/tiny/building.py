"""Tiny models of a type: the shapes of their tensors, on disk and in memory, and random ones."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.initialization import no_init_weights

from common.errors import PruningError
from pruning.families.loading import quiet
from pruning.inference.tiny.precision import Float64

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BuiltShapes:
    """Shapes of all tensors of a model."""

    stored: Mapping[str, Shape]
    """As `save_pretrained` writes them; of tied tensors the first."""
    loaded: Mapping[str, Shape]
    """As the model has them in memory."""


def class_of(config: PretrainedConfig) -> Any:
    """The class of the causal LM. Raises PruningError where transformers has none."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise PruningError(f"transformers has no causal LM of the type {config.model_type}")
    return model_class[0] if isinstance(model_class, (tuple, list)) else model_class


def shapes_of(config: PretrainedConfig) -> BuiltShapes:
    """Of the model that transformers builds of `config`, without its values."""
    with torch.device("meta"), no_init_weights(), quiet():
        model = class_of(config)(config)
    model.tie_weights()
    return BuiltShapes(
        {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()},
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
    )


def stored_tensors(model: Any, *, only: Collection[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a model by the names that its checkpoints have, tied ones once; of all or of
    `only` some, by the names in memory."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    own = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name not in tied and (only is None or name in only)
    }
    stored: dict[str, Tensor] = dict(revert_weight_conversion(model, own))
    return stored


def random_model(config: PretrainedConfig, seed: int = 0) -> Any:
    """A model in float64 whose every tensor is random, so that no error hides behind ones and
    zeros; norms about one."""
    with quiet(), Float64():
        model = class_of(config)._from_config(config, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.25, generator=generator)
                if tensor.ndim == 1 and not name.endswith("bias"):
                    tensor.add_(1)
    return model


def loaded_from(config: PretrainedConfig, tensors: Mapping[str, Tensor]) -> Any:
    """The float64 model that transformers loads of these tensors of a checkpoint.

    Raises PruningError where they do not fit it.
    """
    with quiet(), Float64():
        model, report = class_of(config).from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=torch.float64,
            output_loading_info=True,
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            raise PruningError(f"{kind.replace('_', ' ')} {min(map(str, report[kind]))}")
    result: PreTrainedModel = model.eval()
    return result
