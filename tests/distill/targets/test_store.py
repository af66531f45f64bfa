import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill import (
    DistillError,
    TargetFormat,
    evaluate,
    evaluation_format,
    slot_blocks,
    teacher_cross_entropy,
)
from distill.loss.divergences import token_losses
from distill.targets.batch import TargetBatch
from distill.targets.codecs import SampledCodec, unpack_ids
from distill.targets.formats import FULL_VOCABULARY, FormatRequest, choose_format
from distill.targets.names import KINDS
from distill.targets.store import TargetRequest, Targets, write_requested
from tests.distill.conftest import MakeBlocks, MakeModel

CPU = torch.device("cpu")


def form_of(kind: str, vocabulary: int = 64) -> TargetFormat:
    """Of every kind one; a new kind is held to the same cases with an entry here."""
    return {
        "full": TargetFormat.whole(vocabulary),
        "topk": TargetFormat(vocabulary, 8),
        "sampled": TargetFormat.sampled(vocabulary, 20, seed=3),
    }[kind]


each_kind = pytest.mark.parametrize("kind", KINDS)


class Interrupted(Exception):
    pass


BlocksAtOnce = Callable[[int], None]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.targets.store.SHARD_BLOCKS", 4)


@pytest.fixture
def blocks_at_once(monkeypatch: pytest.MonkeyPatch) -> BlocksAtOnce:
    """Sets how many blocks the teacher reads at once."""
    return lambda size: monkeypatch.setattr(
        "distill.targets.encode.blocks_at_once", lambda block, vocabulary: size
    )


def write(
    model: Any,
    blocks: NDArray[Any],
    form: TargetFormat,
    directory: Path,
    provenance: dict[str, str] | None = None,
    **options: Any,
) -> Targets:
    request = TargetRequest(blocks, form, directory, provenance or {})
    return write_requested(model, request, **options)


def contents(directory: Path) -> dict[str, bytes]:
    files = sorted(f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): f.read_bytes() for f in files}


def live_log_probs(model: Any, blocks: NDArray[Any], temperature: float = 1.0) -> Tensor:
    with torch.no_grad():
        ids = torch.from_numpy(blocks.astype(np.int64))
        return torch.log_softmax(model(input_ids=ids).logits / temperature, -1)


def exact_kl(logits: Tensor, target_log_probs: Tensor) -> torch.Tensor:
    """Of each token, from the whole distribution."""
    student = torch.log_softmax(logits.float(), -1)
    return (target_log_probs.exp() * (target_log_probs - student)).sum(-1)


