"""Classes of per-layer students: what they are for transformers, and what is refused."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from pruning import (
    Architecture,
    Checkpoint,
    Ordering,
    Pruner,
    PruneSettings,
    PruningError,
    architecture_of,
    cut_student,
    is_legal,
    kv_cache_bytes,
    load_student,
    student_config,
    write_sorted_teacher,
    write_student,
)
from pruning.families.costs import Workload
from pruning.per_layer.layers import build_layer
from tests.pruning.models import (
    build_config,
    build_teacher,
    difference,
    logits,
    per_layer_of,
    token_ids,
)

VARIANT = "llama-gqa-tied"
WHOLE = (0, 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and a student of it whose layers differ."""
    root = tmp_path_factory.mktemp("models")
    teacher = build_teacher(VARIANT)
    teacher.save_pretrained(root / "teacher")
    write_student(Checkpoint(root / "teacher"), shape_of(teacher.config), WHOLE, root / "student")
    return root


def shape_of(config: Any) -> Architecture:
    return per_layer_of(config, WHOLE, seed=3)


def test_config_json_says_the_layers_in_the_words_of_decilm(folder: Path) -> None:
    values = json.loads((folder / "student" / "config.json").read_text())
    assert values["model_type"] == "espalier_llama"
    assert values["base_model_type"] == "llama"
    assert values["architectures"] == ["EspalierLlamaForCausalLM"]
    shape = shape_of(build_config(VARIANT))
    for told, block in zip(values["block_configs"], shape.blocks, strict=True):
        assert told["attention"]["no_op"] == (not block.heads)
        assert told["attention"].get("num_attention_heads", 0) == block.heads
        if block.heads:
            assert told["attention"]["n_heads_in_group"] == block.heads // block.kv_heads
        assert told["ffn"]["no_op"] == (not block.ffn)
        assert told["ffn"].get("intermediate_size", 0) == block.ffn


def test_transformers_alone_refuses_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})  # what `import pruning` registers
    with pytest.raises(ValueError, match="has model type `espalier_llama`"):
        AutoConfig.from_pretrained(folder / "student")


def test_a_configuration_can_be_copied_and_sent(folder: Path) -> None:
    config = Checkpoint(folder / "student").config
    assert isinstance(config, LlamaConfig) and config.model_type == "llama"
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert type(other) is type(config) and other == config and other is not config
    for again in (
        type(config).from_dict(config.to_dict()),
        AutoConfig.for_model(**config.to_dict()),
    ):
        assert again.blocks == config.blocks and again.to_dict() == config.to_dict()


def test_heads_that_enclose_those_of_all_layers_need_not_divide_the_hidden_size() -> None:
    config = build_config("llama-mha", num_attention_heads=30, num_key_value_heads=10)
    shape = Architecture.parse("L3 H60 A[6/6 6/2 6/2] F40")
    assert architecture_of(student_config(config, shape, WHOLE)) == shape
    assert shape.heads == 18


def test_a_copy_of_a_model_computes_the_same(folder: Path) -> None:
    student = load_student(folder / "student")
    assert torch.equal(logits(copy.deepcopy(student)), logits(student))


def test_layers_follow_the_implementation_of_attention_that_a_model_is_set_to(folder: Path) -> None:
    student: Any = load_student(folder / "student")
    before = logits(student)
    student.set_attn_implementation("eager")
    answer = student(input_ids=token_ids(3, 17), use_cache=False, output_attentions=True)
    assert difference(answer.logits.detach(), before) < 1e-5
    heads = [block.heads for block in student.config.blocks if block.heads]
    assert [weights.shape[1] for weights in answer.attentions] == heads


def test_load_student_loads_stock_students_too(folder: Path) -> None:
    student = load_student(folder / "teacher", dtype=torch.float64)
    assert type(student).__name__ == "LlamaForCausalLM"
    assert student.dtype == torch.float64 and not student.training


