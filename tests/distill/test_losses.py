import pytest
import torch
from torch import Tensor

from distill.losses import bucketed_forward_kl, bucketed_kl_per_token, full_forward_kl

VOCABULARY = 50


def exact(logits: Tensor, ids: Tensor, kept: Tensor, rest: Tensor, temperature: float) -> Tensor:
    """The bucketed KL in fp64, by autograd."""
    student = torch.log_softmax(logits.double() / temperature, -1)
    others = student.scatter(-1, ids, -torch.inf).logsumexp(-1)
    kept, rest = kept.double(), rest.double()
    terms = (torch.xlogy(kept, kept) - kept * student.gather(-1, ids)).sum(-1)
    return (terms + torch.xlogy(rest, rest) - rest * others).mean() * temperature**2


def target(k: int, tokens: int = 7, sharpness: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    teacher = sharpness * torch.randn(tokens, VOCABULARY, generator=generator)
    kept, ids = teacher.softmax(-1).topk(k, -1)
    return ids, kept, (1 - kept.sum(-1)).clamp_min(0)


def student(tokens: int = 7, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return scale * torch.randn(tokens, VOCABULARY, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 8, VOCABULARY - 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_value_and_gradient_are_those_of_autograd_in_fp64(temperature, k, dtype, tolerance):
    logits = student().to(dtype).requires_grad_()
    reference = logits.detach().double().requires_grad_()
    stored = target(k)
    loss = bucketed_forward_kl(logits, *stored, temperature)
    wanted = exact(reference, *stored, temperature)
    loss.backward()
    wanted.backward()
    assert logits.grad.dtype == dtype
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5 if temperature == 1 else tolerance)
    scale = reference.grad.abs().max()
    assert (logits.grad.double() - reference.grad).abs().max() < tolerance * scale


def test_gradient_is_scaled_by_what_follows_the_loss():
    stored = target(8)
    plain, scaled = (student().requires_grad_() for _ in range(2))
    bucketed_forward_kl(plain, *stored).backward()
    (3 * bucketed_forward_kl(scaled, *stored)).backward()
    torch.testing.assert_close(scaled.grad, 3 * plain.grad)


def test_no_loss_and_no_gradient_at_the_teacher():
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(7, VOCABULARY, generator=generator)).requires_grad_()
    loss = bucketed_forward_kl(logits, *target(8))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("size", [1e2, 1e4, 3e38])
def test_extreme_logits_stay_finite(size):
    logits = torch.zeros(7, VOCABULARY)
    logits[:, 0], logits[:, 1] = size, -size
    logits.requires_grad_()
    for k in (1, 8, VOCABULARY - 1):
        loss = bucketed_forward_kl(logits, *target(k))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


def test_a_teacher_without_any_rest():
    ids, kept, _ = target(8)
    kept = kept / kept.sum(-1, keepdim=True)
    logits = student().requires_grad_()
    reference = student().double().requires_grad_()
    stored = ids, kept, torch.zeros(len(ids))
    bucketed_forward_kl(logits, *stored).backward()
    exact(reference, *stored, 1.0).backward()
    torch.testing.assert_close(logits.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 16, VOCABULARY - 1])
@pytest.mark.parametrize("scale", [0.1, 2.0, 8.0])
def test_bucketed_kl_is_never_above_the_exact_one(k, scale):
    generator = torch.Generator().manual_seed(1)
    teacher = torch.log_softmax(3 * torch.randn(7, VOCABULARY, generator=generator), -1)
    logits = student(scale=scale)
    bucketed = bucketed_kl_per_token(logits, *target(k))
    whole = full_forward_kl(logits, teacher)
    assert (bucketed <= whole + 1e-5).all()
    assert (bucketed >= -1e-6).all()
    if k == VOCABULARY - 1:
        torch.testing.assert_close(bucketed, whole, rtol=1e-4, atol=1e-5)


def test_training_and_evaluation_agree_on_the_bucketed_kl():
    stored = target(8)
    mean = bucketed_kl_per_token(student(), *stored).mean()
    torch.testing.assert_close(bucketed_forward_kl(student(), *stored), mean)


def test_full_kl_is_that_of_torch():
    logits, teacher = student(), torch.log_softmax(student(scale=5.0).flip(0), -1)
    wanted = torch.nn.functional.kl_div(
        torch.log_softmax(logits, -1), teacher, reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(full_forward_kl(logits, teacher), wanted)
