"""Sites: the modules of a layer that importance is measured at, found by their projections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pruning.inference.layouts.layout import Layout
from pruning.inference.layouts.trace import Projection
from pruning.inference.tiny.growth import Growth


@dataclass(frozen=True)
class Sites:
    """Modules where the parts of a layer are heard; "" for what a type does not have. Names are
    those of a loaded model, in a layer."""

    layer_prefix: str = ""
    """Module that holds the layers."""
    attention_input: str = ""
    """The first projection of attention that reads the hidden channels."""
    attention_output: str = ""
    """The projection that reads the query heads."""
    ffn_input: str = ""
    """The first projection of the FFN, or the module that has them all."""
    ffn_output: str = ""
    """The projection that reads the neurons of a dense FFN."""
    router: str = ""
    """Tensor of the router, a row for each expert."""
    expert_output: str = ""
    """Tensor of all experts that reads their neurons."""
    expert_columns: int = 0
    """Its dimension for the neurons."""
    shared_output: str = ""
    """The projection that reads the neurons of the experts that all tokens are sent to."""
    spanning_norms: Mapping[str, str] = field(default_factory=dict)
    """Module that norms all channels of all heads at once -> the heads that these are of."""


def sites_of(growth: Growth, layout: Layout, projections: Sequence[Projection]) -> Sites:
    """Those of a loaded model of this growth and layout; `projections` in their order."""

    def counts(name: str, dim: int, axis: str) -> bool:
        axes = layout.axes.get(name)
        if axes is None or dim >= len(axes):
            return False
        return any(layout.aliases[part].axis == axis for part in axes[dim].split("+"))

    def first(reads: str, writes: Sequence[str] = ()) -> Projection | None:
        for p in projections:
            if counts(p.weight, p.reads, reads) and (
                not writes or any(counts(p.weight, p.writes, axis) for axis in writes)
            ):
                return p
        return None

    heads_out = first("heads", ("hidden",)) or first("heads")
    attention_in = None
    if heads_out:
        group = [p for p in projections if p.group == heads_out.group]
        attention_in = next((p for p in group if counts(p.weight, p.reads, "hidden")), None)
    ffn_in, ffn_out = first("hidden", ("ffn",)), first("ffn", ("hidden",))
    shared_out = first("shared_ffn", ("hidden",))
    router = expert_output = ""
    columns = 0
    for name, axes in layout.axes.items():
        if len(axes) == 2 and axes[0] == "experts" and counts(name, 1, "hidden"):
            router = router or name
        if len(axes) == 3 and axes[0] == "experts":
            for dim in (1, 2):
                if axes[dim] == "expert_ffn" and axes[3 - dim] == "hidden" and "down" in name:
                    expert_output, columns = name, dim
    return Sites(
        layer_prefix=growth.naming.layer_prefix,
        attention_input=attention_in.name if attention_in else "",
        attention_output=heads_out.name if heads_out else "",
        ffn_input=ffn_in.name if ffn_in else "",
        ffn_output=ffn_out.name if ffn_out else "",
        router=router,
        expert_output=expert_output,
        expert_columns=columns,
        shared_output=shared_out.name if shared_out else "",
        spanning_norms=spanning_norms(layout),
    )


def spanning_norms(layout: Layout) -> dict[str, str]:
    """Modules that norm all channels of all heads, or all neurons, at once -> what these are of."""
    found = {}
    for name, axes in layout.axes.items():
        axis = layout.aliases[axes[0]].axis if len(axes) == 1 and axes[0] in layout.aliases else ""
        if axis in ("heads", "kv_heads", "ffn") and name.endswith("norm.weight"):
            found[name.removesuffix(".weight")] = axis
    return found
