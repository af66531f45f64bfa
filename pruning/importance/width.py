"""Hooks on a model as it is, which score its heads, neurons, channels and experts."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM
from pruning.families.shapes import architecture_of, axis_rows, places_of
from pruning.families.table import family_of, head_sizes
from pruning.importance.calibration import layers_of
from pruning.importance.experts import RoutedExperts, expert_scores, neuron_scores
from pruning.importance.reductions import VALUES, OverSamples, Sums, over_sequence
from pruning.importance.scores import DEFAULT_EXPERT_SCORE, REAP, Score

EVERY = slice(None)
PLACE = "place"
"""Begins the names of sums over hidden channels: one for each place where layers read them."""
KEYS, QUERIES = "keys", "queries"
"""The same of what is written into a recurrent state, and read from it."""
RECURRENT = ("ssm_heads", "ssm_head_dim")
"""Axes that the score of recurrent parts is for."""


class ActivationStatistics:
    """Running scores of the channels that pass one module of the model, or of `rows` of them."""

    def __init__(self, score: Score, head_dim: int = 0, rows: slice | Tensor = EVERY):
        self.score = score
        self.head_dim = head_dim
        self.rows = rows
        self.samples = OverSamples(score.batch)

    def update(self, activations: Tensor) -> None:
        """Add `activations` [batch, sequence, channels], or of tokens that are one sequence
        [sequence, channels]; heads count by the L2 of theirs."""
        if self.score.signal == "gradient":
            if activations.requires_grad:
                # Detached: a hook that holds its own tensor keeps the whole graph alive.
                values = self._chosen(activations.detach())
                activations.register_hook(lambda g: self._update_gradient(values, self._chosen(g)))
            return
        activations = self._chosen(activations)
        if self.head_dim:
            activations = head_norms(activations, self.head_dim)
        self.samples.add(over_sequence(activations, self.score.sequence))

    def _chosen(self, values: Tensor) -> Tensor:
        """[batch, sequence, channels of `rows`]."""
        return (values if values.dim() > 2 else values[None])[..., self.rows]

    def _update_gradient(self, activations: Tensor, gradient: Tensor) -> None:
        effect = (activations.float() * gradient.float()).sum(1)
        if self.head_dim:
            effect = effect.unflatten(-1, (-1, self.head_dim)).sum(-1)
        self.samples.add(effect.abs())


def head_norms(activations: Tensor, head_dim: int) -> Tensor:
    """[..., heads], the L2 of each head's channels, in fp32."""
    heads = activations.unflatten(-1, (-1, head_dim))
    norms: Tensor = torch.linalg.vector_norm(heads, dim=-1, dtype=torch.float32)
    return norms


