"""Experts of a mixture, scored and counted on the tokens that are routed to them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.families.block import EXPERTS
from pruning.families.table import family_of
from pruning.importance.calibration import run_hooked
from pruning.importance.reductions import Sums
from pruning.importance.scores import Score

ExpertRun = Callable[[Any, int, Tensor], tuple[Tensor, Tensor]]
"""(module of the experts, expert, tokens) -> its neurons and its output."""


class RoutedExperts:
    """Runs a layer's experts in the model's stead and scores them on the tokens routed to them.

    An expert's score is the mean L2 norm of its output over its tokens, or of its output times what
    the router weights it with (REAP, arXiv 2510.13999); a neuron's is the score's sequence
    reduction over them. An expert that no token reaches scores 0.
    """

    def __init__(
        self,
        module: Any,
        score: Score,
        *,
        experts: int,
        neurons: int,
        run: ExpertRun,
        weighted: bool = False,
    ):
        """Of `module`, whose single experts `run` runs; `weighted` by the router or not."""
        self.module, self.run, self.weighted = module, run, weighted
        self.score = score
        self.tokens = torch.zeros(experts, dtype=torch.float64)
        self.outputs = torch.zeros(experts, dtype=torch.float64)
        self.neurons = torch.zeros(3, experts, neurons, dtype=torch.float64)
        """Sums of the neurons' value, magnitude (or effect on the loss) and square."""
        # accelerate wraps `forward` to fetch weights from disk; what it wraps is then ours.
        self._place = "_old_forward" if hasattr(module, "_hf_hook") else "forward"
        self._own = module.__dict__.get(self._place)
        setattr(module, self._place, self._forward)

    def _forward(
        self,
        hidden_states: Tensor,
        top_k_index: Tensor | None = None,
        top_k_weights: Tensor | None = None,
    ) -> Tensor:
        """Of [tokens, hidden] and, per token, the chosen experts and their weights [tokens, k]; of
        [experts * tokens, hidden] without, where each token times its weight enters its experts,
        and zeros the others."""
        if top_k_index is None or top_k_weights is None:
            return self._forward_weighted(hidden_states)
        module = self.module
        result = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            token, choice = torch.where(top_k_index == expert)
            neurons, output = self.run(module, expert, hidden_states[token])
            weighted = output * top_k_weights[token, choice, None]
            self._update(expert, neurons, output=weighted if self.weighted else output)
            result.index_add_(0, token, weighted.to(result.dtype))
        return result

    def _forward_weighted(self, hidden_states: Tensor) -> Tensor:
        rows = hidden_states.unflatten(0, (len(self.tokens), -1))
        result = torch.zeros_like(rows)
        for expert, tokens in enumerate(rows):
            token = torch.where(tokens.any(-1))[0]
            neurons, output = self.run(self.module, expert, tokens[token])
            self._update(expert, neurons, output=output)
            result[expert] = torch.zeros_like(tokens).index_add(0, token, output)
        return result.flatten(0, 1)

    def _update(self, expert: int, neurons: Tensor, *, output: Tensor) -> None:
        self.tokens[expert] += len(neurons)
        self.outputs[expert] += float(output.detach().float().norm(dim=-1).sum())
        if self.score.signal == "gradient":
            if neurons.requires_grad:
                inner = neurons.detach()
                neurons.register_hook(lambda grad: self._update_gradient(expert, inner, grad))
            return
        values = neurons.double()
        self.neurons = self.neurons.to(values.device)
        sums = torch.stack((values.sum(0), values.abs().sum(0), values.square().sum(0)))
        self.neurons[:, expert] += sums

    def _update_gradient(self, expert: int, neurons: Tensor, gradient: Tensor) -> None:
        self.neurons = self.neurons.to(neurons.device)
        self.neurons[1, expert] += (neurons.double() * gradient.double()).sum(0).abs()

    def sums(self, name: str) -> Sums:
        """Under this name."""
        return {
            f"{name}.tokens": self.tokens,
            f"{name}.outputs": self.outputs,
            f"{name}.neurons": self.neurons.cpu(),
        }

    def close(self) -> None:
        """Give the module its own `forward` back."""
        if self._own is None:
            delattr(self.module, self._place)
        else:
            setattr(self.module, self._place, self._own)