def without_a_tensor(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    state = model.state_dict()
    state.pop("model.norm.weight")
    model.save_pretrained(folder, state_dict=state)


def with_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(values))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_a_tensor, "missing keys model.norm.weight"),
        (with_config(block_configs=[]), "missing keys"),
        (with_config(block_configs=[{"attention": {"no_op": True}}] * 3), "block_configs"),
        (with_config(num_hidden_layers=2), "3 block_configs for 2 layers"),
        (with_config(hidden_size=60), "mismatched keys"),
        (with_config(model_type="espalier_bloom"), "espalier_bloom"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_what_is_no_whole_student_is_refused_in_a_sentence(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    shutil.copytree(folder / "student", tmp_path / "student")
    damage(tmp_path / "student")
    with pytest.raises(PruningError, match=said):
        load_student(tmp_path / "student")


def test_a_student_from_scratch_is_initialised_as_a_stock_model_is() -> None:
    for variant in (VARIANT, "gpt2", "qwen3-moe-mixed"):
        whole = build_config(variant)
        config = student_config(whole, per_layer_of(whole, WHOLE, seed=3), WHOLE)
        torch.manual_seed(0)
        student, stock = (AutoModelForCausalLM.from_config(c) for c in (config, whole))
        known = dict(stock.named_parameters())
        for name, parameter in student.named_parameters():
            spread = float(known[name].detach().std())
            assert float(parameter.detach().std()) == pytest.approx(spread, rel=0.35, abs=1e-6)


def test_layers_that_differ_in_windows_alone_are_a_stock_model(tmp_path: Path) -> None:
    model = build_teacher("qwen2-windows")
    model.save_pretrained(tmp_path / "teacher")
    whole = architecture_of(model.config)
    blocks = [replace(whole.block(0), window=int(index == 1)) for index in range(3)]
    shape = Architecture.of_blocks(whole.hidden, blocks)
    config = student_config(model.config, shape, WHOLE)
    assert type(config) is Qwen2Config
    assert config.layer_types == ["sliding_attention"] * 3
    student = cut_student(Checkpoint(tmp_path / "teacher"), shape, WHOLE)
    assert difference(logits(student), logits(model)) > 0.01
    work = Workload(1, 40, 2)
    assert kv_cache_bytes(config, architecture_of(config), work) == kv_cache_bytes(
        model.config, shape, work, kept=WHOLE
    )


def test_a_student_that_transformers_would_misread_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config(VARIANT)

    def misread(config: Any, block: Any, index: int) -> torch.nn.Module:
        return build_layer(config, architecture_of(config).enclosing.block(index), index)

    monkeypatch.setattr("pruning.per_layer.classes.build_layer", misread)
    with pytest.raises(PruningError, match="its files would have"):
        write_student(Checkpoint(folder / "teacher"), shape_of(config), WHOLE, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_options_for_layers_that_are_alike_are_refused(folder: Path, tmp_path: Path) -> None:
    settings = PruneSettings(layers_after_width=True, head_merge=True)
    pruner = Pruner(folder / "teacher", settings)
    with pytest.raises(PruningError, match="layers_after_width, head_merge only for layers that"):
        pruner.prune(shape_of(build_config(VARIANT)), [], output=tmp_path / "student")


def test_a_whole_cut_gives_the_layers_that_were_asked_for(folder: Path, tmp_path: Path) -> None:
    shape = shape_of(build_config(VARIANT))
    Pruner(folder / "teacher").prune(shape, [token_ids(2, 8)], output=tmp_path / "student")
    assert architecture_of(load_student(tmp_path / "student").config) == shape


def test_no_student_is_cut_out_of_one_whose_layers_differ(folder: Path, tmp_path: Path) -> None:
    student = Checkpoint(folder / "student")
    smaller = Architecture(2, 54, 6, 2, 10)
    cuts: list[Callable[[], Any]] = [
        lambda: is_legal(student.config, smaller),
        lambda: write_student(student, smaller, (0, 1), tmp_path / "smaller"),
        lambda: write_sorted_teacher(
            student, Ordering.identity(smaller.enclosing), tmp_path / "sorted"
        ),
    ]
    for cut in cuts:
        with pytest.raises(PruningError, match="per-layer student, L3 H54.*it was cut out of"):
            cut()
    assert not list(tmp_path.iterdir())