def same_batches(one: TargetBatch, two: TargetBatch) -> bool:
    pairs = zip(vars(one).values(), vars(two).values(), strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def gradient(model: Any) -> torch.Tensor:
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return flat


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_training_on_stored_targets_is_training_on_the_live_teacher(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, temperature: float
) -> None:
    teacher = make_model(512, sharpness=10)
    student = make_model(512, sharpness=8, noise=0.3)
    blocks = make_blocks(4, 32, 512)
    slots = np.arange(4)
    order = slot_blocks(len(blocks), 3)
    form = TargetFormat(512, 64, temperature)
    targets = write(teacher, blocks[order], form, tmp_path)
    chosen = torch.from_numpy(blocks[order].astype(np.int64))

    logits = student(input_ids=chosen).logits.flatten(0, 1)
    losses, by_logits = token_losses(
        logits.detach(), targets.batch(slots, CPU).tokens(), temperature=temperature
    )
    stored = losses.mean()
    logits.backward(by_logits / len(logits))
    stored_gradient = gradient(student)

    logits = student(input_ids=chosen).logits / temperature
    live = torch.nn.functional.kl_div(
        torch.log_softmax(logits, -1).flatten(0, 1),
        live_log_probs(teacher, blocks[order], temperature).flatten(0, 1),
        reduction="batchmean",
        log_target=True,
    ) * (temperature**2)
    live.backward()
    live_gradient = gradient(student)

    assert live.item() > 0.1
    assert stored.item() == pytest.approx(live.item(), rel=0.02)
    assert torch.cosine_similarity(stored_gradient, live_gradient, dim=0) >= 0.99


@pytest.mark.parametrize(("vocabulary", "full"), [(512, True), (32_768, False)])
def test_evaluation_kl_is_exact_to_one_percent(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, vocabulary: int, full: bool
) -> None:
    teacher = make_model(vocabulary, sharpness=6)
    form = evaluation_format(vocabulary)
    assert form.full == full
    blocks = make_blocks(3, 16, vocabulary)
    targets = write(teacher, blocks, form, tmp_path)
    ids = torch.from_numpy(blocks.astype(np.int64))
    for noise in (0.05, 0.3):
        student = make_model(vocabulary, sharpness=6, noise=noise)
        with torch.no_grad():
            logits = student(input_ids=ids).logits
        exact = exact_kl(logits, live_log_probs(teacher, blocks)).mean().item()
        assert evaluate(student, blocks, targets=targets).means()["kl"] == pytest.approx(
            exact, rel=0.01
        )


class Table(torch.nn.Module):
    """A model whose logits for a token are a row of a table."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids])


def like_text(
    vocabulary: int, positions: int, exponent: float, generator: torch.Generator
) -> torch.Tensor:
    """Log-probabilities that fall as a power of the rank, the tail faster; tokens in any order."""
    ranks = torch.arange(vocabulary) + 1.0
    sorted_logits = -exponent * (ranks + 2).log() - 3 * ranks / vocabulary
    rows = [
        sorted_logits[torch.randperm(vocabulary, generator=generator)] for _ in range(positions)
    ]
    return torch.stack(rows).log_softmax(-1)


@pytest.mark.parametrize(
    ("exponent", "entropy"), [(2.5, (1, 3.5)), (1.25, (5, 8))], ids=["peaked", "flat"]
)
def test_evaluation_kl_is_exact_for_a_large_vocabulary(
    tmp_path: Path, exponent: float, entropy: tuple[float, float]
) -> None:
    generator = torch.Generator().manual_seed(4)
    teacher = like_text(131_072, 32, exponent, generator)
    least, most = entropy
    assert least < -(teacher.exp() * teacher).sum(-1).mean() < most
    student = teacher + 0.5 * torch.randn(teacher.shape, generator=generator)
    blocks = np.arange(32, dtype=np.int32).reshape(2, 16)
    targets = write(Table(teacher), blocks, evaluation_format(131_072), tmp_path)
    result = evaluate(Table(student), blocks, targets=targets).means()
    assert result["kl"] == pytest.approx(exact_kl(student, teacher).mean().item(), rel=0.01)
    agreement = (student.argmax(-1) == teacher.argmax(-1)).float().mean().item()
    assert result["top1_agreement"] == pytest.approx(agreement)
    size = sum(np.load(f, mmap_mode="r").nbytes for f in tmp_path.rglob("*.npy"))
    assert size <= evaluation_format(131_072).bytes_per_token * blocks.size


@pytest.mark.parametrize("topk", [512, 128])
def test_the_teacher_is_at_no_distance_from_its_own_targets(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, topk: int
) -> None:
    teacher = make_model(512, sharpness=6)
    blocks = make_blocks(4, 16, 512)
    form = TargetFormat(512, topk)

    def distance(name: str, described: NDArray[Any]) -> float:
        targets = write(teacher, described, form, tmp_path / name)
        return evaluate(teacher, blocks, targets=targets).means()["kl"]

    assert abs(distance("own", blocks)) < 1e-3
    assert distance("position", np.roll(blocks, 1, axis=1)) > 0.1
    assert distance("block", np.roll(blocks, 1, axis=0)) > 0.1


@each_kind
def test_what_is_read_is_what_the_teacher_says_in_the_order_of_the_slots(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, small_shards: None, kind: str
) -> None:
    """The teacher's last columns are padding, though its logits there are the highest."""
    teacher, blocks, slots = make_model(64), make_blocks(9, 8, 50), np.array([8, 0, 5])
    with torch.no_grad():
        teacher.lm_head.weight[50:] *= 50
        ids = torch.from_numpy(blocks[slots].astype(np.int64))
        live = teacher(input_ids=ids).logits[..., :50].log_softmax(-1)
    targets = write(teacher, blocks, form_of(kind, 50), tmp_path)
    batch = targets.batch(slots, CPU)
    wanted = live if batch.ids is None else live.gather(-1, batch.ids)
    share = torch.ones_like(batch.log_probs) if batch.share is None else batch.share
    filled = share > 0
    torch.testing.assert_close(batch.log_probs[filled], wanted[filled], rtol=3e-3, atol=3e-3)
    mass = (
        batch.log_probs.exp().sum(-1) + batch.tail_probability
        if batch.share is None
        else share.sum(-1)
    )
    torch.testing.assert_close(mass, torch.ones(3, 8))
    if kind == "topk":
        assert batch.ids is not None and torch.equal(batch.ids, live.topk(8, -1).indices)
    following = live[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    read = torch.from_numpy(targets.next_log_probs(slots))[:, :-1]
    torch.testing.assert_close(read, following)


@each_kind
def test_interrupted_writing_goes_on_to_the_same_bytes(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    blocks_at_once: BlocksAtOnce,
    kind: str,
) -> None:
    teacher, blocks, form = make_model(), make_blocks(14, 8), form_of(kind)
    blocks_at_once(3)
    write(teacher, blocks, form, tmp_path / "whole")

    def interrupt(done: int, total: int, speed: float) -> None:
        if done == 8:
            raise Interrupted

    resumed = tmp_path / "resumed"
    with pytest.raises(Interrupted):
        write(teacher, blocks, form, resumed, progress=interrupt)
    kept = contents(resumed)
    assert 0 < len(kept) < len(contents(tmp_path / "whole"))
    seen: list[int] = []
    targets = write(
        teacher, blocks, form, resumed, progress=lambda done, total, speed: seen.append(done)
    )
    assert seen == [12, 14]
    assert targets.is_complete(14)
    assert contents(resumed) == contents(tmp_path / "whole")


def test_more_blocks_keep_what_is_written(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, small_shards: None
) -> None:
    teacher, blocks, form = make_model(), make_blocks(14, 8), TargetFormat(64, 8)
    write(teacher, blocks, form, tmp_path / "whole")
    write(teacher, blocks[:6], form, tmp_path / "grown")
    first = tmp_path / "grown" / "00000" / "rest.npy"
    written = first.stat().st_mtime_ns
    targets = write(teacher, blocks, form, tmp_path / "grown")
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    assert targets.is_complete(14)
    fewer: list[int] = []
    write(
        teacher, blocks[:6], form, tmp_path / "grown", progress=lambda done, *_: fewer.append(done)
    )
    assert fewer == []
    assert targets.is_complete(14)


def test_interrupted_growth_loses_nothing(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, blocks, form = make_model(), make_blocks(8, 8), TargetFormat(64, 8)
    targets = write(teacher, blocks[:6], form, tmp_path)
    monkeypatch.setattr(teacher, "forward", lambda **_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        write(teacher, blocks, form, tmp_path)
    assert targets.is_complete(6)


def test_another_format_is_refused(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    teacher, blocks = make_model(), make_blocks(2, 8)
    write(teacher, blocks, TargetFormat(64, 8), tmp_path)
    with pytest.raises(DistillError, match="topk=8.*topk=16"):
        write(teacher, blocks, TargetFormat(64, 16), tmp_path)


@pytest.mark.parametrize("form", [TargetFormat(64, 8, 3.0), TargetFormat(64, 64)])
def test_log_probability_of_the_next_token(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, form: TargetFormat
) -> None:
    teacher, blocks = make_model(), make_blocks(3, 8)
    targets = write(teacher, blocks, form, tmp_path)
    following = torch.from_numpy(blocks.astype(np.int64))[:, 1:, None]
    wanted = live_log_probs(teacher, blocks)[:, :-1].gather(-1, following).squeeze(-1)
    stored = torch.from_numpy(targets.next_log_probs(np.arange(3)))
    torch.testing.assert_close(stored[:, :-1], wanted)
    assert (stored[:, -1] == 0).all()
    ce = teacher_cross_entropy(targets, 3)
    np.testing.assert_allclose(ce, -wanted.mean(1).double().numpy(), rtol=1e-5)


@each_kind
@pytest.mark.parametrize("vocabulary", [64, 2**17])
def test_bytes_on_disk_are_those_stated(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, kind: str, vocabulary: int
) -> None:
    form, blocks = form_of(kind, vocabulary), make_blocks(1, 8)
    write(make_model(vocabulary), blocks, form, tmp_path)
    size = sum(np.load(f, mmap_mode="r").nbytes for f in tmp_path.rglob("*.npy"))
    most = form.bytes_per_token * blocks.size
    assert size == most or (kind == "sampled" and size < most)


def mean_of_draws(
    log_probs: Tensor, student: Tensor, draws: int, turns: int
) -> tuple[Tensor, Tensor]:
    """KL estimates [turns, positions] and the draws' shares [turns, positions, vocab]."""
    positions, vocabulary = log_probs.shape
    codec = SampledCodec(vocabulary, draws=draws)
    shares = torch.zeros(turns, positions, vocabulary)
    losses = torch.zeros(turns, positions)
    for turn in range(turns):
        drawn = codec.draw(log_probs, turn)
        rows = torch.arange(positions).repeat_interleave(torch.from_numpy(drawn["lengths"]).long())
        ids = torch.from_numpy(unpack_ids(drawn))
        share = torch.from_numpy(drawn["counts"]).float() / draws
        shares[turn, rows, ids] = share
        terms = share * (torch.from_numpy(drawn["log_probs"]).float() - student[rows, ids])
        losses[turn].index_add_(0, rows, terms)
    return losses, shares


@pytest.mark.parametrize("sharpness", [0.3, 2.0])
def test_draws_give_the_live_loss_and_gradient_on_average(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = (sharpness * torch.randn(6, 100, generator=generator)).log_softmax(-1)
    student = (sharpness * torch.randn(6, 100, generator=generator)).log_softmax(-1)
    losses, shares = mean_of_draws(teacher, student, draws=10, turns=600)
    assert (shares.sum(-1) - 1).abs().max() < 1e-5

    live = (teacher.exp() * (teacher - student)).sum(-1)
    error = losses.std(0) / len(losses) ** 0.5
    assert ((losses.mean(0) - live).abs() < 4 * error + 1e-3 * live).all()
    assert (error < 0.1 * live).all()

    # The gradient is q minus the share; its mean square error falls to that of chance alone.
    off = (shares.mean(0) - teacher.exp()) ** 2
    chance = shares.var(0) / len(shares)
    assert off.sum() < 1.3 * chance.sum()
    assert chance.sum() < 0.02 * teacher.exp().square().sum()


def test_every_token_is_drawn_as_evenly_as_can_be() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = (2 * torch.randn(6, 100, generator=generator)).log_softmax(-1)
    _, shares = mean_of_draws(teacher, teacher, draws=10, turns=50)
    expected = 10 * teacher.exp()
    counts = (10 * shares).round()
    assert (counts >= (expected - 1e-4).floor()).all()
    assert (counts <= (expected + 1e-4).ceil()).all()


def test_no_token_without_probability_is_drawn() -> None:
    teacher = torch.zeros(5, 40)
    teacher[:, ::2] = -torch.inf
    _, shares = mean_of_draws(teacher.log_softmax(-1), torch.zeros(5, 40), draws=50, turns=20)
    assert (shares[..., ::2] == 0).all()


@pytest.mark.parametrize("vocabulary", [64, 70_000])
def test_a_batch_of_draws_is_padded_to_its_longest(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, vocabulary: int
) -> None:
    teacher, blocks = make_model(vocabulary, sharpness=2), make_blocks(3, 8, vocabulary)
    form = TargetFormat.sampled(vocabulary, 300, seed=5)
    batch = write(teacher, blocks, form, tmp_path).batch(np.array([2, 0]), CPU)
    live = live_log_probs(teacher, blocks[[2, 0]])
    assert batch.ids is not None and batch.share is not None
    filled = batch.share > 0
    lengths = filled.sum(-1)
    assert lengths.min() < lengths.max() == batch.share.shape[-1]
    assert (filled == (torch.arange(int(lengths.max())) < lengths[..., None])).all()
    for values in (batch.ids, batch.log_probs):
        assert (values[~filled] == 0).all()
    torch.testing.assert_close(batch.share.sum(-1), torch.ones(2, 8))
    assert (batch.tail_probability == 0).all()
    wanted = live.gather(-1, batch.ids)
    torch.testing.assert_close(batch.log_probs[filled], wanted[filled], rtol=2e-3, atol=2e-3)
    assert torch.equal(batch.ids[..., 0], live.argmax(-1))
    assert (batch.ids.amax() > 2**16) == (vocabulary > 2**16)


def test_draws_depend_on_slot_and_seed_alone(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    blocks_at_once: BlocksAtOnce,
) -> None:
    teacher, blocks = make_model(), np.repeat(make_blocks(1, 8), 10, axis=0)
    form = TargetFormat.sampled(64, 20)

    def shares(name: str, form: TargetFormat, batch: int, count: int = 10) -> Tensor:
        blocks_at_once(batch)
        targets = write(teacher, blocks[:count], form, tmp_path / name)
        got = targets.batch(np.arange(count), CPU)
        assert got.ids is not None and got.share is not None
        return torch.zeros(count, 8, 64).scatter_add_(-1, got.ids, got.share)

    one = shares("one", form, 1)
    assert torch.equal(one, shares("four", form, 4))
    assert torch.equal(one[:6], shares("fewer", form, 3, 6))
    assert not torch.equal(one, shares("seed", TargetFormat.sampled(64, 20, seed=1), 4))
    assert all(not torch.equal(one[0], other) for other in one[1:])


@each_kind
def test_reading_ahead_gives_what_batch_gives(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, small_shards: None, kind: str
) -> None:
    targets = write(make_model(), make_blocks(14, 8), form_of(kind), tmp_path)
    slots = [np.array(chosen) for chosen in ([3, 9], [0, 1, 2], [13], [5, 4], [12, 0])]
    batches = list(Targets(tmp_path).reading_ahead(iter(slots), CPU))
    assert len(batches) == len(slots)
    for got, chosen in zip(batches, slots, strict=True):
        assert same_batches(got, targets.batch(chosen, CPU))


def test_reading_ahead_is_bounded_and_stops_early(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    targets = write(make_model(), make_blocks(4, 8), TargetFormat(64, 8), tmp_path)
    asked = 0

    def endless() -> Iterator[NDArray[Any]]:
        nonlocal asked
        while True:
            asked += 1
            yield np.array([asked % 4])

    before = threading.active_count()
    with closing(targets.reading_ahead(endless(), CPU, depth=2)) as batches:
        for _ in range(3):
            next(batches)
        assert threading.active_count() == before + 1
    assert asked <= 6
    assert threading.active_count() == before


def test_reading_ahead_raises_what_reading_raises(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, small_shards: None
) -> None:
    targets = write(make_model(), make_blocks(8, 8), TargetFormat(64, 8), tmp_path)
    (tmp_path / "00001").rename(tmp_path / "gone")
    batches = targets.reading_ahead([np.array([0]), np.array([5]), np.array([1])], CPU)
    next(batches)
    with pytest.raises(DistillError, match="00001"):
        next(batches)


@each_kind
def test_blocks_and_tokens_of_a_batch(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, kind: str
) -> None:
    targets = write(make_model(), make_blocks(3, 8), form_of(kind), tmp_path)
    batch = targets.batch(np.arange(3), CPU)
    tokens = batch.tokens()
    assert tokens.tail_probability.shape == (24,)
    part = tokens.slice(8, 16)
    for name, whole in vars(batch).items():
        if whole is not None:
            assert torch.equal(getattr(part, name), whole[1])
    assert (part.ids is None) == (kind == "full")
    assert (part.share is None) == (kind != "sampled")


def damaged(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        *(
            (damaged, name, f"are damaged .{name}.*same command")
            for name in ("log_probs.npy", "ids.npy", "next.npy")
        ),
        *((Path.unlink, name, "") for name in ("checksums.json", "rest.npy", "next.npy")),
        (shutil.rmtree, "", ""),
    ],
)
def test_a_spoilt_shard_is_noticed_and_written_again(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    spoil: Callable[[Path], object],
    name: str,
    said: str,
) -> None:
    teacher, blocks, form = make_model(), make_blocks(12, 8), TargetFormat(64, 8)
    targets = write(teacher, blocks, form, tmp_path)
    before = contents(tmp_path)
    spoil(tmp_path / "00001" / name)
    assert targets.is_complete(4)
    assert not targets.is_complete(12)
    reader = Targets(tmp_path)
    reader.batch(np.array([0, 11]), CPU)
    with pytest.raises(DistillError, match=f"00001.*{said}"):
        reader.batch(np.array([5]), CPU)
    seen: list[int] = []
    write(teacher, blocks, form, tmp_path, progress=lambda done, *_: seen.append(done))
    assert seen == [8]
    assert contents(tmp_path) == before


def test_a_failing_write_is_not_lost(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full_disk(folder: Path, pieces: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("distill.targets.store.write_shard", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(make_model(), make_blocks(12, 8), TargetFormat(64, 8), tmp_path)


def test_a_shard_is_stored_while_the_next_is_computed(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The write of a shard waits until the next one is being computed: it is not waited for."""
    from distill.targets import shards, store

    teacher, begun = make_model(), threading.Semaphore(0)
    forward, write_shard = teacher.forward, shards.write_shard

    def computing(**arguments: Any) -> Any:
        begun.release()
        return forward(**arguments)

    def writing(folder: Path, pieces: Any) -> None:
        for _ in range({"00000": 2, "00001": 1}.get(folder.name, 0)):
            assert begun.acquire(timeout=600)
        write_shard(folder, pieces)

    monkeypatch.setattr(teacher, "forward", computing)
    monkeypatch.setattr(store, "write_shard", writing)
    assert write(teacher, make_blocks(12, 8), TargetFormat(64, 8), tmp_path).is_complete(12)


def test_targets_of_something_else_are_refused(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    teacher, blocks, form = make_model(), make_blocks(2, 8), TargetFormat(64, 8)
    mine = {"teacher": "a1", "corpus": "b2"}
    targets = write(teacher, blocks, form, tmp_path / "said", provenance=mine)
    assert targets.provenance == mine
    targets.check_provenance(mine)
    targets.check_provenance({"corpus": "b2"})
    with pytest.raises(DistillError, match="another corpus; give another folder"):
        targets.check_provenance({"teacher": "a1", "corpus": "c3"})
    with pytest.raises(DistillError, match="another teacher and another corpus"):
        write(teacher, blocks, form, tmp_path / "said", provenance={"teacher": "", "corpus": ""})
    write(teacher, blocks, form, tmp_path / "said", provenance=mine)
    write(teacher, blocks, form, tmp_path / "said")
    silent = write(teacher, blocks, form, tmp_path / "silent")
    with pytest.raises(DistillError, match="does not say of which teacher"):
        silent.check_provenance({"teacher": "a1"})


def test_blocks_of_another_length_are_refused(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    write(make_model(), make_blocks(2, 8), TargetFormat(64, 8), tmp_path)
    with pytest.raises(DistillError, match="blocks of 8 tokens, not 16"):
        write(make_model(), make_blocks(2, 16), TargetFormat(64, 8), tmp_path)


def test_targets_of_before_the_kinds_are_read(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    write(make_model(), make_blocks(2, 8), TargetFormat(64, 8, 2.0), tmp_path)
    (tmp_path / "format.json").write_text('{"vocabulary": 64, "topk": 8, "temperature": 2.0}')
    assert Targets(tmp_path).format == TargetFormat(64, 8, 2.0)


def test_an_unreadable_format_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    for text in ("{", '{"vocabulary": 64, "no such": 1}'):
        (tmp_path / "format.json").write_text(text)
        with pytest.raises(DistillError, match="format.json cannot be read"):
            Targets(tmp_path).format  # noqa: B018


def test_a_vocabulary_above_the_teachers_is_refused(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    with pytest.raises(DistillError, match="64 logits, fewer than the vocabulary of 100"):
        write(make_model(64), make_blocks(2, 8), TargetFormat(100, 8), tmp_path)


def test_the_teacher_may_run_in_bf16(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    teacher, blocks, form = make_model(), make_blocks(2, 8), TargetFormat(64, 64)
    exact = write(teacher, blocks, form, tmp_path / "fp32").batch(np.arange(2), CPU)
    coarse = write(teacher, blocks, form, tmp_path / "bf16", precision="bf16")
    got = coarse.batch(np.arange(2), CPU).log_probs
    assert not torch.equal(got, exact.log_probs)
    torch.testing.assert_close(got, exact.log_probs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"topk": 0},
        {"topk": -1},
        {"topk": 8, "temperature": 0},
        {"topk": 8, "kind": "best"},
        {"topk": 8, "draws": 5},
        {"topk": 8, "kind": "sampled", "draws": 5},
        {"kind": "sampled", "draws": 0},
        {"kind": "sampled", "draws": 2**16},
        {"kind": "sampled", "draws": 5, "seed": -1},
    ],
)
def test_formats_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DistillError):
        TargetFormat(64, **wrong)


def test_what_formats_are_and_say() -> None:
    assert TargetFormat(64, 64) == TargetFormat(64, 100) == TargetFormat.whole(64)
    assert TargetFormat(64, 64).full
    assert TargetFormat(64, 63).kind == "topk"
    said = {
        TargetFormat(2048, 64): "top 64 and the rest, 264 bytes per token",
        TargetFormat.whole(2048): "whole distribution, 4,104 bytes per token",
        TargetFormat.sampled(2048, 50): "50 draws, at most 255 bytes per token",
    }
    assert {form: form.describe_itself() for form in said} == said


def test_the_first_format_that_is_sure_to_fit_is_chosen() -> None:
    def chosen(vocabulary: int, bytes_per_token: float, wanted: str = "auto") -> TargetFormat:
        request = FormatRequest(wanted, seed=2, any_loss=any_loss)
        return choose_format(request, vocabulary, tokens=1000, limit_bytes=1000 * bytes_per_token)

    small, large = 2_048, FULL_VOCABULARY + 1
    any_loss = True
    assert chosen(small, 4104) == TargetFormat.whole(small)
    assert chosen(small, 4103) == TargetFormat(small, 64)
    assert chosen(large, 1e6) == TargetFormat(large, 64)
    any_loss = False
    assert chosen(small, 1e6) == TargetFormat.sampled(small, 50, seed=2)
    assert chosen(small, 264, "topk") == TargetFormat(small, 64)
    assert chosen(large, 1e6) == TargetFormat.sampled(large, 50, seed=2)
    assert chosen(large, 1e6, "full") == TargetFormat.whole(large)
    assert chosen(large, 255, "sampled") == TargetFormat.sampled(large, 50, seed=2)
    for room in (65, 90, 200, 254):
        form = chosen(large, room)
        assert form.kind == "sampled"
        assert form.bytes_per_token <= room < form.bytes_per_token + 5


def test_where_no_format_fits_the_error_says_what_is_needed() -> None:
    with pytest.raises(DistillError, match=r"65.0 kB \(12 draws.*limit of 64.0 kB; raise.*beside"):
        choose_format(FormatRequest(), 32_768, tokens=1000, limit_bytes=64_000)
    with pytest.raises(DistillError, match=r"264.0 kB \(top 64"):
        choose_format(FormatRequest("topk"), 32_768, tokens=1000, limit_bytes=100_000)
    with pytest.raises(DistillError, match="'best'; it must be one of auto, full"):
        FormatRequest("best")
