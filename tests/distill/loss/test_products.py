"""Products in fp32 for 16-bit models on processors that are slow in 16 bits."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

import distill.loss.products
from distill.loss.products import with_fast_products

CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
    ),
    "gpt2": GPT2Config(vocab_size=96, n_embd=48, n_layer=2, n_head=6, n_positions=64),
}
IDS = torch.arange(40)[None]


@pytest.fixture
def without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = lambda dtype, device: dtype == torch.float32  # noqa: E731
    monkeypatch.setattr(distill.loss.products, "multiplies", wide)


def model_of(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32).to(dtype).eval()


@pytest.mark.usefixtures("without_instructions")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_values_stay_those_of_the_narrow_model(name: str, dtype: torch.dtype) -> None:
    plain, wide = model_of(name, dtype), with_fast_products(model_of(name, dtype))
    with torch.no_grad():
        for expected, found in (
            (plain(input_ids=IDS).logits, wide(input_ids=IDS).logits),
            (plain.base_model(input_ids=IDS)[0], wide.base_model(input_ids=IDS)[0]),
        ):
            assert found.dtype == dtype
            scale = expected.float().abs().max() * torch.finfo(dtype).eps * 16
            assert (found.float() - expected.float()).abs().max() <= scale
    assert all(parameter.dtype == dtype for parameter in wide.parameters())


@pytest.mark.usefixtures("without_instructions")
def test_products_are_taken_in_fp32() -> None:
    model = with_fast_products(model_of("llama", torch.bfloat16))
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func in distill.loss.products.PRODUCTS:
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
        model(input_ids=IDS)
    assert len(seen) > 10 and set(seen) == {torch.float32}


@pytest.mark.usefixtures("without_instructions")
def test_gradients_pass_through() -> None:
    model = with_fast_products(model_of("llama", torch.bfloat16))
    model(input_ids=IDS, labels=IDS).loss.backward()
    weight = model.model.layers[0].mlp.down_proj.weight
    assert weight.grad is not None and weight.grad.dtype == torch.bfloat16
    assert torch.isfinite(weight.grad).all() and weight.grad.abs().max() > 0


def test_a_device_that_is_fast_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.loss.products, "multiplies", lambda dtype, device: True)
    model = model_of("llama", torch.bfloat16)
    forward = model.forward
    assert with_fast_products(model).forward == forward
