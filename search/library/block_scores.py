"""Replace-one-block scores in one process: what a model loses with one other attention or FFN.

As in Puzzle (arXiv 2411.19146) the quality of a student is modelled as the sum of the scores of its
blocks. The model's own hidden states are kept, so that a block costs only the layers above it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import SearchStopped
from distill import Corpus
from distill.backend import autocast, feeding, recording
from distill.loss import with_fast_products
from distill.targets import blocks_at_once
from pruning import ATTENTION, FFN, Architecture, Block, Checkpoint, family_of
from pruning.slicing import BlockLibrary, NestedLayers, part_name
from search.library.measures import Measure
from search.space.variants import NOTHING, LayerVariants, loadable, with_part
from search.workers.candidate import SearchAssets
from workspace.sorted_teacher import load_layers

UNEQUAL = 1e-3
"""A parent that is run from its kept hidden states scores less than this; it should score 0."""


@dataclass(frozen=True)
class Parent:
    """A student that blocks are replaced in, instead of the whole teacher."""

    architecture: Architecture
    """Its shape, of the teacher's hidden size."""
    kept_layers: tuple[int, ...]
    """The teacher's layers that it has."""

    def blocks(self) -> dict[int, Block]:
        """Its layers, by their numbers in the teacher."""
        return {layer: self.architecture.block(i) for i, layer in enumerate(self.kept_layers)}


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """Which blocks are scored, on what, and how. A value: any process can take a part of it up."""

    assets: SearchAssets
    """Sorted teacher, library and corpus."""
    variants: tuple[LayerVariants, ...]
    """Attentions and FFNs of each of the teacher's layers."""
    sequences: int
    """Sequences of the selection split, at most."""
    measure: str
    """One of `BLOCK_SCORES`."""
    parent: Parent | None = None
    """What blocks are replaced in; None: the teacher."""

    @property
    def parent_blocks(self) -> dict[int, Block]:
        """The layers that blocks are replaced in, by their numbers in the teacher."""
        if self.parent is not None:
            return self.parent.blocks()
        return {layer: variants.parent for layer, variants in enumerate(self.variants)}

    def replacements(self, layer: int) -> list[tuple[str, Block]]:
        """(sub-block, size) of all that may take the place of the parent's own in a layer."""
        own = self.parent_blocks[layer]
        return [
            (kind, part)
            for kind in (ATTENTION, FFN)
            for part in self.variants[layer].of(kind)
            if part != own.part(kind) and with_part(own, kind, part) != NOTHING
        ]


@dataclass(frozen=True)
class BlockScore:
    """Score of one attention or FFN in one layer, beside the parent's other sub-block."""

    layer: int
    """Of the teacher."""
    sub_block: str
    """`ATTENTION` or `FFN`."""
    size: str
    """As `part_name` has it."""
    score: float
    """Of the parent with it, less the parent's own."""


