"""The sorted teacher computes what the teacher computes; slices compute what oracles compute."""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from pruning import (
    ORDERING_FILE,
    Architecture,
    Checkpoint,
    Ordering,
    PruningError,
    architecture_of,
    check_architecture,
    cut_student,
    parameter_count,
    write_sorted_teacher,
    write_student,
)
from tests.pruning.models import (
    TOLERANCE,
    VARIANTS,
    build_teacher,
    difference,
    logits,
    random_ordering,
    smaller_than,
    token_ids,
)


@dataclass
class Case:
    model: Any
    ordering: Ordering
    teacher: Checkpoint
    sorted: Checkpoint

    @property
    def sizes(self) -> Architecture:
        return architecture_of(self.model.config)

    def student(self, architecture: Architecture, output: Path) -> Any:
        """Cut, written and loaded by stock transformers."""
        write_student(self.sorted, architecture, self.kept(architecture), output)
        return AutoModelForCausalLM.from_pretrained(output)

    def kept(self, architecture: Architecture) -> list[int]:
        return self.ordering.kept_layers(architecture.layers)


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = tmp_path_factory.mktemp(request.param)
    model = build_teacher(request.param)
    model.save_pretrained(directory / "teacher")
    ordering = random_ordering(model.config)
    teacher = Checkpoint(directory / "teacher")
    write_sorted_teacher(teacher, ordering, directory / "sorted")
    return Case(model, ordering, teacher, Checkpoint(directory / "sorted"))


def kept_heads(case: Case, architecture: Architecture, layer: int) -> list[int]:
    """Query heads of the teacher that a student keeps, in the student's order."""
    order = case.ordering.heads[layer].tolist()
    if case.sizes.heads == case.sizes.kv_heads:
        return order[: architecture.heads]
    width, kept = case.sizes.heads // case.sizes.kv_heads, architecture.heads
    kept_width = kept // case.sizes.kv_heads
    return [
        order[group * width + place]
        for group in range(case.sizes.kv_heads)
        for place in range(kept_width)
    ]


def rows_of(heads: list[int], head_dim: int) -> list[int]:
    return [head * head_dim + i for head in heads for i in range(head_dim)]


def gathered_student(case: Case, architecture: Architecture) -> Any:
    """The student by plain indexing straight from the teacher, without pruning's tables."""
    config = copy.deepcopy(case.model.config)
    config.num_hidden_layers, config.hidden_size = architecture.layers, architecture.hidden
    config.num_attention_heads = architecture.heads
    config.num_key_value_heads = architecture.kv_heads
    config.intermediate_size = architecture.ffn
    student: Any = AutoModelForCausalLM.from_config(config)
    h = case.ordering.hidden[: architecture.hidden].tolist()
    mha = case.sizes.heads == case.sizes.kv_heads

    def put(target: Any, source: Any, *index: list[int] | None) -> None:
        for name, parameter in target.named_parameters():
            value = getattr(source, name)
            rows, columns = index if len(index) == 2 else (index[0], None)
            value = value if rows is None else value[rows]
            parameter.copy_(value[:, columns] if columns and value.dim() == 2 else value)

    with torch.no_grad():
        put(student.model.embed_tokens, case.model.model.embed_tokens, None, h)
        put(student.model.norm, case.model.model.norm, h)
        put(student.lm_head, case.model.lm_head, None, h)
        for place, layer in enumerate(case.kept(architecture)):
            new, old = student.model.layers[place], case.model.model.layers[layer]
            heads = kept_heads(case, architecture, layer)
            q = rows_of(heads, config.head_dim)
            k = rows_of(heads if mha else list(range(architecture.kv_heads)), config.head_dim)
            f = case.ordering.ffn[layer][: architecture.ffn].tolist()
            put(new.input_layernorm, old.input_layernorm, h)
            put(new.post_attention_layernorm, old.post_attention_layernorm, h)
            put(new.self_attn.q_proj, old.self_attn.q_proj, q, h)
            put(new.self_attn.k_proj, old.self_attn.k_proj, k, h)
            put(new.self_attn.v_proj, old.self_attn.v_proj, k, h)
            put(new.self_attn.o_proj, old.self_attn.o_proj, h, q)
            put(new.mlp.gate_proj, old.mlp.gate_proj, f, h)
            put(new.mlp.up_proj, old.mlp.up_proj, f, h)
            put(new.mlp.down_proj, old.mlp.down_proj, h, f)
    return student


