"""Types without a row: understood by themselves, proven, or refused with the reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    ApertusConfig,
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    ExaoneMoeConfig,
    Gemma4TextConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
)

from pruning import (
    Architecture,
    Checkpoint,
    Ordering,
    PruningError,
    architecture_of,
    cut_student,
    is_legal,
    parameter_count,
    student_config,
)
from pruning.families.shapes import axis_rows, kinds_of
from pruning.families.table import layer_heads
from pruning.inference import (
    Comparison,
    InferredFamily,
    TypeVerdict,
    default_config,
    infer,
    inferred_row_proofs,
)
from pruning.inference.layouts.cut import TinyCut
from pruning.inference.layouts.layout import Candidates
from pruning.inference.layouts.reading import Reading
from pruning.inference.proofs.block import TeacherBlock
from pruning.inference.proofs.family_proof import FamilyProof
from pruning.inference.proofs.search import EXACT, Prover
from pruning.inference.proofs.tiny_model import TinyModel
from pruning.inference.tiny.building import random_model, stored_tensors
from pruning.inference.tiny.growth import Growth
from pruning.inference.tiny.precision import answers, difference
from pruning.inference.verdicts import tiny_findings
from tests.exactness import Float64
from tests.pruning.models import build_teacher

IDS = torch.randint(90, (2, 13), generator=torch.Generator().manual_seed(1))


def opt(**changed: Any) -> OPTConfig:
    """Learned positions, as many KV heads as heads, biases everywhere, no row in the table."""
    sizes: dict[str, Any] = {"hidden_size": 32, "ffn_dim": 40, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "vocab_size": 96, "max_position_embeddings": 64}
    sizes |= {"word_embed_proj_dim": 32, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    return OPTConfig(**sizes | changed)


def mixture() -> ExaoneMoeConfig:
    """A dense layer before those of experts, some of which every token is sent to."""
    values: dict[str, Any] = {"num_experts": 4, "n_group": 1, "topk_group": 1}
    return ExaoneMoeConfig(
        **values,
        hidden_size=32,
        intermediate_size=40,
        moe_intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("opt")
    random_model(opt()).save_pretrained(directory)
    return directory


def proven(family: InferredFamily) -> set[str]:
    return {axis for axis, finding in family.findings.items() if finding.proven}


def test_a_type_with_learned_positions_is_understood() -> None:
    family = infer(opt())
    assert proven(family) == {"layers", "hidden", "heads", "ffn"}
    assert all((f.silenced or 0) <= EXACT for f in family.findings.values())
    assert family.attention_output == "self_attn.out_proj"
    assert family.ffn_output == "fc2"
    assert family.axes["self_attn.q_proj.bias"] == ("heads",)
    assert family.model_tensors["model.decoder.embed_tokens.weight"] == ("vocab", "hidden")


def test_a_mixture_keeps_what_one_value_says_tied() -> None:
    config = mixture()
    family = infer(config)
    assert {"experts", "expert_ffn", "shared_ffn", "layers"} <= proven(family)
    assert architecture_of(config).shared_ffn == 24
    whole: dict[str, Any] = {
        "layers": 4,
        "hidden": 32,
        "heads": 4,
        "kv_heads": 2,
        "ffn": 40,
        "experts": 4,
    }
    assert is_legal(config, Architecture(**whole, expert_ffn=16, shared_ffn=16))
    assert not is_legal(config, Architecture(**whole, expert_ffn=16, shared_ffn=24))
    for kept in ([1, 3], [0, 1, 3]):
        student = student_config(config, replace(architecture_of(config), layers=len(kept)), kept)
        assert kinds_of(student) == [kinds_of(config)[layer] for layer in kept]


def test_an_axis_that_cannot_be_cut_exactly_is_kept_whole_and_named(tmp_path: Path) -> None:
    config = BloomConfig(hidden_size=32, n_layer=3, n_head=4, vocab_size=96)
    family = infer(config)  # a slope for each head by its number, and an FFN of four times hidden
    assert proven(family) == {"layers"}
    whole = architecture_of(config)
    assert is_legal(config, whole)
    assert not is_legal(config, Architecture(3, 16, 2, 2, 0))
    rules = "; ".join(constraint.rule for constraint in family.constraints)
    assert "all of its heads, since smaller ones are not proven (sorted on it" in rules
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert list(inferred_row_proofs(Checkpoint(tmp_path)))  # what is kept whole is no obstacle


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(), "no projection of its layers was found that reads heads"),
        (BertConfig(), "it is no decoder"),
    ],
)
def test_a_type_that_cannot_be_inferred_is_refused_with_the_reason(
    config: Any, reason: str
) -> None:
    with pytest.raises(PruningError, match="have no row in the table.*" + reason):
        architecture_of(config)


@pytest.mark.parametrize(
    "config", [LlamaConfig(), GPT2Config(), Phi3Config(), Olmo2Config(), ApertusConfig()]
)
def test_written_rows_are_found_without_looking_at_them(config: Any) -> None:
    found = Comparison.of(config)
    assert not found.missed
    assert not found.otherwise
    assert "inference, without the row, proves: layers, hidden" in next(found.lines())


def test_the_order_inside_a_join_is_told_by_exactness() -> None:
    growth = Growth.of(GPTNeoXConfig())
    tiny = TinyModel(growth, random_model(growth.tiny.config()))
    family = infer(GPTNeoXConfig())  # query, key and value of a head beside each other
    assert family.axes["attention.query_key_value.weight"][0].startswith("heads of ")
    heads = axis_rows(tiny.model.config)["heads"].rows
    rows = family.axis_rows(tiny.model.config)
    assert rows[family.axes["attention.query_key_value.weight"][0]].rows == 3 * heads


def test_a_wrong_layout_is_noticed() -> None:
    growth = Growth.of(opt())
    tiny = TinyModel(growth, random_model(growth.tiny.config()))
    right = Reading(growth, []).candidates()
    options = {**right.options, "fc1.bias": (("all of fc1.bias, dimension 0",),)}
    aliases = {**right.aliases, "all of fc1.bias, dimension 0": right.aliases["positions"]}
    wrong = Candidates(options, aliases, {})
    finding = Prover(tiny, wrong, right, []).findings(["ffn"])["ffn"]
    assert finding.reason == "sorted on it, the model answers otherwise"
    assert (finding.sorted or 0) > 1e-3


def test_an_inferred_type_is_cut_as_any_other(folder: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint(folder)
    checkpoint.check()
    whole = architecture_of(checkpoint.config)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    assert parameter_count(checkpoint.config, whole) == model.num_parameters()
    ordering = Ordering.shuffled(whole)
    sizes: dict[str, Any] = {"hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 24}
    for shape, kept in ((whole, [0, 1, 2]), (Architecture(2, **sizes), [0, 2])):
        student = cut_student(checkpoint, shape, kept, ordering=ordering, dtype=torch.float64)
        assert student.num_parameters() == parameter_count(checkpoint.config, shape)
        with Float64(), torch.no_grad():
            off = difference(student.eval()(IDS).logits, model(IDS).logits)
        assert (off <= EXACT) == (shape == whole)


def test_the_row_is_held_against_a_layer_of_the_teacher(folder: Path) -> None:
    (line,) = inferred_row_proofs(Checkpoint(folder))
    assert line.startswith("proof: the inferred row opt on layer 0 is right of hidden, ffn, heads")


def test_a_student_that_is_cut_wrongly_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(opt())
    own = TinyCut.kept

    def other(cut: TinyCut, axis: str, layer: int | None, expert: int | None) -> Any:
        units = own(cut, axis, layer, expert)
        narrower = axis == "ffn" and len(units) < cut.whole.ffn
        return (units + 1) % cut.whole.ffn if narrower and cut.ordering is not None else units

    proof = FamilyProof(model.config, stored_tensors(model))
    assert all(finding.proven for finding in proof.findings())
    monkeypatch.setattr("pruning.inference.proofs.silencing.TinyCut.kept", other)
    reasons = {finding.axis: finding.reason for finding in proof.findings()}
    assert reasons["ffn"] == "a smaller student is not the silenced teacher"
    assert not reasons["heads"]


def test_layers_that_no_student_is_without_are_proven_with_every_other(tmp_path: Path) -> None:
    build_teacher("gemma4-shared").save_pretrained(tmp_path)
    blocks = TeacherBlock.of_each_kind(Checkpoint(tmp_path))
    assert [b.name for b in blocks] == ["layers 0, 1, 2, 5", "layers 1, 2, 5", "layers 1, 2, 3, 5"]
    findings = list(blocks[-1].proof().findings())
    assert [finding.axis for finding in findings if finding.proven] == [
        *("hidden", "ffn", "heads", "kv_heads", "layers")
    ]


def test_a_tiny_model_has_of_each_kind_of_layer_what_the_large_one_has() -> None:
    tiny = Growth.of(Gemma4TextConfig()).tiny.config()
    assert [layer_heads(tiny, layer).head_dim for layer in range(4)] == [16, 8, 16, 16]
    assert all(finding.proven for finding in tiny_findings(Gemma4TextConfig()))


def test_a_join_with_a_part_that_every_student_has() -> None:
    family = infer(GPTBigCodeConfig())  # one KV head beside the query heads
    assert {"hidden", "heads", "ffn", "layers"} <= proven(family)
    joined = family.axes["attn.c_attn.weight"]
    assert any(dim.startswith("heads+all of ") for dim in joined)
    model = random_model(Growth.of(GPTBigCodeConfig()).tiny.config())
    assert torch.isfinite(answers(model, IDS)).all()


def test_an_ffn_that_the_configuration_leaves_open_is_four_times_the_hidden_size() -> None:
    config = GPTBigCodeConfig(n_embd=32, n_head=4, n_layer=2, vocab_size=96, n_inner=None)
    family = infer(config)
    assert isinstance(family, InferredFamily)
    assert axis_rows(config)["ffn"].rows == 1
    assert architecture_of(config).ffn == 128


@pytest.mark.parametrize(
    ("model_type", "axes"),
    [
        ("gpt_oss", {"hidden", "heads", "experts", "expert_ffn", "layers"}),
        ("qwen3_5_text", {"hidden", "heads", "ffn", "layers"}),
        ("deepseek_v3", {"hidden", "heads", "ffn", "expert_ffn", "shared_ffn", "layers"}),
    ],
)
def test_written_rows_are_proven_around_recurrences_and_inside_groups_of_experts(
    model_type: str, axes: set[str]
) -> None:
    verdict = TypeVerdict.of(default_config(model_type))
    assert axes <= set(verdict.proven)
    assert not verdict.whole
