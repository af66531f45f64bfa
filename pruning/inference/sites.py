"""Sites: the modules of a layer that importance is measured at, found by their projections."""

from collections.abc import Sequence

from pruning.inference.growth import Growth
from pruning.inference.layout import Layout
from pruning.inference.silencing import Sites
from pruning.inference.trace import Projection


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