def test_sorted_teacher_is_the_teacher(case: Case) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(case.sorted.directory)
    assert difference(logits(loaded), logits(case.model)) <= TOLERANCE
    case.sorted.check()
    stored = Ordering.load(case.sorted.directory / ORDERING_FILE)
    assert torch.equal(stored.hidden, case.ordering.hidden)


def test_full_size_slice_is_the_teacher(case: Case, tmp_path: Path) -> None:
    student = case.student(case.sizes, tmp_path)
    assert difference(logits(student), logits(case.model)) <= TOLERANCE


@torch.no_grad()
def test_every_unsorted_tensor_is_noticed(case: Case) -> None:
    expected = logits(case.model)
    loaded: Any = AutoModelForCausalLM.from_pretrained(case.sorted.directory)
    assert difference(logits(loaded), expected) <= TOLERANCE
    teacher = load_file(case.teacher.directory / "model.safetensors")
    same = []
    for name, tensor in load_file(case.sorted.directory / "model.safetensors").items():
        if torch.equal(tensor, teacher[name]):
            same.append(name)
            continue
        parameter = loaded.get_parameter(name)
        parameter.copy_(teacher[name])
        assert difference(logits(loaded), expected) > 100 * TOLERANCE, name
        parameter.copy_(tensor)
    if case.sizes.heads == case.sizes.kv_heads:
        assert not same
    else:  # KV heads keep their places, so these biases have nothing to permute
        assert all(name.endswith(("k_proj.bias", "v_proj.bias")) for name in same)
    assert difference(logits(loaded), expected) <= TOLERANCE


@torch.no_grad()
def test_fewer_neurons_are_the_teacher_with_neurons_silenced(case: Case, tmp_path: Path) -> None:
    architecture = replace(case.sizes, ffn=17)
    oracle = copy.deepcopy(case.model)
    for layer, dropped in zip(oracle.model.layers, case.ordering.ffn[:, 17:], strict=True):
        layer.mlp.down_proj.weight[:, dropped] = 0
    assert difference(logits(oracle), logits(case.model)) > 0.01
    assert difference(logits(case.student(architecture, tmp_path)), logits(oracle)) <= TOLERANCE


@torch.no_grad()
def test_fewer_heads_are_the_teacher_with_heads_silenced(case: Case, tmp_path: Path) -> None:
    smaller = smaller_than(case.model.config)
    architecture = replace(case.sizes, heads=smaller.heads, kv_heads=smaller.kv_heads)
    oracle = copy.deepcopy(case.model)
    for index, layer in enumerate(oracle.model.layers):
        kept = kept_heads(case, architecture, index)
        dropped = [head for head in range(case.sizes.heads) if head not in kept]
        layer.self_attn.o_proj.weight[:, rows_of(dropped, oracle.config.head_dim)] = 0
    assert difference(logits(oracle), logits(case.model)) > 0.01
    assert difference(logits(case.student(architecture, tmp_path)), logits(oracle)) <= TOLERANCE


@pytest.mark.parametrize("depth", [1, 2])
def test_fewer_layers_are_the_teacher_with_layers_skipped(
    case: Case, depth: int, tmp_path: Path
) -> None:
    architecture = replace(case.sizes, layers=depth)
    oracle = copy.deepcopy(case.model)
    kept = sorted(case.ordering.layers.tolist()[:depth])
    oracle.model.layers = nn.ModuleList(oracle.model.layers[layer] for layer in kept)
    oracle.config.num_hidden_layers = depth
    assert difference(logits(case.student(architecture, tmp_path)), logits(oracle)) <= TOLERANCE


@pytest.mark.parametrize("axis", ["hidden", "heads", "ffn", "layers", "all"])
def test_a_slice_is_the_teachers_tensors_indexed(case: Case, axis: str, tmp_path: Path) -> None:
    smaller = smaller_than(case.model.config)
    architecture = smaller
    if axis == "heads":
        architecture = replace(case.sizes, heads=smaller.heads, kv_heads=smaller.kv_heads)
    elif axis != "all":
        architecture = replace(case.sizes, **{axis: getattr(smaller, axis)})
    student = case.student(architecture, tmp_path)
    oracle = gathered_student(case, architecture)
    assert difference(logits(student), logits(oracle)) <= TOLERANCE
    expected = dict(oracle.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in student.named_parameters())


