"""Finding decoder layers, and reading and replacing what passes between them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig

from common.errors import DistillError
from distill.backend.layers import EMBEDDINGS, decoder_layers, feeding, recording
from tests.pruning.models import VARIANTS, build_config, build_teacher, token_ids


def hidden_states(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    """As transformers gives them: the embeddings, and what every layer but the last leaves."""
    return model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states


DEEP = [variant for variant in VARIANTS if build_config(variant).num_hidden_layers > 2]


@pytest.mark.parametrize("variant", DEEP)
def test_the_states_of_every_family_are_those_of_transformers(variant: str) -> None:
    model = build_teacher(variant)
    ids = token_ids(2, 9)
    wanted = hidden_states(model, ids)
    with recording(model, [EMBEDDINGS, 0, 1, 2]) as states:
        model(input_ids=ids, use_cache=False)
    assert len(decoder_layers(model)) == model.config.num_hidden_layers
    assert set(states) == {EMBEDDINGS, 0, 1, 2}
    for index in (EMBEDDINGS, 0, 1):
        assert torch.equal(states[index], wanted[index + 1])
    with feeding(model, {2: states[0]}), recording(model, [2]) as fed:
        model(input_ids=ids, use_cache=False)
    assert fed[2].shape == states[2].shape and not torch.equal(fed[2], states[2])
    with feeding(model, {0: states[1], 2: states[1]}), recording(model, [2]) as fed:
        model(input_ids=ids, use_cache=False)
    assert torch.equal(fed[2], states[2])


def gradients(model: Any, ids: Tensor) -> list[Tensor]:
    model.zero_grad()
    with recording(model, [EMBEDDINGS, 0, 2]) as states:
        model(input_ids=ids, use_cache=False)
        kept = dict(states)
        loss = torch.stack([s.square().mean() for s in states.values()]).sum()
        loss.backward()
        assert states.keys() == kept.keys()
        assert all(states[index] is kept[index] for index in kept)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt2", "gpt-neox", "qwen3-moe"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_pass_and_checkpointing_changes_nothing(variant: str, reentrant: bool) -> None:
    model: Any = build_teacher(variant, **_without_dropout(variant))
    model.train()
    ids = token_ids(2, 9)
    plain = gradients(model, ids)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    runs = [0] * 3
    for index, layer in enumerate(decoder_layers(model)):
        next(layer.children()).register_forward_hook(_counting(runs, index))
    checkpointed = gradients(model, ids)
    assert len(plain) == len(checkpointed) > 3
    for first, second in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(second, first)
    assert runs == [2, 2, 2]


def _counting(runs: list[int], index: int) -> Any:
    def hook(*_: Any) -> None:
        runs[index] += 1

    return hook


def _without_dropout(variant: str) -> dict[str, Any]:
    names = ("resid_pdrop", "embd_pdrop", "attn_pdrop") if variant == "gpt2" else ()
    return dict.fromkeys(names, 0.0)


def _run_again(layer: Any) -> None:
    """Have the backward pass run `layer` again, with the hooks on it and to its end."""
    call = layer._call_impl

    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(call, *args, use_reentrant=False, early_stop=False, **kwargs)

    layer._compiled_call_impl = run


def test_layers_that_run_again_in_the_backward_pass_are_not_taken_twice() -> None:
    model = build_teacher("llama-mha")
    for layer in decoder_layers(model):
        _run_again(layer)
    seen: list[int] = []
    decoder_layers(model)[1].register_forward_hook(lambda *_: seen.append(1))
    with recording(model, [EMBEDDINGS, 1]) as states:
        loss = model(input_ids=token_ids(2, 9), use_cache=False).logits.square().mean()
        kept = dict(states)
        loss.backward()
    assert len(seen) == 2
    assert all(states[index] is kept[index] for index in (EMBEDDINGS, 1))


def test_under_autocast_gradients_reach_the_weights() -> None:
    model = build_teacher("llama-gqa-tied")
    with recording(model, [0]) as states, torch.autocast("cpu", torch.bfloat16):
        model(input_ids=token_ids(2, 9), use_cache=False)
    states[0].float().square().mean().backward()
    first, second = list(decoder_layers(model))[:2]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in first.parameters())
    assert all(p.grad is None for p in second.parameters())


def test_the_latest_pass_counts_and_nothing_is_left_behind() -> None:
    model = build_teacher("gemma2")
    hooked = _hooks(model)
    with recording(model, [1]) as states, feeding(model, {0: torch.ones(2, 9, 54)}):
        model(input_ids=token_ids(2, 9), use_cache=False)
        first = states[1]
        model(input_ids=token_ids(2, 9), use_cache=False)
        assert torch.equal(states[1], first) and states[1] is not first
        assert _hooks(model) > hooked
    with recording(model, [0, 1]) as states:
        model(input_ids=token_ids(2, 9), use_cache=False)
        failing = decoder_layers(model)[1].register_forward_pre_hook(_stop)
        with pytest.raises(RuntimeError, match="stop"):
            model(input_ids=token_ids(2, 9), use_cache=False)
        assert set(states) == {0}  # no state of the pass before
        failing.remove()
    assert _hooks(model) == hooked
    with pytest.raises(RuntimeError, match="stop"), recording(model, [1]):
        _stop()
    assert _hooks(model) == hooked


def _stop(*_: Any) -> None:
    raise RuntimeError("stop")


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_what_cannot_be_found_is_one_sentence() -> None:
    model = build_teacher("llama-mha")
    for wanted in (3, -2):
        with (
            pytest.raises(DistillError, match=f"layer {wanted} .* 0 and 2, or -1"),
            recording(model, [wanted]),
        ):
            pass
    model.config.num_hidden_layers = 4
    with pytest.raises(DistillError, match="LlamaForCausalLM has no list of 4 modules"):
        decoder_layers(model)
    twins: Any = nn.Module()
    twins.config = LlamaConfig(num_hidden_layers=1)
    twins.left, twins.right = nn.ModuleList([nn.Linear(1, 1)]), nn.ModuleList([nn.Linear(1, 1)])
    with pytest.raises(DistillError, match="has lists left, right of 1 modules"):
        decoder_layers(twins)


def test_lists_inside_layers_are_no_layers() -> None:
    outer: Any = nn.Module()
    outer.config = LlamaConfig(num_hidden_layers=2)
    outer.stack = nn.ModuleList(nn.ModuleList([nn.Linear(1, 1)] * 2) for _ in range(2))
    assert decoder_layers(outer) is outer.stack