def expert_scores(sums: Mapping[str, Tensor], name: str) -> Tensor:
    """[experts] in fp32, of what `RoutedExperts.sums` gave under this name."""
    return (sums[f"{name}.outputs"] / sums[f"{name}.tokens"].clamp_min(1)).float()


def neuron_scores(sums: Mapping[str, Tensor], name: str, *, score: Score) -> Tensor:
    """[experts, expert_ffn] in fp32, of the same."""
    means = sums[f"{name}.neurons"] / sums[f"{name}.tokens"].clamp_min(1)[None, :, None]
    values, magnitudes, squares = means.unbind()
    if score.signal == "gradient" or score.sequence == "mean":
        return magnitudes.float()
    if score.sequence == "l2":
        return squares.sqrt().float()
    return (squares - values.square()).clamp_min(0).float()


@dataclass(frozen=True)
class Routing:
    """How a mixture's tokens are routed, by its layers with experts."""

    tokens: dict[int, Tensor]
    """[experts], the tokens that are routed to each."""
    similarity: dict[int, Tensor]
    """[experts, experts], the cosine of their logits over all tokens, less each expert's mean."""


def measure_routing(model: nn.Module, batches: Iterable[Tensor]) -> Routing:
    """The routing of a Hugging Face causal LM on `batches` of token ids [batch, sequence].

    Raises:
        PruningError: There are no batches.
    """
    config: Any = model.config
    family = family_of(config)
    sums = {}
    handles = []
    for layer in range(config.num_hidden_layers):
        if family.has(EXPERTS, config, layer):
            module = model.get_submodule(f"{family.layers_module}.{layer}")
            sums[layer] = _LogitSums(int(getattr(config, family.fields["experts"])))
            hook = sums[layer].add
            handles.append(_router_of(module, family.experts_module).register_forward_hook(hook))
    run_hooked(model, batches, handles=handles)
    return Routing(
        {layer: total.tokens for layer, total in sums.items()},
        {layer: total.similarity() for layer, total in sums.items()},
    )


def _router_of(layer: nn.Module, experts_module: str) -> nn.Module:
    """The router beside the experts of a layer."""
    beside: Any = layer.get_submodule(experts_module.rpartition(".")[0])
    router: nn.Module = beside.gate if hasattr(beside, "gate") else beside.router
    return router


class _LogitSums:
    """Sums over tokens of the logits of a router and of their products, and its choices."""

    def __init__(self, experts: int):
        self.seen = 0
        self.tokens = torch.zeros(experts, dtype=torch.int64)
        self.logits = torch.zeros(experts, dtype=torch.float64)
        self.products = torch.zeros(experts, experts, dtype=torch.float64)

    def add(self, router: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> None:
        """A hook. Of what a router gives, the logits have a column for every expert and no zeros;
        the choices are indices, or the columns of other scores that are not zero."""
        found = [part.detach() for part in output]
        columns = [part for part in found if part.is_floating_point()]
        columns = [part for part in columns if part.shape[-1] == len(self.logits)]
        logits = max(columns, key=torch.count_nonzero).flatten(0, -2).double()
        self.seen += len(logits)
        self.logits += logits.sum(0).cpu()
        self.products += (logits.T @ logits).cpu()
        indices = [part for part in found if not part.is_floating_point()]
        if indices:
            self.tokens += indices[0].flatten().bincount(minlength=len(self.tokens)).cpu()
        else:
            scores = min(columns, key=torch.count_nonzero)
            self.tokens += scores.flatten(0, -2).count_nonzero(0).cpu()

    def similarity(self) -> Tensor:
        mean = self.logits / self.seen
        covariance = self.products / self.seen - mean[:, None] * mean
        deviation = covariance.diagonal().clamp_min(1e-30).sqrt()
        return covariance / deviation[:, None] / deviation
