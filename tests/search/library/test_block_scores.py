"""Replace-one-block scores: against students that were really cut, and against themselves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import SearchStopped
from distill import Corpus, evaluate_live
from pruning import FFN, Architecture, Block, Checkpoint
from pruning.slicing import part_name
from search.config.per_layer import BLOCK_SCORES
from search.library import LayerVariants, LibraryBuilder, Parent
from search.library.block_scores import BlockScore, BlockScorer, ScoredBatch, ScoringPlan
from search.library.measures import Measure
from search.space.variants import NOTHING, with_part
from search.workers.candidate import SearchAssets
from tests.search.library.conftest import Tasks

Variants = tuple[LayerVariants, ...]


def plan_of(assets: SearchAssets, variants: Variants, measure: str = "kl") -> ScoringPlan:
    return ScoringPlan(assets=assets, variants=variants, sequences=3, measure=measure)


def kl_of(assets: SearchAssets, blocks: list[Block]) -> float:
    """Of a student that is cut, to the teacher, on the sequences of `plan_of`."""
    student = assets.source.cut(shape_of(assets, blocks))
    teacher = assets.source.layers(range(3), dtype=torch.float32)
    texts = Corpus(assets.corpus).blocks("selection")[:3]
    return evaluate_live(student, teacher, blocks=texts)[0].means()["kl"]


def shape_of(assets: SearchAssets, blocks: list[Block]) -> Architecture:
    return Architecture.of_blocks(Checkpoint(assets.sorted_teacher).config.hidden_size, blocks)


def part_of(variants: Variants, score: BlockScore) -> Block:
    parts = variants[score.layer].of(score.sub_block)
    return next(part for part in parts if part_name(part) == score.size)


@pytest.fixture(scope="module")
def scores(assets: SearchAssets, variants: Variants) -> list[BlockScore]:
    return BlockScorer(plan_of(assets, variants), [0, 1, 2]).scores()


def test_a_score_is_the_kl_of_the_teacher_with_that_block(
    scores: list[BlockScore], assets: SearchAssets, variants: Variants
) -> None:
    assert len(scores) == 3 * (3 + 4)
    for score in scores:
        blocks = [each.parent for each in variants]
        part = part_of(variants, score)
        blocks[score.layer] = variants[score.layer].replaced(score.sub_block, part)
        assert score.score == pytest.approx(kl_of(assets, blocks), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("measure", BLOCK_SCORES)
def test_the_parent_itself_scores_exactly_0(
    measure: str, assets: SearchAssets, variants: Variants
) -> None:
    blocks = [each.parent for each in variants]
    smaller = [with_part(blocks[0], FFN, variants[0].ffn[2]), *blocks[1:]]
    student = Parent(shape_of(assets, smaller), (0, 1, 2))
    for parent in (None, student):
        scorer = BlockScorer(replace(plan_of(assets, variants, measure), parent=parent), [0, 1, 2])
        with torch.no_grad(), scorer.nested:
            (batch,) = (ScoredBatch(scorer, *given) for given in scorer.batches())
            for layer in range(3):
                own = batch.score(layer, scorer.parent[layer])
                assert own.tolist() == [0.0, 0.0, 0.0]
                other = with_part(scorer.parent[layer], FFN, variants[layer].ffn[3])
                assert batch.score(layer, other).abs().min() > 0


def test_which_layers_are_scored_together_changes_nothing(
    scores: list[BlockScore], assets: SearchAssets, variants: Variants
) -> None:
    plan = plan_of(assets, variants)
    assert [*BlockScorer(plan, [0]).scores(), *BlockScorer(plan, [1, 2]).scores()] == scores


def test_scores_in_a_student_are_the_change_of_its_own_kl(
    assets: SearchAssets, variants: Variants
) -> None:
    kept = assets.source.kept_layers(shape_of(assets, [variants[0].parent] * 2))
    blocks = [
        variants[kept[0]].replaced(FFN, variants[kept[0]].ffn[2]),
        variants[kept[1]].attention[1].with_ffn_of(variants[kept[1]].ffn[1]),
    ]
    parent = Parent(shape_of(assets, blocks), tuple(kept))
    scorer = BlockScorer(replace(plan_of(assets, variants), parent=parent), kept)
    found = scorer.scores()
    own, better = kl_of(assets, blocks), 0
    for score in found:
        place = kept.index(score.layer)
        others = list(blocks)
        others[place] = with_part(blocks[place], score.sub_block, part_of(variants, score))
        change = kl_of(assets, others) - own
        assert score.score == pytest.approx(change, rel=1e-4, abs=1e-5)
        better += change < 0
    assert better, "a larger block is a gain"


def test_a_parent_that_is_not_itself_is_noticed(
    assets: SearchAssets, variants: Variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(scorer: BlockScorer, layer: int, block: Block) -> None:
        scorer.nested.skip(layer)

    monkeypatch.setattr(BlockScorer, "run_at", off)
    with pytest.raises(SearchStopped, match="with its own layer 1, and must score 0"):
        BlockScorer(plan_of(assets, variants), [1]).scores()


def test_only_tokens_that_count_are_measured() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, child = torch.randn(2, 2, 5, 7, generator=generator)
    ids = torch.arange(10).view(2, 5) % 7
    counted = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1]])
    for name in BLOCK_SCORES:
        whole = Measure(name).by_sequence(teacher, child, ids, counted=None)
        some = Measure(name).by_sequence(teacher, child, ids, counted=counted)
        kept = child.clone()
        kept[counted == 0] = torch.randn(7, generator=generator)
        assert torch.equal(some, Measure(name).by_sequence(teacher, kept, ids, counted=counted))
        assert not torch.allclose(some, whole), name


def test_measures_are_what_they_are_called() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher, child = torch.randn(2, 1, 4, 6, generator=generator).double()
    ids = torch.tensor([[0, 3, 1, 5]])
    p, q = teacher.softmax(-1), child.softmax(-1)
    middle = (p + q) / 2

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * (a / b).log()).sum(-1)

    cosine = torch.nn.functional.cosine_similarity(teacher, child, dim=-1)
    following = -q[0, range(3), ids[0, 1:]].log()
    expected = {
        "kl": kl(p, q),
        "reverse-kl": kl(q, p),
        "jensen-shannon": (kl(p, middle) + kl(q, middle)) / 2,
        "loss": following,
        "cosine": 1 - cosine,
    }
    for name in BLOCK_SCORES:
        (found,) = Measure(name).by_sequence(teacher, child, ids, counted=None).tolist()
        assert found == pytest.approx(float(expected[name].mean()), rel=1e-5), name


def test_scores_are_kept_as_they_come_and_gone_on_with(
    builder: Callable[..., LibraryBuilder],
    scores: list[BlockScore],
    variants: Variants,
    local_tasks: Tasks,
    lines: list[str],
) -> None:
    made = builder(sequences=3, tokens=0)
    library = made.trained()
    assert library.assets.library is None and not library.errors
    local_tasks.most = 1
    with pytest.raises(KeyboardInterrupt):
        made.scores(library)
    (path,) = made.workspace.root.glob("block-scores-*.jsonl")
    known = path.read_text()
    assert 0 < known.count("\n") < len(scores)
    path.write_text(known + '{"layer": 2, "sub_b')  # and a line that was cut off
    local_tasks.ended, local_tasks.most = 0, 10**9
    found = made.scores(library)
    assert local_tasks.ended == 2
    assert {s.score for s in scores} == set(found.values.values())
    assert lines[-1] == "block scores: 100% measured"
    block = variants[0].attention[1].with_ffn_of(variants[0].ffn[2])
    by_size = {(s.layer, s.sub_block, s.size): s.score for s in scores}
    pair = by_size[0, "attention", "A6/2"] + by_size[0, "ffn", "F20"]
    assert found.of(0, block) == pytest.approx(pair) and found.of(0, variants[0].parent) == 0
    assert np.isfinite(found.of(1, NOTHING.with_ffn_of(variants[1].ffn[0])))