def test_written_student_is_an_ordinary_trainable_checkpoint(case: Case, tmp_path: Path) -> None:
    architecture = smaller_than(case.model.config)
    loaded = case.student(architecture, tmp_path)
    in_memory = cut_student(case.sorted, architecture, case.kept(architecture))
    assert torch.equal(logits(loaded), logits(in_memory))
    Checkpoint(tmp_path).check()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["head_dim"] == case.model.config.head_dim
    assert architecture_of(AutoConfig.from_pretrained(tmp_path)) == architecture
    assert loaded.num_parameters() == parameter_count(case.model.config, architecture)
    generated = loaded.generate(token_ids(1, 5), max_new_tokens=4, do_sample=False, eos_token_id=-1)
    assert generated.shape == (1, 9)
    for model in (loaded, in_memory):
        ids = token_ids(2, 9)
        model.train()(input_ids=ids, labels=ids).loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        torch.optim.SGD(model.parameters(), lr=1e-3).step()


def test_a_cut_student_owns_its_tensors(case: Case) -> None:
    before = (case.sorted.directory / "model.safetensors").read_bytes()
    student = cut_student(case.sorted, case.sizes, list(range(case.sizes.layers)))
    with torch.no_grad():
        for parameter in student.parameters():
            assert parameter.dtype == torch.float32
            parameter.zero_()
    assert (case.sorted.directory / "model.safetensors").read_bytes() == before
    tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert tied == case.model.config.tie_word_embeddings


def test_cutting_leaves_the_global_random_state_alone(case: Case) -> None:
    architecture = smaller_than(case.model.config)
    before = torch.get_rng_state()
    student = cut_student(case.sorted, architecture, case.kept(architecture))
    assert torch.equal(torch.get_rng_state(), before)
    assert student.training
    weight = nn.Linear(4, 4).weight  # initialisation works again
    assert not torch.equal(weight, nn.Linear(4, 4).weight)


def test_low_precision_is_kept_on_disk_and_raised_in_memory(tmp_path: Path) -> None:
    model: Any = build_teacher("llama-gqa-biases").bfloat16()
    model.save_pretrained(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    source = Checkpoint(tmp_path / "sorted")
    architecture = smaller_than(model.config)
    kept = ordering.kept_layers(architecture.layers)
    write_student(source, architecture, kept, tmp_path / "student")
    written = load_file(tmp_path / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    student = cut_student(source, architecture, kept)
    for name, parameter in student.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, written[name].float())


def test_mixed_precision_is_written_tensor_by_tensor(tmp_path: Path) -> None:
    model: Any = build_teacher("llama-gqa-tied", hidden_size=48, vocab_size=96).half()
    model.model.norm.float()
    model.save_pretrained(tmp_path / "teacher")
    ordering = random_ordering(model.config)
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    architecture = smaller_than(model.config)
    write_student(Checkpoint(tmp_path / "sorted"), architecture, [0, 2], tmp_path / "student")
    written: dict[str, Tensor] = load_file(tmp_path / "student" / "model.safetensors")
    norm = model.model.norm.weight[ordering.hidden[: architecture.hidden]]
    assert torch.equal(written["model.norm.weight"], norm)
    assert written["model.embed_tokens.weight"].dtype == torch.float16


def test_per_layer_lists_are_cut_with_the_layers(tmp_path: Path) -> None:
    types = ["full_attention", "sliding_attention", "full_attention"]
    model = build_teacher("llama-gqa-tied", layer_types=types)
    model.save_pretrained(tmp_path / "teacher")
    ordering = replace(random_ordering(model.config), layers=torch.tensor([1, 2, 0]))
    write_sorted_teacher(Checkpoint(tmp_path / "teacher"), ordering, tmp_path / "sorted")
    architecture = replace(architecture_of(model.config), layers=2)
    write_student(Checkpoint(tmp_path / "sorted"), architecture, [1, 2], tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["layer_types"] == ["sliding_attention", "full_attention"]


def test_an_impossible_architecture_is_refused_with_the_reason(case: Case, tmp_path: Path) -> None:
    for change in ({"hidden": 1000}, {"kv_heads": 1}, {"heads": 0}, {"layers": 9}):
        architecture = replace(case.sizes, **change)
        with pytest.raises(PruningError, match="cannot be cut out of"):
            check_architecture(case.model.config, architecture)
        with pytest.raises(PruningError, match="cannot be cut out of"):
            write_student(case.sorted, architecture, [0], tmp_path / "student")
    assert not (tmp_path / "student").exists()
