"""Rules of an inferred type: what is not proven stays whole, and what is tied stays tied."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.shapes import architecture_of
from pruning.families.spec import Constraint
from pruning.families.table.common import (
    EXPERTS_ALIGNED,
    HEADS_DIVIDE_HIDDEN,
    HIDDEN_FOLLOWS_HEADS,
)
from pruning.inference.proofs.search import Finding
from pruning.inference.proofs.tiny_model import TinyModel

EVEN = Constraint("an even hidden size", lambda config, a: a.hidden % 2 == 0)


def rules_of(tiny: TinyModel, findings: Mapping[str, Finding]) -> Iterator[Constraint]:
    """The rules that students of a type must meet."""
    for finding in findings.values():
        if finding.reason:
            yield _whole(finding.axis, finding.reason)
    drivers = tiny.growth.drivers
    for axis, (source, times) in drivers.items():
        owner = next(other for other, (at, n) in drivers.items() if at == source and n == 1)
        if owner != axis:
            yield _together(axis, owner, times=times)
    yield from _of_sizes(tiny)


def _whole(axis: str, reason: str) -> Constraint:
    def holds(config: PretrainedConfig, a: Sizes[Any]) -> Any:
        return getattr(a, axis) == getattr(architecture_of(config), axis)

    return Constraint(f"all of its {axis}, since smaller ones are not proven ({reason})", holds)


def _together(axis: str, owner: str, *, times: int) -> Constraint:
    size = f"{times} times its {owner}" if times > 1 else f"its {owner}"
    return Constraint(
        f"a {axis} of {size}, since one value of its configuration says both",
        lambda config, a: getattr(a, axis) == times * getattr(a, owner),
    )


def _of_sizes(tiny: TinyModel) -> Iterator[Constraint]:
    """Rules of sizes that transformers cannot build or run, found by trying them."""
    hidden = tiny.growth.sizes["hidden"]
    if "experts" in tiny.growth.sizes:
        yield EXPERTS_ALIGNED
    if not tiny.growth.free_heads:
        yield HIDDEN_FOLLOWS_HEADS
    elif not tiny.works(hidden=hidden - 3):
        yield EVEN if tiny.works(hidden=hidden - 2) else HEADS_DIVIDE_HIDDEN
