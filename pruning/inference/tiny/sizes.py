"""Sizes of a configuration: the fields that hold them, and tiny configurations of the same type.

The names are those that the types of transformers use; whether a field does what its name says is
seen by what changes with it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.loading import quiet

NAMES: Mapping[str, tuple[str, ...]] = {
    "vocab": ("vocab_size",),
    "positions": (
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "max_sequence_length",
    ),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "n_embed", "dim"),
    "heads": (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "decoder_attention_heads",
        "num_heads",
    ),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim"),
    "ffn": (
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "d_ff",
        "ffn_hidden_size",
        "decoder_ffn_dim",
        "inner_dim",
        "dim_ff",
    ),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "expert_ffn": ("moe_intermediate_size", "expert_ffn_hidden_size", "expert_dim"),
    "shared_ffn": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    ),
}
"""Axis -> names of the field that holds its size, the first that a configuration has."""

TINY: Mapping[str, int] = {
    "vocab": 96,
    "positions": 64,
    "layers": 4,
    "hidden": 48,
    "heads": 8,
    "kv_heads": 4,
    "head_dim": 8,
    "ffn": 40,
    "experts": 4,
    "expert_ffn": 24,
    "shared_ffn": 56,
}
"""Sizes of the tiny models that a type is understood and proven on."""
SMALLER: Mapping[str, int] = {
    "num_experts_per_tok": 2,
    "top_k_experts": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "rotary_dim": 4,
    "sliding_window": 5,
    "attention_window_size": 5,
    "word_embed_proj_dim": 20,
    "embedding_size": 20,
    "embed_dim": 20,
    "mamba_n_heads": 12,
    "mamba_d_head": 8,
    "mamba_d_ssm": 96,
    "mamba_d_state": 6,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 8,
    "state_size": 6,
    "ssm_state_size": 6,
    "linear_num_value_heads": 6,
    "linear_num_key_heads": 3,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "hidden_size_per_layer_input": 6,
    "vocab_size_per_layer_input": 96,
}
"""Fields that are at most so large in a tiny model, where they are at all."""
FEWER: Mapping[str, int] = {
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "num_kv_shared_layers": 1,
}
"""The same of fields that count layers."""
FOLLOWING = ("word_embed_proj_dim", "embedding_size", "embed_dim")
"""Fields that stand for the hidden size too, where they have its value."""
FREE, DERIVED, WRITTEN = "free", "derived", "written"
HEAD_DIMS = (FREE, DERIVED, WRITTEN)
"""Where the channels of a head come from: a value of the configuration that may be any, what its
class makes of the others, or a value that must be hidden size / heads."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class SizeFields:
    """The fields of a configuration that hold sizes."""

    names: Mapping[str, str]
    """Axis -> field, as `to_dict` has it."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "SizeFields":
        """Those of `config`. Raises PruningError where it has none for layers, hidden or vocab."""
        known, mapped = config.to_dict(), dict(type(config).attribute_map)
        names: dict[str, str] = {}
        for axis, candidates in NAMES.items():
            for name in (mapped.get(candidate, candidate) for candidate in candidates):
                if name in known and not isinstance(known[name], (list, dict)):
                    names[axis] = name
                    break
        for axis in ("layers", "hidden", "vocab"):
            if axis not in names:
                raise PruningError(
                    f"its configuration has no field for {axis} by any of the names that are "
                    f"known ({', '.join(NAMES[axis])})"
                )
        return cls(names)

    def __getitem__(self, axis: str) -> str:
        return self.names[axis]

    def __contains__(self, axis: str) -> bool:
        return axis in self.names


@dataclass(frozen=True)
class TinyType:
    """A type of model with tiny sizes, and all else as in the configuration it is of."""

    like: PretrainedConfig
    """The configuration."""
    fields: SizeFields
    """Where its sizes are."""
    sizes: Mapping[str, int]
    """By axis, those of the axes that have a field; and `head_dim` where it is free."""
    head_dim: str
    """Where the channels of a head come from, of `HEAD_DIMS`."""

    @classmethod
    def of(cls, config: PretrainedConfig, *, grouped: bool, head_dim: str) -> "TinyType":
        """With fewer KV heads than heads if `grouped`, and channels per head from `head_dim`."""
        fields = SizeFields.of(config)
        sizes = {axis: size for axis, size in TINY.items() if axis in fields}
        if "kv_heads" in fields:
            sizes["kv_heads"] = TINY["kv_heads"] if grouped else TINY["heads"]
        sizes.pop("head_dim", None)
        if head_dim == FREE:
            sizes["head_dim"] = TINY["head_dim"]
        else:
            sizes["hidden"] = TINY["heads"] * TINY["head_dim"]
        return cls(config, fields, sizes, head_dim)

    def config(self, **changed: int) -> PretrainedConfig:
        """The tiny configuration, with some sizes `changed` by axis.

        Raises whatever the configuration's class does.
        """
        values = deepcopy(self.like.to_dict())
        sizes = {**self.sizes, **changed}
        depth = values.get(self.fields["layers"])
        for name, value in values.items():
            values[name] = self._smaller(name, value, depth=depth, layers=sizes["layers"])
        for axis, size in sizes.items():
            values[self.fields.names.get(axis, axis)] = size
        values |= dict.fromkeys(self.following, sizes["hidden"])
        values = self._with_head_dim(values, sizes)
        for name in TOKENS:
            values[name] = _token(values.get(name), self.sizes["vocab"])
        for name in ("transformers_version", "architectures", "dtype", "torch_dtype"):
            values.pop(name, None)
        overrides = values.pop("per_layer_config", None)
        if overrides:
            values["per_layer_config"] = self._of_layers(overrides, self._made(values), sizes)
        return self._made(values)

    def _of_layers(
        self, overrides: Mapping[str, Any], tiny: PretrainedConfig, sizes: Mapping[str, int]
    ) -> dict[str, Any]:
        """What layers of a kind have otherwise, for the layers of that kind in a `tiny` model:
        sizes in the same proportion to those of the others."""
        like, fields = self.like.to_dict(), {n: axis for axis, n in self.fields.names.items()}
        by_kind = {}
        for layer, own in overrides.items():
            by_kind[like["layer_types"][int(layer)]] = {
                name: value * sizes[fields[name]] // like[name] if name in fields else value
                for name, value in own.items()
            }
        kinds: list[str] = tiny.layer_types
        return {str(i): by_kind[kind] for i, kind in enumerate(kinds) if kind in by_kind}

    @property
    def own_head_dim(self) -> bool:
        """Whether its configuration takes any `head_dim`, by that name."""
        free = self.head_dim == FREE
        return free and self.fields.names.get("head_dim", "head_dim") == "head_dim"

    @property
    def per_layer_fields(self) -> tuple[str, ...]:
        """Fields that have an entry for each layer."""
        values = self.like.to_dict()
        depth = values[self.fields["layers"]]
        return tuple(n for n, v in values.items() if isinstance(v, list) and len(v) == depth)

    @property
    def following(self) -> tuple[str, ...]:
        """Fields that have the hidden size as their value, and follow it."""
        values = self.like.to_dict()
        hidden = values[self.fields["hidden"]]
        return tuple(name for name in FOLLOWING if values.get(name) == hidden)

    def student(
        self, kept: Sequence[int], *, pattern: Mapping[str, Any], **changed: int
    ) -> PretrainedConfig:
        """The tiny configuration of a student that keeps these layers, some sizes `changed`."""
        values = self.config().to_dict()
        depth = self.sizes["layers"]
        for name, value in values.items():
            if isinstance(value, list) and len(value) == depth:
                values[name] = [value[layer] for layer in kept]
        sizes = {**changed, "layers": len(kept)}
        values |= {self.fields.names.get(axis, axis): size for axis, size in sizes.items()}
        values |= dict.fromkeys(self.following, sizes.get("hidden", self.sizes["hidden"]))
        values |= pattern
        values = self._with_head_dim(values, {**self.sizes, **changed})
        return self._made(values)

    def _made(self, values: Mapping[str, Any]) -> PretrainedConfig:
        """The configuration with these values, for plain products, which know float64."""
        with quiet():
            config: PretrainedConfig = type(self.like).from_dict(dict(values))
        config._attn_implementation = "eager"
        config._experts_implementation = "eager"
        return config

    def _with_head_dim(self, values: dict[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
        name = self.fields.names.get("head_dim")
        if name is None or self.head_dim == FREE:
            return values
        values = {field: value for field, value in values.items() if field != name}
        if self.head_dim == WRITTEN:
            values[name] = sizes["hidden"] // sizes.get("heads", 1)
        return values

    def _smaller(self, name: str, value: Any, *, depth: int | None, layers: int) -> Any:
        if name == "rope_parameters" and isinstance(value, dict):
            channels = TINY["head_dim"] // 2
            return {
                key: entry[:channels] if isinstance(entry, list) else entry
                for key, entry in value.items()
            }
        if layers == depth:  # as they are
            return value if name not in SMALLER else self._at_most(name, value, SMALLER)
        if isinstance(value, list) and depth and len(value) == depth:
            kinds = sorted({str(entry): entry for entry in value}.items())
            return [kinds[place % len(kinds)][1] for place in range(layers)]
        return self._at_most(name, value, {**SMALLER, **FEWER})

    @staticmethod
    def _at_most(name: str, value: Any, most: Mapping[str, int]) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool)
        return min(value, most[name]) if number and name in most else value

    def narrow(self, config: PretrainedConfig) -> PretrainedConfig:
        """A configuration with all layers of another one of the type, and few channels."""
        return replace(self, like=config).config(layers=getattr(config, self.fields["layers"]))


def _token(value: Any, vocab: int) -> Any:
    if isinstance(value, list):
        return [min(token, vocab - 1) for token in value]
    return min(value, vocab - 1) if isinstance(value, int) else value
