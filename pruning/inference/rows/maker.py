"""Rows made of what was inferred and proven: a family like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture
from pruning.families.block import ATTENTION, EXPERTS, FFN
from pruning.families.spec import Family, gated_expert
from pruning.families.words import Axes, AxisRows, Rescale
from pruning.inference.layouts.layout import Alias
from pruning.inference.layouts.sites import Sites
from pruning.inference.proofs.search import Finding, Prover
from pruning.inference.rows.experts import ExpertForm
from pruning.inference.rows.family import InferredFamily, remembered
from pruning.inference.rows.rules import rules_of
from pruning.inference.tiny.building import shapes_of, stored_tensors
from pruning.inference.tiny.growth import Growth
from pruning.inference.tiny.pattern import Pattern

WHOLE = Alias("", 0)
"""Rows that every student has."""
LATENT = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
"""Fields of a configuration whose attention has a latent that all heads share."""
PARTS = {"heads": ATTENTION, "ffn": FFN, "experts": EXPERTS}
"""Axis of a tensor -> the part that a layer has which has it."""


@dataclass(frozen=True)
class RowMaker:
    """Makes the row of a type."""

    config: PretrainedConfig
    """The configuration that it was inferred of."""
    prover: Prover
    """The tiny model, with the layout that was found to be exact."""
    experts: ExpertForm
    """How its experts are run."""
    findings: Mapping[str, Finding]
    """Axis -> what came of its proof."""

    @property
    def growth(self) -> Growth:
        """How its tensors grow with its sizes."""
        return self.prover.tiny.growth

    @property
    def sites(self) -> Sites:
        """Where its parts are heard."""
        return self.prover.tiny.sites

    def family(self) -> InferredFamily:
        """The row. Raises PruningError where what importance is measured at is missing."""
        if not self.sites.attention_output or not self.sites.attention_input:
            raise PruningError("no projection of its layers was found that reads heads")
        tiny = self.growth.tiny
        unproven = tuple(axis for axis, finding in self.findings.items() if not finding.proven)
        if "heads" in unproven and "kv_heads" not in self.findings:  # each head has its own
            unproven += ("kv_heads",)
        return InferredFamily(
            **self._tensors(),
            **self._modules(),
            model_type=self.config.model_type,
            fields=self._fields,
            sizes_of=self._sizes_of,
            fields_of=lambda a: dict.fromkeys(tiny.following, a.hidden),
            parts_of=_parts_of,
            axis_rows=remembered(self._rows),
            cut_pattern=self._cut_pattern,
            per_layer_fields=tiny.per_layer_fields,
            has_head_dim=tiny.own_head_dim,
            constraints=tuple(rules_of(self.prover.tiny, self.findings)),
            unsorted=unproven,
            latent_attention=all(hasattr(self.config, name) for name in LATENT),
            norm_offset=self.prover.tiny.norm_offset,
            rescale=self._rescale,
            tiny=tiny,
            pattern=remembered(self._pattern),
            findings=self.findings,
        )

    def _tensors(self) -> dict[str, Any]:
        """The fields of a row that name tensors."""
        growth, tiny, loaded = self.growth, self.prover.tiny, self.prover.loaded
        head, embedding = tiny.ends
        outer = {name: self._axes[name] for name in self._axes if name in growth.outer}
        outer.pop(head, None)
        inner = {name: axes for name, axes in self._axes.items() if name not in growth.outer}
        single = [name for name, axes in inner.items() if axes == ("hidden", "expert_ffn")]
        return {
            "model_tensors": {embedding: outer[embedding]} | outer,
            "output_head": (head, tiny.head_axes(self.prover.layout)),
            "layer_tensors": {},
            "dense_tensors": {},
            "axes": inner,
            "expert_tensors": {n: axes for n, axes in inner.items() if growth.of_experts(n)},
            "fused_experts": {n: loaded.axes[n] for n in growth.loaded.experts},
            "expert_output": next((name for name in single if "{expert}" in name), ""),
            "buffers": self._buffers(),
        }

    def _modules(self) -> dict[str, Any]:
        """The fields of a row that name modules."""
        sites, prefix = self.sites, self.growth.naming.layer_prefix
        return {
            "layer_prefix": prefix,
            "module_prefix": sites.layer_prefix if sites.layer_prefix != prefix else "",
            "attention_input": sites.attention_input,
            "attention_output": sites.attention_output,
            "attention_norms": (),
            "ffn_input": self._ffn_input(),
            "ffn_output": sites.ffn_output,
            "shared_output": sites.shared_output,
            "spanning_norms": {f"{name}.weight": "" for name in sites.spanning_norms},
            "experts_module": self.experts.module,
            "run_expert": self.experts.run or gated_expert,
        }

    @cached_property
    def _axes(self) -> dict[str, Axes]:
        """Axes of all tensors on disk."""
        return dict(self.prover.layout.axes)

    @cached_property
    def _fields(self) -> dict[str, str]:
        names = self.growth.tiny.fields.names
        fields = {axis: names[axis] for axis in ("layers", "hidden", "heads") if axis in names}
        if "heads" not in fields:
            raise PruningError("its configuration has no field for heads")
        kv_heads = names.get("kv_heads", "")
        same = getattr(self.config, kv_heads, None) == getattr(self.config, fields["heads"])
        if kv_heads and (self.growth.grouped or same):
            fields["kv_heads"] = kv_heads
        if "experts" in self.growth.sizes:
            fields["experts"] = names["experts"]
        own = {axis: at for axis, (at, times) in self.growth.drivers.items() if times == 1}
        return fields | {axis: names[source] for axis, source in own.items()}

    def _sizes_of(self, config: PretrainedConfig) -> dict[str, int]:
        """Sizes that are multiples of others, and have no field of their own."""
        names = self.growth.tiny.fields.names
        drivers = self.growth.drivers.items()
        return {a: n * getattr(config, names[source]) for a, (source, n) in drivers if n > 1}

    def _ffn_input(self) -> str:
        """A module that reads what the FFN or the experts of every layer do: that of all of the
        FFN where there is one, else its first projection."""
        sites, kinds = self.sites, self.growth.loaded.kinds
        for site in (sites.ffn_output, self.experts.module):
            module = site.partition(".")[0]
            inside = [any(name.startswith(f"{module}.") for name in kind) for kind in kinds]
            if "." in site and all(inside) and module != sites.attention_output.split(".")[0]:
                return module
        return sites.ffn_input or self.experts.module

    def _buffers(self) -> tuple[str, ...]:
        """Tensors on disk that are no parameters of a loaded model."""
        model = self.prover.tiny.model
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        stored = stored_tensors(model, only=parameters)
        names = [name for name in self.growth.base.stored if name not in stored]
        return tuple(dict.fromkeys(self.growth.naming.place(name).name for name in names))

    def _rows(self, config: PretrainedConfig) -> dict[str, AxisRows]:
        """The rows of every axis in the tensors of a model with this configuration: those that are
        left of a dimension when the others are known."""
        shapes = self.growth.naming.alike(shapes_of(config).stored)
        sizes = {axis: getattr(config, name) for axis, name in self._fields.items()}
        sizes |= self._sizes_of(config)
        sizes["kv_heads"] = sizes.get("kv_heads") or sizes["heads"]
        if sizes.get("ffn", 0) is None:  # GPT-2's way of saying four times the hidden size
            sizes["ffn"] = 4 * sizes["hidden"]
        rows: dict[str, AxisRows] = {}
        places = [
            (joined.split("+"), shape[dim], name)
            for name, axes in self._axes.items()
            for dim, joined in enumerate(axes)
            if (shape := shapes.get(name)) is not None
        ]
        for parts, left, name in sorted(places, key=lambda place: len(set(place[0]))):
            unknown = [part for part in parts if part not in rows]
            if len(set(unknown)) != 1:
                continue
            for part in parts:
                if part in rows:
                    left -= rows[part].rows * sizes.get(rows[part].size, 1)
            axis = self.prover.layout.aliases.get(unknown[0], WHOLE).axis
            each, rest = divmod(left, len(unknown) * sizes.get(axis, 1))
            if rest:
                raise PruningError(f"{name} of a model of these sizes is not as it was inferred")
            rows[unknown[0]] = AxisRows(axis, each)
        return {name: axis for name, axis in rows.items() if name not in ("hidden", "vocab")}

    def _pattern(self, config: PretrainedConfig) -> Pattern:
        tiny, naming = self.growth.tiny, self.growth.naming
        return Pattern(tiny.narrow(config), tiny.fields["layers"], naming)

    def _cut_pattern(self, config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
        pattern = self._pattern(config)
        if len(kept) == len(pattern.kinds):
            return {}
        values = pattern.values(kept)
        if values is None:
            raise PruningError(
                f"no value of the configuration of {config.model_type} says of what kind the kept "
                "layers are; keep all of them"
            )
        return values

    def _rescale(self, config: PretrainedConfig, student: Architecture) -> dict[str, Rescale]:
        before = getattr(config, self._fields["hidden"])
        return self.prover.rescale(config, before, student.hidden)


def _parts_of(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    """By the axes of the tensors that a layer has."""
    rows = family.axis_rows(config)
    axes = family.layer_axes(config, layer).values()
    parts = {part for dims in axes for joined in dims for part in joined.split("+")}
    sizes = {rows[part].size if part in rows else part for part in parts}
    return tuple(part for axis, part in PARTS.items() if axis in sizes)
