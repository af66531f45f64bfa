from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from distill.loss import fused_head as heads
from distill.loss.divergences import DistillationLoss
from distill.loss.fused_head import logits_loss, projected_loss
from distill.loss.head import Head
from distill.loss.supervision import Supervision, TeacherHead
from distill.targets.batch import TargetBatch
from tests.distill.conftest import MakeModel
from tests.exactness import EXACT
from tests.pruning.models import VARIANTS, build_teacher

BATCH, LENGTH = 2, 9

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Logits of 5 tokens at a time, so that 18 tokens take four passes, the last a short one.

    Their gradient is made of 2 tokens at a time.
    """

    def use(vocabulary: int) -> None:
        monkeypatch.setattr(heads, "_CPU_PIECE", 5 * vocabulary)
        monkeypatch.setattr(heads, "_CPU_BLOCK", 2 * vocabulary)

    return use


def head_of(model: Any) -> Head:
    head = Head.of(model)
    assert head is not None
    return head


def inputs(vocabulary: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (BATCH, LENGTH), generator=generator)
    log_probs = torch.randn(BATCH * LENGTH, vocabulary, generator=generator).log_softmax(-1)
    kept, entries = log_probs.topk(4, -1)
    target = TargetBatch(entries, kept, 1 - kept.exp().sum(-1))
    labels = functional.pad(ids[:, 1:], (0, 1), value=-1).flatten()
    token_weights = torch.rand(BATCH * LENGTH, 2, generator=generator)
    return ids, Supervision(DistillationLoss(), target, labels, token_weights)


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


TAKEN_APART = [variant for variant in VARIANTS if variant != "llama4"]
"""Llama 4's head is not: its loss is that of whole logits."""


@pytest.mark.parametrize("variant", TAKEN_APART)
def test_loss_in_pieces_is_the_loss_of_the_models_own_logits(
    variant: str, small_pieces: Callable[[int], None]
) -> None:
    model = build_teacher(variant)
    vocabulary = model.config.vocab_size
    small_pieces(vocabulary)
    ids, given = inputs(vocabulary)
    given = replace(given, loss=DistillationLoss(temperature=1.5, lm_weight=0.2))
    logits = model(input_ids=ids, use_cache=False).logits
    whole = logits_loss(logits.flatten(0, 1), given)
    whole.backward()
    wanted = gradients(model)
    head = Head.of(model)
    assert head is not None
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
    loss = 2 * projected_loss(head, hidden, given)
    loss.backward()
    assert loss.item() == pytest.approx(2 * whole.item(), rel=EXACT)
    found = gradients(model)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        scale = wanted[name].abs().max().clamp_min(EXACT)
        assert (value - 2 * wanted[name]).abs().max() <= EXACT * scale, name


def test_logits_loss_is_autograds(small_pieces: Callable[[int], None]) -> None:
    small_pieces(50)
    generator = torch.Generator().manual_seed(1)
    logits = (2 * torch.randn(BATCH * LENGTH, 50, generator=generator)).requires_grad_()
    _, given = inputs(50)
    given = replace(given, loss=DistillationLoss("ce"), target=None)
    (3 * logits_loss(logits, given)).backward()
    assert logits.grad is not None
    found = logits.grad.clone()
    logits.grad = None
    losses = functional.cross_entropy(logits, given.labels, ignore_index=-1, reduction="none")
    (3 * losses * given.token_weights[:, 1]).sum().backward()
    torch.testing.assert_close(found, logits.grad, rtol=EXACT, atol=EXACT)


def test_a_head_that_does_something_else_is_not_taken_apart(make_model: MakeModel) -> None:
    model = make_model()
    assert Head.of(model) is not None
    model.lm_head.register_forward_hook(lambda module, args, output: output * 2)
    assert Head.of(model) is None