class Observer:
    """Hooks that score the width of one model; `close` leaves it as it was."""

    def __init__(
        self,
        model: nn.Module,
        score: Score,
        ssm_score: Score | None = None,
        *,
        expert_score: str = DEFAULT_EXPERT_SCORE,
    ):
        """Recurrent parts are scored by `ssm_score`, by default as all others."""
        config: Any = model.config
        self.config, self.family = config, family_of(config)
        self.sizes, self.score = architecture_of(config), score
        self.ssm_score = score if ssm_score is None else ssm_score
        self.expert_score = expert_score
        self.hidden: list[ActivationStatistics] = []
        self.sites: dict[tuple[str, int], ActivationStatistics] = {}
        """(axis, layer) -> what its units are scored by."""
        self.experts: dict[int, RoutedExperts] = {}
        self._handles: list[Any] = []
        for index, layer in enumerate(layers_of(model)):
            self._observe(layer, index)

    def _observe(self, layer: nn.Module, index: int) -> None:
        family, sizes = self.family, self.sizes
        parts = family.parts(self.config, index)
        if ATTENTION in parts:
            self._reads_hidden(layer, family.attention_input)
            width = self._unit_rows(index, family.attention_output, size="heads")
            heads = ActivationStatistics(self.score, width or head_sizes(self.config).values)
            self.sites["heads", index] = self._at(layer, family.attention_output, heads)
        if FFN in parts or EXPERTS in parts:
            self._reads_hidden(layer, family.ffn_input)
        if FFN in parts:
            self._score(layer, family.ffn_output, axis="ffn", index=index)
        if EXPERTS in parts and "experts" not in family.unsorted:
            self.experts[index] = RoutedExperts(
                layer.get_submodule(family.experts_module),
                self.score,
                experts=sizes.experts,
                neurons=sizes.expert_ffn,
                run=family.run_expert,
                weighted=self.expert_score == REAP,
            )
            if sizes.shared_ffn:
                self._score(layer, family.shared_output, axis="shared_ffn", index=index)
            if sizes.expert_latent:
                self._score(layer, family.experts_module, axis="expert_latent", index=index)
        if SSM in parts:
            self._observe_recurrence(layer, index)

    def _unit_rows(self, index: int, module: str, *, size: str) -> int:
        """Rows that an output projection reads of each unit of a size; 0 where it does not say."""
        rows = axis_rows(self.config)
        axes = self.family.layer_axes(self.config, index).get(f"{module}.weight", ())
        found = [rows[axis].rows for axis in axes if axis in rows and rows[axis].size == size]
        return found[0] if found else 0

    def _observe_recurrence(self, layer: nn.Module, index: int) -> None:
        """Score the channels as they enter the state (Minitron-SSM, arXiv 2504.11409), and the
        state by what is written into it and read from it."""
        where = self.family.recurrence
        assert where is not None, "layers with a recurrent state are observed somewhere"
        self._reads_hidden(layer, where.input)
        width = self.sizes.ssm_head_dim
        if where.channels is None:
            for axis, head_dim in (("ssm_heads", width), ("ssm_head_dim", 0)):
                channels = ActivationStatistics(self.ssm_score, head_dim)
                self.sites[axis, index] = self._at(layer, where.output, channels)
            return
        assert where.keys is not None and where.queries is not None, "a state is written and read"
        axes = self.family.layer_axes(self.config, index)[f"{where.input}.weight"][0]
        places = places_of(self.sizes, axes, rows=axis_rows(self.config))
        parts = {
            ("ssm_heads", index): (where.channels, width),
            ("ssm_head_dim", index): (where.channels, 0),
            (KEYS, index): (where.keys, 0),
            (QUERIES, index): (where.queries, 0),
        }
        for key, (part, head_dim) in parts.items():
            site = ActivationStatistics(self.ssm_score, head_dim, places[part][1])
            self.sites[key] = site
            hook: Callable[..., None] = partial(_after, site)
            module = layer.get_submodule(where.input)
            self._handles.append(module.register_forward_hook(hook))

    def _reads_hidden(self, layer: nn.Module, name: str) -> None:
        self.hidden.append(self._at(layer, name, ActivationStatistics(self.score)))

    def _score(self, layer: nn.Module, name: str, *, axis: str, index: int) -> None:
        width = self._unit_rows(index, name, size=axis)
        units = ActivationStatistics(self.score, width if width > 1 else 0)
        self.sites[axis, index] = self._at(layer, name, units)

    def _at(
        self, layer: nn.Module, name: str, statistics: ActivationStatistics
    ) -> ActivationStatistics:
        """`statistics` of the input of a module."""
        hook: Callable[..., None] = lambda module, inputs: statistics.update(inputs[0])  # noqa: E731
        self._handles.append(layer.get_submodule(name).register_forward_pre_hook(hook))
        return statistics

    def sums(self) -> Sums:
        """Of all that was seen, under "place.NUMBER" or "AXIS.LAYER"."""
        sums: Sums = {}
        for place, site in enumerate(self.hidden):
            sums |= site.samples.sums(f"{PLACE}.{place}")
        for (axis, layer), site in self.sites.items():
            sums |= site.samples.sums(f"{axis}.{layer}")
        for layer, routed in self.experts.items():
            sums |= routed.sums(f"{EXPERTS}.{layer}")
        return sums

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        for routed in self.experts.values():
            routed.close()


def width_scores(
    config: Any, sums: Mapping[str, Tensor], *, score: Score, ssm_score: Score
) -> dict[str, Tensor]:
    """By axis of width, of a model with this configuration; zeros for what a layer has not.

    Args:
        config: Of the model.
        sums: Those of `Observer`, of all text.
        score: What the observer scored by.
        ssm_score: What it scored recurrent parts by.
    """
    sizes = architecture_of(config)
    layers, heads = sizes.layers, sizes.ssm_heads
    values = (name.removesuffix(VALUES) for name in sums if name.endswith(VALUES))
    sites = [(axis, int(index)) for axis, _, index in (name.partition(".") for name in values)]

    def scored(axis: str, index: int, by: Score = score) -> Tensor:
        return OverSamples.of(by.batch, sums, f"{axis}.{index}").score()

    read = [scored(PLACE, place) for axis, place in sites if axis == PLACE]
    result = {
        "hidden": torch.stack(read).sum(0),
        "heads": torch.zeros(layers, sizes.heads),
        "ffn": torch.zeros(layers, sizes.ffn),
        "experts": torch.zeros(layers, sizes.experts),
        "expert_ffn": torch.zeros(layers, sizes.experts, sizes.expert_ffn),
        "shared_ffn": torch.zeros(layers, sizes.shared_ffn),
        "expert_latent": torch.zeros(layers, sizes.expert_latent),
        "ssm_heads": torch.zeros(layers, heads),
        "ssm_head_dim": torch.zeros(layers, heads, sizes.ssm_head_dim),
        "ssm_state": torch.zeros(layers, sizes.ssm_groups, sizes.ssm_state),
    }
    for axis, layer in sites:
        if axis in result:
            found = scored(axis, layer, ssm_score if axis in RECURRENT else score)
            result[axis][layer] = found.view_as(result[axis][layer])
        elif axis == KEYS:
            state = scored(KEYS, layer, ssm_score) * scored(QUERIES, layer, ssm_score)
            result["ssm_state"][layer] = state.view_as(result["ssm_state"][layer])
    for layer in range(layers):
        if f"{EXPERTS}.{layer}.tokens" in sums:
            result["experts"][layer] = expert_scores(sums, f"{EXPERTS}.{layer}")
            neurons = neuron_scores(sums, f"{EXPERTS}.{layer}", score=score)
            result["expert_ffn"][layer] = neurons
    return result


def _after(site: ActivationStatistics, module: nn.Module, inputs: Any, output: Tensor) -> None:
    site.update(output)
