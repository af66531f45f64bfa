"""Rows made of what was inferred and proven: a family like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture, Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN
from pruning.families.spec import (
    Axes,
    AxisRows,
    Constraint,
    Family,
    Rescale,
    gated_expert,
    plain_expert,
)
from pruning.inference.family import InferredFamily, remembered
from pruning.inference.layouts.layout import Alias, Layout
from pruning.inference.proofs.search import Finding, Prover
from pruning.inference.tiny.building import shapes_of, stored_tensors
from pruning.inference.tiny.pattern import Pattern

WHOLE = Alias("", 0)
"""Rows that every student has."""
EXPERT_RUNS = (gated_expert, plain_expert)
"""Ways in which a module of experts runs one, which are tried on it."""


@dataclass(frozen=True)
class RowMaker:
    """Makes the row of a type."""

    config: PretrainedConfig
    """The configuration that it was inferred of."""
    prover: Prover
    """The tiny model, with the layout that was found to be exact."""
    loaded: Layout
    """The layout of the tensors as they are in memory."""
    findings: Mapping[str, Finding]
    """Axis -> what came of its proof."""

    def family(self) -> InferredFamily:
        """The row. Raises PruningError where what importance is measured at is missing."""
        growth, sites = self.prover.tiny.growth, self.prover.tiny.sites
        layout, naming = self.prover.layout, growth.naming
        head, embedding = self.prover.tiny.ends
        outer = {name: layout.axes[name] for name in growth.outer if name != head}
        inner = {name: axes for name, axes in self._axes.items() if name not in growth.outer}
        experts = {name: axes for name, axes in inner.items() if growth.of_experts(name)}
        first = {embedding: outer[embedding]}
        if not sites.attention_output or not sites.attention_input:
            raise PruningError("no projection of its layers was found that reads heads")
        return InferredFamily(
            model_type=self.config.model_type,
            model_tensors=first | outer,
            output_head=(head, self.prover.tiny.head_axes(layout)),
            layer_prefix=naming.layer_prefix,
            module_prefix=sites.layer_prefix if sites.layer_prefix != naming.layer_prefix else "",
            layer_tensors={},
            dense_tensors={},
            expert_tensors=experts,
            fused_experts={n: self.loaded.axes[n] for n in self._fused},
            axes=inner,
            fields=self._fields(),
            sizes_of=self._sizes_of,
            fields_of=lambda a: dict.fromkeys(growth.tiny.following, a.hidden),
            attention_input=sites.attention_input,
            attention_output=sites.attention_output,
            attention_norms=(),
            ffn_input=self._ffn_input(),
            ffn_output=sites.ffn_output,
            shared_output=sites.shared_output,
            spanning_norms={f"{name}.weight": "" for name in sites.spanning_norms},
            experts_module=self._experts_module,
            expert_output=self._expert_output(inner),
            run_expert=self.expert_run or gated_expert,
            buffers=self._buffers(),
            parts_of=_parts_of,
            axis_rows=remembered(self._rows),
            cut_pattern=self._cut_pattern,
            per_layer_fields=growth.tiny.per_layer_fields,
            has_head_dim=growth.tiny.fields.names.get("head_dim", "head_dim") == "head_dim"
            and "head_dim" in growth.tiny.sizes,
            constraints=tuple(self._constraints()),
            unsorted=self._unsorted(),
            norm_offset=self.prover.tiny.norm_offset,
            rescale=self._rescale,
            tiny=growth.tiny,
            pattern=remembered(self._pattern),
            findings=self.findings,
        )

    def _one_by_one(self, axes: Axes, name: str) -> Axes:
        """Axes of a tensor on disk, neurons in full where it holds those of all experts."""
        if "{expert}" in name or not self.prover.tiny.growth.of_experts(name):
            return axes
        layout = self.prover.layout
        return tuple(
            f"all of {name}, dimension {dim}"
            if any(layout.aliases[part].axis == "expert_ffn" for part in joined.split("+"))
            else joined
            for dim, joined in enumerate(axes)
        )

    @property
    def _experts_are_one(self) -> bool:
        """Whether a tensor on disk holds the neurons of all experts."""
        growth = self.prover.tiny.growth
        names = [n for n in self.prover.layout.axes if growth.of_experts(n) and "{expert}" not in n]
        counts = self.prover.layout.aliases
        return any(
            counts[part].axis == "expert_ffn"
            for name in names
            for joined in self.prover.layout.axes[name]
            for part in joined.split("+")
        )

    def _fields(self) -> dict[str, str]:
        growth, names = self.prover.tiny.growth, self.prover.tiny.growth.tiny.fields.names
        fields = {axis: names[axis] for axis in ("layers", "hidden", "heads") if axis in names}
        if "heads" not in fields:
            raise PruningError("its configuration has no field for heads")
        kv_heads = names.get("kv_heads", "")
        same = getattr(self.config, kv_heads, None) == getattr(self.config, fields["heads"])
        if kv_heads and (growth.grouped or same):
            fields["kv_heads"] = kv_heads
        if "experts" in growth.sizes:
            fields["experts"] = names["experts"]
        for axis, (source, times) in growth.drivers.items():
            if times == 1:
                fields[axis] = names[source]
        return fields

    def _sizes_of(self, config: PretrainedConfig) -> dict[str, int]:
        """Sizes that are multiples of others, and have no field of their own."""
        names = self._fields()
        found = self._multiples().items()
        return {axis: n * getattr(config, names[source]) for axis, (source, n) in found}

    def _multiples(self) -> dict[str, tuple[str, int]]:
        """Of the tiny model; another number of shared experts is another row."""
        growth = self.prover.tiny.growth
        own = {source: axis for axis, (source, n) in growth.drivers.items() if n == 1}
        drivers = growth.drivers.items()
        return {axis: (own[source], times) for axis, (source, times) in drivers if times > 1}

    @cached_property
    def _fused(self) -> list[str]:
        growth = self.prover.tiny.growth.loaded
        return [n for n in self.loaded.axes if n not in growth.outer and growth.of_experts(n)]

    @property
    def _experts_module(self) -> str:
        return self.prover.tiny.sites.expert_output.rpartition(".")[0]

    def _expert_output(self, inner: Mapping[str, Axes]) -> str:
        """Tensor of an expert that reads its neurons, where each has one of its own on disk."""
        for name, axes in inner.items():
            if "{expert}" in name and axes == ("hidden", "expert_ffn"):
                return name
        return ""

    def _ffn_input(self) -> str:
        """The module of the FFN where every layer has it by one name: also layers of experts."""
        sites, growth = self.prover.tiny.sites, self.prover.tiny.growth.loaded
        inner = [name for kind in growth.kinds for name in kind]
        for site in (sites.ffn_output, self._experts_module, sites.ffn_input):
            module = site.split(".")[0] if "." in site else ""
            if module and module not in sites.attention_output.split("."):
                if all(any(n.startswith(f"{module}.") for n in kind) for kind in growth.kinds):
                    return module
        if sites.ffn_input and all(f"{sites.ffn_input}.weight" in kind for kind in growth.kinds):
            return sites.ffn_input
        assert inner
        return sites.ffn_input or self._experts_module

    @cached_property
    def expert_run(self) -> Any:
        """The way in which its module of experts runs one; None where none of those known is."""
        if not self._experts_module:
            return None
        for layer in self.prover.tiny.layers:
            try:
                module = layer.get_submodule(self._experts_module)
            except AttributeError:  # a layer of another kind
                continue
            for run in EXPERT_RUNS:
                if _runs_so(module, run, self.prover.tiny.whole.hidden):
                    return run
        return None

    def _unsorted(self) -> tuple[str, ...]:
        whole = [axis for axis, finding in self.findings.items() if not finding.proven]
        whole += ["experts", "expert_ffn"] if self.expert_run is None else []
        whole += ["expert_ffn"] if self._experts_are_one else []
        return tuple(dict.fromkeys(whole))

    def _buffers(self) -> tuple[str, ...]:
        model, growth = self.prover.tiny.model, self.prover.tiny.growth
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        stored = stored_tensors(model, only=parameters)
        names = [name for name in growth.base.stored if name not in stored]
        return tuple(dict.fromkeys(growth.naming.place(name).name for name in names))

    @cached_property
    def _axes(self) -> dict[str, Axes]:
        """Axes of all tensors on disk, as the row has them."""
        axes = self.prover.layout.axes
        return {name: self._one_by_one(dims, name) for name, dims in axes.items()}

    def _rows(self, config: PretrainedConfig) -> dict[str, AxisRows]:
        """The rows of every alias in the tensors of a model with this configuration."""
        layout, growth = self.prover.layout, self.prover.tiny.growth
        shapes = growth.naming.alike(shapes_of(config).stored)
        sizes = {axis: getattr(config, name) for axis, name in self._fields().items()}
        sizes |= {axis: n * sizes[at] for axis, (at, n) in self._multiples().items()}
        if sizes.get("kv_heads") is None:
            sizes["kv_heads"] = sizes["heads"]
        rows: dict[str, AxisRows] = {}
        aliases = dict(layout.aliases)
        places = [
            (name, dim, joined)
            for name, axes in self._axes.items()
            for dim, joined in enumerate(axes)
            if shapes.get(name) is not None
        ]
        places.sort(key=lambda place: len(set(place[2].split("+"))))  # single axes say their rows
        for name, dim, joined in places:
            parts, left = joined.split("+"), shapes[name][dim]  # type: ignore[index]
            for part in parts:
                if part in rows:
                    left -= rows[part].rows * _units(aliases.get(part, WHOLE), sizes)
            unknown = [part for part in parts if part not in rows]
            if len(set(unknown)) != 1:
                continue
            alias = aliases.get(unknown[0], WHOLE)
            units = len(unknown) * _units(alias, sizes)
            if left % units:
                raise PruningError(
                    f"{name} has {shapes[name]} in a model of these sizes, which is not what was "
                    "inferred"
                )
            rows[unknown[0]] = AxisRows(alias.axis, left // units)
        return {name: axis for name, axis in rows.items() if name not in ("hidden", "vocab")}

    def _pattern(self, config: PretrainedConfig) -> Pattern:
        growth = self.prover.tiny.growth
        tiny, naming = growth.tiny, growth.naming
        return Pattern(
            tiny.narrow(config), tiny.fields["layers"], naming.layer_prefix, naming.expert_prefixes
        )

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
        return self.prover.rescale(
            config, getattr(config, self._fields()["hidden"]), student.hidden
        )

    def _constraints(self) -> list[Constraint]:
        found = []
        for axis, finding in self.findings.items():
            if not finding.proven:
                found.append(self._whole(axis, finding.reason))
        if self.expert_run is None and self._experts_module:
            for axis in ("experts", "expert_ffn"):
                found.append(self._whole(axis, "its experts run in a way that is not known"))
        for axis, (source, times) in self.prover.tiny.growth.drivers.items():
            if source == axis:
                continue
            for other, (at, n) in self.prover.tiny.growth.drivers.items():
                if at == source and n == 1 and other != axis:
                    found.append(_together(axis, other, times))
        if self._experts_are_one and self.findings["expert_ffn"].proven:
            reason = "one tensor holds those of all experts"
            found.append(self._whole("expert_ffn", reason))
        return found + self.prover.tiny.size_rules()

    def _whole(self, axis: str, reason: str) -> Constraint:
        def holds(config: PretrainedConfig, a: Sizes[Any]) -> Any:
            whole = _inferred_sizes(self, config)[axis]
            return getattr(a, axis) == whole

        return Constraint(f"its {axis} in full, which are not proven ({reason})", holds)


def _inferred_sizes(maker: RowMaker, config: PretrainedConfig) -> dict[str, Any]:
    fields, multiples = maker._fields(), maker._multiples()
    sizes = {axis: getattr(config, name) for axis, name in fields.items()}
    sizes |= {axis: n * sizes[at] for axis, (at, n) in multiples.items()}
    sizes.setdefault("kv_heads", sizes["heads"])
    if sizes.get("ffn", 0) is None:
        sizes["ffn"] = 4 * sizes["hidden"]
    return sizes


def _together(axis: str, other: str, times: int) -> Constraint:
    return Constraint(
        f"{axis} of {times} times its {other}, since one value of its configuration says both",
        lambda config, a: getattr(a, axis) == times * getattr(a, other),
    )


def _units(alias: Alias, sizes: Mapping[str, Any]) -> int:
    return int(sizes[alias.axis]) if alias.axis else 1


def _parts_of(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    """By the axes of the tensors that a layer has."""
    axes = family.layer_axes(config, layer).values()
    rows = family.axis_rows(config)
    sizes = {
        rows[part].size if part in rows else part
        for dims in axes
        for dim in dims
        for part in dim.split("+")
    }
    of_axis = {"heads": ATTENTION, "ffn": FFN, "experts": EXPERTS}
    return tuple(part for axis, part in of_axis.items() if axis in sizes)


@torch.no_grad()
def _runs_so(module: nn.Module, run: Any, hidden: int) -> bool:
    """Whether `run` says of single experts what the module does."""
    tokens = torch.randn(5, hidden, generator=torch.Generator().manual_seed(1)).double()
    try:
        index = torch.full((5, 1), 1)
        whole = module(tokens, index, torch.ones(5, 1, dtype=torch.float64))
        return torch.allclose(run(module, 1, tokens)[1], whole, rtol=1e-6, atol=1e-9)
    except Exception:  # a module that takes other arguments or has other tensors
        return False
