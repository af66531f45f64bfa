"""Hooks on a model as it is, which score its heads, neurons, channels and experts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from pruning.families.shapes import architecture_of
from pruning.families.table import family_of, head_dim_of
from pruning.importance.reductions import OverSamples, over_sequence
from pruning.importance.scores import Score


class ActivationStatistics:
    """Running scores of the channels that pass one module of the model."""

    def __init__(self, score: Score, head_dim: int = 0):
        self.score = score
        self.head_dim = head_dim
        self.samples = OverSamples(score.batch)

    def update(self, activations: Tensor) -> None:
        """Add `activations` [batch, sequence, channels]; heads count by the L2 of theirs."""
        if self.score.signal == "gradient":
            if activations.requires_grad:
                # Detached: a hook that holds its own tensor keeps the whole graph alive.
                values = activations.detach()
                activations.register_hook(lambda grad: self._update_gradient(values, grad))
            return
        if self.head_dim:
            activations = head_norms(activations, self.head_dim)
        self.samples.add(over_sequence(activations, self.score.sequence))

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


class RoutedExperts:
    """Runs a layer's experts in the model's stead and scores them on the tokens routed to them.

    An expert's score is the mean L2 norm of its output over its tokens; a neuron's is the score's
    sequence reduction over them. An expert that no token reaches scores 0.
    """

    def __init__(self, module: Any, score: Score, *, experts: int, neurons: int):
        self.module = module
        self.score = score
        self.tokens = torch.zeros(experts, dtype=torch.float64)
        self.outputs = torch.zeros(experts, dtype=torch.float64)
        self.neurons = torch.zeros(3, experts, neurons, dtype=torch.float64)
        """Sums of the neurons' value, magnitude (or effect on the loss) and square."""
        # accelerate wraps `forward` to fetch weights from disk; what it wraps is then ours.
        self._place = "_old_forward" if hasattr(module, "_hf_hook") else "forward"
        self._own = module.__dict__.get(self._place)
        setattr(module, self._place, self._forward)

    def _forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Of [tokens, hidden] and, per token, the chosen experts and their weights [tokens, k]."""
        module = self.module
        result = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            token, choice = torch.where(top_k_index == expert)
            fused = nn.functional.linear(hidden_states[token], module.gate_up_proj[expert])
            gate, up = fused.chunk(2, dim=-1)
            neurons = module.act_fn(gate) * up
            output = nn.functional.linear(neurons, module.down_proj[expert])
            self._update(expert, neurons, output)
            weighted = output * top_k_weights[token, choice, None]
            result.index_add_(0, token, weighted.to(result.dtype))
        return result

    def _update(self, expert: int, neurons: Tensor, output: Tensor) -> None:
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

    def expert_scores(self) -> Tensor:
        """[experts] in fp32."""
        return (self.outputs / self.tokens.clamp_min(1)).float()

    def neuron_scores(self) -> Tensor:
        """[experts, expert_ffn] in fp32."""
        means = self.neurons.cpu() / self.tokens.clamp_min(1)[None, :, None]
        sums, magnitudes, squares = means.unbind()
        if self.score.signal == "gradient" or self.score.sequence == "mean":
            return magnitudes.float()
        if self.score.sequence == "l2":
            return squares.sqrt().float()
        return (squares - sums.square()).clamp_min(0).float()

    def close(self) -> None:
        """Give the module its own `forward` back."""
        if self._own is None:
            delattr(self.module, self._place)
        else:
            setattr(self.module, self._place, self._own)


class Observer:
    """Hooks that score the width of one model; `close` leaves it as it was."""

    def __init__(self, model: nn.Module, score: Score):
        config: Any = model.config
        family, sizes = family_of(config), architecture_of(config)
        self.sizes = sizes
        self.hidden: list[ActivationStatistics] = []
        self.heads: list[ActivationStatistics] = []
        self.ffn: dict[int, ActivationStatistics] = {}
        self.experts: dict[int, RoutedExperts] = {}
        self._handles: list[Any] = []
        for index, layer in enumerate(layers_of(model)):
            for name in (family.attention_input, family.ffn_input):
                self.hidden.append(self._at(layer.get_submodule(name), score))
            output = layer.get_submodule(family.attention_output)
            self.heads.append(self._at(output, score, head_dim_of(config)))
            if family.is_sparse(config, index):
                experts = layer.get_submodule(family.experts_module)
                self.experts[index] = RoutedExperts(
                    experts, score, experts=sizes.experts, neurons=sizes.expert_ffn
                )
            else:
                self.ffn[index] = self._at(layer.get_submodule(family.ffn_output), score)

    def _at(self, module: nn.Module, score: Score, head_dim: int = 0) -> ActivationStatistics:
        """Statistics of the input of a module."""
        statistics = ActivationStatistics(score, head_dim)
        hook: Callable[..., None] = lambda module, inputs: statistics.update(inputs[0])  # noqa: E731
        self._handles.append(module.register_forward_pre_hook(hook))
        return statistics

    def scores(self) -> dict[str, Tensor]:
        """By axis of width; zeros for the FFN of a mixture-of-experts layer, and the reverse."""
        sizes = self.sizes
        result = {
            "hidden": torch.stack([site.samples.score() for site in self.hidden]).sum(0),
            "heads": torch.stack([site.samples.score() for site in self.heads]),
            "ffn": torch.zeros(sizes.layers, sizes.ffn),
            "experts": torch.zeros(sizes.layers, sizes.experts),
            "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
        }
        for layer, site in self.ffn.items():
            result["ffn"][layer] = site.samples.score()
        for layer, routed in self.experts.items():
            result["experts"][layer] = routed.expert_scores()
            result["expert_ffn"][layer] = routed.neuron_scores()
        return result

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        for routed in self.experts.values():
            routed.close()


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a Hugging Face causal LM."""
    config: PretrainedConfig = model.config  # type: ignore[assignment]
    prefix = family_of(config).layer_prefix
    return [model.get_submodule(f"{prefix}.{i}") for i in range(config.num_hidden_layers)]
