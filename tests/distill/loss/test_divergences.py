"""What every loss keeps to: its formula, its gradient, and nothing at the teacher."""

import pytest
import torch
from torch import Tensor

from distill import DistillError
from distill.loss.divergences import DistillationLoss, cross_entropy, token_losses
from distill.loss.names import CROSS_ENTROPY, FORWARD_KL, LOSSES, MEAN_SQUARES
from distill.targets.batch import TargetBatch
from tests.exactness import EXACT

VOCABULARY = 50
TOKENS = 7
COMPARED = [loss for loss in LOSSES if loss != CROSS_ENTROPY]
"""Losses between two models: each is held to the same cases."""
DIVERGENCES = [loss for loss in COMPARED if loss != MEAN_SQUARES]

in_float64 = pytest.mark.usefixtures("float64")


def random(seed: int, scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(TOKENS, VOCABULARY, generator=generator)


def teacher_logits() -> Tensor:
    return random(1, 3.0)


def student(scale: float = 2.0) -> Tensor:
    return random(2, scale)


def whole(temperature: float = 1.0) -> TargetBatch:
    log_probs = torch.log_softmax(teacher_logits() / temperature, -1)
    return TargetBatch(None, log_probs, torch.zeros(TOKENS))


def topk(k: int, temperature: float = 1.0) -> TargetBatch:
    kept, ids = torch.softmax(teacher_logits().double() / temperature, -1).topk(k, -1)
    return TargetBatch(ids, kept.log().float(), (1 - kept.sum(-1)).clamp_min(0).float())


def sampled(draws: int, seed: int = 3) -> TargetBatch:
    log_probs = torch.log_softmax(teacher_logits(), -1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(log_probs.exp(), draws, replacement=True, generator=generator)
    counts = torch.zeros_like(log_probs).scatter_add_(-1, drawn, torch.ones(drawn.shape))
    share, ids = (counts / draws).topk(int((counts > 0).sum(-1).max()), -1)
    known = log_probs.gather(-1, ids) * (share > 0)
    return TargetBatch(ids * (share > 0), known, torch.zeros(TOKENS), share)


def divergence(name: str, p: Tensor, s: Tensor) -> Tensor:
    """By the book, of probabilities [tokens, outcomes]."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(-1)

    middle = (p + s) / 2
    return {
        "forward-kl": kl(p, s),
        "reverse-kl": kl(s, p),
        "jensen-shannon": (kl(p, middle) + kl(s, middle)) / 2,
    }[name]


def exact(logits: Tensor, target: TargetBatch, loss: str, temperature: float) -> Tensor:
    """The loss of each token by autograd, all outcomes written out."""
    scaled = logits / temperature
    entries = target.log_probs.to(scaled)
    if loss == MEAN_SQUARES:
        chosen = scaled if target.ids is None else scaled.gather(-1, target.ids)
        difference = (chosen - chosen.mean(-1, keepdim=True)) - (
            entries - entries.mean(-1, keepdim=True)
        )
        return difference.square().mean(-1) * temperature**2
    s, p = torch.softmax(scaled, -1), entries.exp()
    if target.ids is not None:
        others = s.scatter(-1, target.ids, 0.0).sum(-1, keepdim=True)
        s = torch.cat([s.gather(-1, target.ids), others], -1)
        p = torch.cat([p, target.tail_probability.to(p).unsqueeze(-1)], -1)
    return divergence(loss, p, s) * temperature**2


TARGETS = {"full": lambda t: whole(t), "top 1": lambda t: topk(1, t), "top 8": lambda t: topk(8, t)}


@in_float64
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("loss", COMPARED)
def test_value_and_gradient_are_those_of_autograd(loss: str, kind: str, temperature: float) -> None:
    target = TARGETS[kind](temperature)
    reference = student().double().requires_grad_()
    wanted = exact(reference, target, loss, temperature)
    wanted.sum().backward()
    losses, gradient = token_losses(student(), target, loss=loss, temperature=temperature)
    torch.testing.assert_close(losses.double(), wanted.detach(), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(gradient.double(), reference.grad, rtol=EXACT, atol=EXACT)
    if (loss, kind) != (MEAN_SQUARES, "top 1"):
        assert losses.min() > 1e-3


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("loss", COMPARED)
def test_fp32_is_as_near_as_rounding_allows(loss: str, kind: str) -> None:
    target = TARGETS[kind](1.0)
    reference = student().double().requires_grad_()
    wanted = exact(reference, target, loss, 1.0)
    wanted.sum().backward()
    # a softmax and a sum over the vocabulary, of logits that are as large as these
    tolerance = 2 * VOCABULARY * torch.finfo(torch.float32).eps * float(student().abs().max())
    losses, gradient = token_losses(student(), target, loss=loss)
    assert losses.dtype == gradient.dtype == torch.float32
    assert (losses - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1)
    assert reference.grad is not None
    assert (gradient - reference.grad).abs().max() <= tolerance


@in_float64
def test_draws_give_the_kl_and_its_gradient_on_average() -> None:
    exact_losses, exact_gradient = token_losses(student(), whole())
    draws = [token_losses(student(), sampled(50, seed)) for seed in range(400)]
    losses = torch.stack([loss for loss, _ in draws])
    gradients = torch.stack([gradient for _, gradient in draws])
    for values, wanted in ((losses, exact_losses), (gradients, exact_gradient)):
        variance = values.var(0).sum() / len(draws)
        assert (values.mean(0) - wanted).square().sum() < 2 * variance
    assert losses.std(0).min() > 0


@in_float64
def test_draws_in_fp64_by_autograd() -> None:
    target = sampled(20)
    assert target.ids is not None and target.share is not None
    reference = student().double().requires_grad_()
    log_probs = torch.log_softmax(reference, -1).gather(-1, target.ids)
    wanted = (target.share * (target.log_probs - log_probs)).sum(-1)
    wanted.sum().backward()
    losses, gradient = token_losses(student(), target)
    torch.testing.assert_close(losses.double(), wanted.detach(), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(gradient.double(), reference.grad, rtol=EXACT, atol=EXACT)


@in_float64
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("loss", COMPARED)
def test_no_loss_and_no_gradient_at_the_teacher(loss: str, kind: str) -> None:
    losses, gradient = token_losses(teacher_logits(), TARGETS[kind](1.0), loss=loss)
    assert losses.abs().max() < EXACT
    assert gradient.abs().max() < EXACT


@in_float64
@pytest.mark.parametrize("loss", COMPARED)
def test_a_shift_of_the_logits_changes_nothing(loss: str) -> None:
    plain = token_losses(student(), topk(8), loss=loss)
    moved = token_losses(student() + 5.0, topk(8), loss=loss)
    for ours, theirs in zip(plain, moved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("size", [1e2, 1e4, 3e38])
@pytest.mark.parametrize("loss", DIVERGENCES)
def test_extreme_logits_stay_finite(loss: str, size: float) -> None:
    logits = torch.zeros(TOKENS, VOCABULARY)
    logits[:, 0], logits[:, 1] = size, -size
    for target in (topk(1), topk(8), whole(), sampled(20)):
        if target.share is not None and loss != FORWARD_KL:
            continue
        losses, gradient = token_losses(logits, target, loss=loss)
        assert torch.isfinite(losses).all()
        assert torch.isfinite(gradient).all()


@in_float64
@pytest.mark.parametrize("k", [1, 4, 16, VOCABULARY - 1])
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
@pytest.mark.parametrize("loss", DIVERGENCES)
def test_a_bucketed_divergence_is_never_above_the_exact_one(
    loss: str, k: int, scale: float
) -> None:
    bucketed, _ = token_losses(student(scale), topk(k), loss=loss)
    exactly, _ = token_losses(student(scale), whole(), loss=loss)
    assert (bucketed <= exactly + EXACT).all()
    assert (bucketed >= -EXACT).all()
    if k == VOCABULARY - 1:
        torch.testing.assert_close(bucketed, exactly, rtol=EXACT, atol=EXACT)


@in_float64
@pytest.mark.parametrize("loss", COMPARED)
def test_tokens_that_only_the_student_knows_have_no_probability(loss: str) -> None:
    padded = torch.cat([student(), torch.full((TOKENS, 3), -40.0)], -1)
    losses, gradient = token_losses(padded, whole(), loss=loss)
    wanted, wanted_gradient = token_losses(student(), whole(), loss=loss)
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(gradient[:, :VOCABULARY], wanted_gradient)
    assert gradient[:, VOCABULARY:].abs().max() < 1e-12


@in_float64
def test_tokens_that_the_teacher_rules_out_cost_nothing() -> None:
    log_probs = torch.log_softmax(teacher_logits(), -1)
    log_probs[:, :3] = -torch.inf
    target = TargetBatch(None, log_probs, torch.zeros(TOKENS))
    losses, gradient = token_losses(student(), target)
    assert torch.isfinite(losses).all() and torch.isfinite(gradient).all()
    p, q = log_probs.double().exp(), torch.softmax(student().double(), -1)
    wanted = (torch.xlogy(p, p) - p * q.log()).sum(-1)
    torch.testing.assert_close(losses.double(), wanted, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(
        gradient.double(), q * p.sum(-1, keepdim=True) - p, atol=EXACT, rtol=0
    )


@in_float64
def test_cross_entropy_is_that_of_torch_and_unknown_labels_cost_nothing() -> None:
    labels = torch.tensor([3, -1, 0, 49, -1, 7, 7])
    logits = student().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    wanted.sum().backward()
    losses, gradient = cross_entropy(student(), labels)
    torch.testing.assert_close(losses, wanted.detach())
    torch.testing.assert_close(gradient, logits.grad, rtol=EXACT, atol=EXACT)


@in_float64
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_weighs_tokens_and_text(loss: str) -> None:
    """What has no weight is not learnt."""
    generator = torch.Generator().manual_seed(5)
    shares = torch.rand(TOKENS, 2, generator=generator)
    shares[2] = 0
    labels = torch.tensor([3, -1, 0, 49, 1, 7, 7])
    objective = DistillationLoss(loss, lm_weight=0.3)
    target = None if loss == CROSS_ENTROPY else topk(8)
    logits = student().double().requires_grad_()
    text = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    wanted = (text * shares[:, 1]).sum() * (1.0 if loss == CROSS_ENTROPY else 0.3)
    if target is not None:
        wanted = wanted + (exact(logits, target, loss, 1.0) * shares[:, 0]).sum()
    wanted.backward()
    value, gradient = objective.loss_and_gradient(
        student(), target, labels=labels, token_weights=shares
    )
    assert value.item() == pytest.approx(wanted.item(), rel=EXACT)
    torch.testing.assert_close(gradient.double(), logits.grad, rtol=EXACT, atol=EXACT)
    assert (gradient[2] == 0).all() and (gradient[3] != 0).any()


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(DistillError, match="'cosine'.*forward-kl"):
        DistillationLoss("cosine")