class BlockScorer:
    """The parent, loaded, and the library's layers that are to be scored in it."""

    def __init__(self, plan: ScoringPlan, layers: Sequence[int]):
        """Loads the sorted teacher whole, and of the library the layers that are read."""
        self.plan, self.layers, assets = plan, tuple(layers), plan.assets
        self.device: Any = torch.device(assets.device)
        self.precision = assets.training.precision
        narrow = self.precision == "bf16"
        self.dtype = torch.bfloat16 if narrow else getattr(torch, assets.teacher_dtype)
        self.config = Checkpoint(assets.sorted_teacher).config
        self.family = family_of(self.config)
        every = range(self.config.num_hidden_layers)
        model: Any = assets.source.layers(every, dtype=self.dtype).eval()
        self.model = with_fast_products(model.to(self.device)).requires_grad_(False)
        self.nested = NestedLayers(self.model)
        self.measure = Measure(plan.measure)
        self.library = None if assets.library is None else BlockLibrary(assets.library)
        self._trained: dict[Path, dict[int, dict[str, Tensor]]] = {}
        self.parent = plan.parent_blocks

    def scores(self) -> list[BlockScore]:
        """Of every attention and FFN of the layers but the parent's own.

        Raises SearchStopped where the parent, run from its kept states, is not itself.
        """
        found: dict[tuple[int, str, Block], list[Tensor]] = {}
        with torch.no_grad(), self.nested, autocast(self.device, self.precision):
            for ids, counted in self.batches():
                batch = ScoredBatch(self, ids, counted)
                for layer in self.layers:
                    for kind, part in self.plan.replacements(layer):
                        value = batch.score(layer, with_part(self.parent[layer], kind, part))
                        found.setdefault((layer, kind, part), []).append(value)
        return [
            BlockScore(layer, kind, part_name(part), float(torch.cat(values).mean()))
            for (layer, kind, part), values in found.items()
        ]

    def run_at(self, layer: int, block: Block) -> None:
        """Have a layer run at these sizes, from where a student of them would be cut."""
        whole = self.plan.variants[layer].parent
        parameters: dict[str, Tensor] = dict(self.nested.layers[layer].named_parameters())
        for kind in (ATTENTION, FFN):
            source = None
            if self.library is not None and block.has(kind):
                source = self.library.source_of(layer, block, kind, own=whole)
            if source is not None:
                trained = self._trained_layer(source, layer)
                parameters |= {n: p for n, p in trained.items() if self.family.sub_block(n) == kind}
        self.nested.resize(layer, block, parameters=parameters)

    def run_parent(self) -> None:
        """Have every layer run as the parent's."""
        for layer, variants in enumerate(self.plan.variants):
            if layer not in self.parent:
                self.nested.skip(layer)
            elif self.parent[layer] == variants.parent:
                self.nested.restore(layer)
            else:
                self.run_at(layer, self.parent[layer])

    def _trained_layer(self, checkpoint: Checkpoint, layer: int) -> dict[str, Tensor]:
        """The parameters of full size of a layer of the library."""
        if checkpoint.directory not in self._trained:
            wanted = sorted({*self.layers, *(self.parent if self.plan.parent else ())})
            kept = loadable(self.config, wanted)
            model: Any = load_layers(checkpoint, kept, dtype=self.dtype)
            layers = NestedLayers(model.to(self.device).requires_grad_(False)).layers
            self._trained[checkpoint.directory] = {
                number: dict(module.named_parameters())
                for number, module in zip(kept, layers, strict=True)
            }
        return self._trained[checkpoint.directory][layer]

    def batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(tokens, whether each counts), both [batch, sequence], of the selection split."""
        corpus, count = Corpus(self.plan.assets.corpus), self.plan.sequences
        blocks, weights = corpus.blocks("selection")[:count], corpus.weights("selection")
        size = blocks_at_once(blocks.shape[1], self.plan.assets.vocabulary)
        for start in range(0, len(blocks), size):
            part = slice(start, start + size)
            ids = torch.from_numpy(np.asarray(blocks[part]).astype(np.int64))
            counted = None
            if weights is not None:
                counted = torch.from_numpy(np.asarray(weights[:count][part])).to(self.device)
            yield ids.to(self.device), counted


class ScoredBatch:
    """Some sequences: what the teacher says of them, and the parent's hidden states."""

    def __init__(self, scorer: BlockScorer, ids: Tensor, counted: Tensor | None):
        """Runs the teacher and the parent once."""
        self.scorer, self.ids, self.counted = scorer, ids, counted
        nested, model, measure = scorer.nested, scorer.model, scorer.measure
        for layer in range(len(nested.layers)):
            nested.restore(layer)
        if scorer.plan.parent is not None:
            self.teacher = measure.answers(model, ids)
            scorer.run_parent()
        # What enters layer i comes out of layer i - 1; EMBEDDINGS stands before the first.
        with recording(model, {layer - 1 for layer in scorer.layers}) as states:
            answers = measure.answers(model, ids)
            self.states = dict(states)
        if scorer.plan.parent is None:
            self.teacher = answers
        self.own = self._measured(answers)
        self._prove()

    def score(self, layer: int, block: Block) -> Tensor:
        """[sequences], of the parent with these sizes in a layer, less its own.

        To be asked layer by layer: those below are passed by.
        """
        for below in range(layer):
            self.scorer.nested.skip(below)
        self.scorer.run_at(layer, block)
        with feeding(self.scorer.model, {layer: self.states[layer - 1]}):
            answers = self.scorer.measure.answers(self.scorer.model, self.ids)
        return self._measured(answers) - self.own

    def _measured(self, answers: Tensor) -> Tensor:
        return self.scorer.measure.by_sequence(
            self.teacher, answers, self.ids, counted=self.counted
        )

    def _prove(self) -> None:
        """Raises SearchStopped where the parent's own blocks do not score 0."""
        first = self.scorer.layers[0]
        score = float(self.score(first, self.scorer.parent[first]).abs().max())
        if not score <= UNEQUAL:
            raise SearchStopped(
                f"block scores: the model that blocks are replaced in scores {score:.3g} with its "
                f"own layer {first}, and must score 0; please report this"
            )