def test_no_tensor_of_all_logits_is_made(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, tokens = 4096, 64
    model = make_model(vocabulary)
    monkeypatch.setattr(heads, "_CPU_PIECE", 4 * vocabulary)
    head = head_of(model)
    hidden = torch.randn(tokens, 16, requires_grad=True)
    weights = torch.full((tokens, 2), 1 / tokens)
    given = Supervision(DistillationLoss("ce"), None, torch.arange(tokens), weights)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[-1:] == (vocabulary,):
                largest = max(largest, result.numel())
            return result

    with Watch():
        projected_loss(head, hidden, given).backward()
    assert 0 < largest <= 16 * vocabulary


def test_a_live_teachers_targets_are_its_distribution(make_model: MakeModel) -> None:
    teacher = make_model(sharpness=3)
    ids = torch.arange(10).view(1, 10)
    with torch.no_grad():
        hidden = teacher.base_model(input_ids=ids).last_hidden_state.flatten(0, 1)
        logits = teacher(input_ids=ids).logits.flatten(0, 1)
    head = TeacherHead(head_of(teacher), hidden, 60, 2.0, torch.device("cpu"))
    target = head.piece(3, 8).distribution()
    wanted = (logits[3:8, :60] / 2).log_softmax(-1)
    torch.testing.assert_close(target.log_probs, wanted)
    assert target.ids is None


def compiled_by(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Losses compiled in this test by `backend`."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(heads, "_compiled_walk", cache(heads._compiled_walk.__wrapped__))


@pytest.mark.parametrize("loss", ["forward-kl", "reverse-kl", "ce"])
@pytest.mark.parametrize("live", [False, True])
def test_a_compiled_loss_is_the_same(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, loss: str, live: bool
) -> None:
    """Without the code generator, which is torch's own and takes a C++ compiler."""
    compiled_by(monkeypatch, "aot_eager")
    model, teacher = make_model(), make_model(sharpness=3)
    monkeypatch.setattr(heads, "_CPU_PIECE", 5 * 64)
    ids, given = inputs(64)
    hidden = model.base_model(input_ids=ids).last_hidden_state.flatten(0, 1).detach()
    target: Any = given.target
    if live:
        states = teacher.base_model(input_ids=ids).last_hidden_state.flatten(0, 1).detach()
        target = TeacherHead(head_of(teacher), states, 60, 1.5, torch.device("cpu"))
    given = replace(given, loss=DistillationLoss(loss, 1.5, 0.2), target=target)
    found = []
    for compiled in (False, True):
        value = projected_loss(head_of(model), hidden.requires_grad_(), given, compiled=compiled)
        value.backward()
        found.append((value.detach(), hidden.grad, model.lm_head.weight.grad))
        hidden.grad = model.lm_head.weight.grad = None
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=EXACT, atol=EXACT)


def test_a_loss_that_cannot_be_compiled_goes_on_as_it_is(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler")

    compiled_by(monkeypatch, broken)
    model = make_model()
    _, given = inputs(64)
    hidden = torch.randn(BATCH * LENGTH, 16)
    with caplog.at_level("INFO"):
        losses = [
            projected_loss(head_of(model), hidden, given, compiled=compiled).item()
            for compiled in (False, True, True)
        ]
    assert losses[0] == losses[1] == losses[2]
    assert caplog.text.count("no compiler") == 1


def test_bf16_is_that_of_autocast(make_model: MakeModel) -> None:
    model = make_model(vocabulary=300, hidden=32)
    _, given = inputs(300)
    hidden = torch.randn(BATCH * LENGTH, 32, generator=torch.Generator().manual_seed(2))
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = projected_loss(head_of(model), hidden.requires_grad_(), given)
        loss.backward()
        losses.append((loss.item(), model.lm_head.weight.grad.clone()))
        model.zero_grad()
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-2)
    assert losses[0][0] != losses[1][0]
    cosine = torch.cosine_similarity(losses[0][1].flatten(), losses[1][1].flatten(), dim=0)
    assert cosine > 0.999
