import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.train.settings import ResolvedTraining
from pruning import ATTENTION, FFN, Checkpoint
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.config.per_layer import PerLayerConfig
from search.library import LayerVariants, LibraryBuilder, Slots, variants_of
from search.workers import slots as slots_module
from search.workers import tasks
from search.workers.candidate import SearchAssets
from search.workers.slots import SlotPool
from tests.search.assets import BLOCK, write_assets
from workspace.layout import Workspace

SETTINGS: dict[str, Any] = {
    "kv_heads": [3, 2, 1, 0],
    "tokens": 2 * BLOCK * 20,
    "batch": 2,
    "plateau": 0.0,
    "learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> SearchAssets:
    """Of a tiny teacher with three layers, 9 query heads in 3 groups, and 40 neurons."""
    root = tmp_path_factory.mktemp("assets")
    assets = write_assets(root, ResolvedTraining(batch=1, precision="fp32"))
    facts = {"block": BLOCK, "digest": "of these tokens"}
    (assets.corpus / "facts.json").write_text(json.dumps(facts))
    return assets


@pytest.fixture(scope="module")
def variants(assets: SearchAssets) -> tuple[LayerVariants, ...]:
    config = Checkpoint(assets.sorted_teacher).config
    settings = PerLayerConfig(**SETTINGS)
    return tuple(variants_of(config, settings, sub_blocks=(ATTENTION, FFN), block=BLOCK))


class Tasks:
    """Stands for Ray and its slots: each task is done in this process when its result is asked
    for."""

    def __init__(self) -> None:
        self.ended = 0
        self.most = 10**9
        """After so many, the next is interrupted before it begins."""

    def options(self, **_: Any) -> Any:
        """Those of a slot, or of its method."""
        return SimpleNamespace(remote=self.remote)

    def remote(self, *given: Any) -> Any:
        """A slot, or the reference to what a call of one will give."""
        if not given:
            return SimpleNamespace(call=self)
        _, _, function, arguments = given
        return _Reference(function, arguments)

    def kill(self, slot: Any) -> None:
        """It has no process."""

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        if self.ended >= self.most:
            raise KeyboardInterrupt
        self.ended += 1
        return reference.function(*reference.arguments)


@dataclass(frozen=True, eq=False)
class _Reference:
    function: Any
    arguments: tuple[Any, ...]


@pytest.fixture
def local_tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    made = Tasks()
    for module in (tasks, slots_module):
        monkeypatch.setattr(module, "ray", made)
    return made


@pytest.fixture
def builder(
    assets: SearchAssets,
    variants: tuple[LayerVariants, ...],
    local_tasks: Tasks,
    tmp_path: Path,
) -> Callable[..., LibraryBuilder]:
    """A builder in a folder of its own, with so many slots, whose tasks keep no checkpoints."""

    def make(
        folder: str = "study", slots: int = 2, memory: int = 0, **given: Any
    ) -> LibraryBuilder:
        workspace = Workspace(tmp_path / folder)
        workspace.make()
        resources = Resources(slots, 1, 0.0, memory=memory)
        pool = SlotPool(Room(resources, lambda: 0), local_tasks)
        return LibraryBuilder(
            assets=assets,
            variants=variants,
            settings=PerLayerConfig(**SETTINGS | given),
            slots=Slots(slots=pool, access=None, errors=workspace.ray_errors),
            workspace=workspace,
            checkpoint_seconds=1e9,
        )

    return make
