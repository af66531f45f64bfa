"""What a cut may do beyond copying slices."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from pruning import (
    Architecture,
    Checkpoint,
    PruningError,
    Slice,
    architecture_of,
    family_of,
    load_slice,
    write_slice,
)
from pruning.importance.moments import measure_moments
from pruning.slicing.compensation import bias_compensation, head_merge, rms_rescale
from pruning.slicing.edits import NO_EDITS
from pruning.slicing.selection import gather
from tests.exactness import EXACT
from tests.pruning.models import (
    build_teacher,
    difference,
    logits,
    random_ordering,
    shuffling_ordering,
    token_ids,
)

pytestmark = pytest.mark.usefixtures("float64")


def saved(model: Any, directory: Path) -> Checkpoint:
    model.save_pretrained(directory)
    return Checkpoint(directory)


def cut_of(model: Any, kept_layers: Sequence[int] = (0, 1, 2), **sizes: Any) -> Slice:
    shape = replace(architecture_of(model.config), layers=len(kept_layers), **sizes)
    ordering = shuffling_ordering(model.config)
    return Slice.of(model.config, shape, kept_layers=kept_layers, ordering=ordering)


def input_norm(model: Any, ids: Tensor) -> Tensor:
    """Output of the first layer's input norm."""
    return norm_output(model, "input_layernorm", ids)


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gemma2", "gemma2-untied", "mixtral"])
def test_rescaled_norms_give_kept_channels_their_size(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant, rms_norm_eps=1e-12)  # which the rescale leaves aside
    teacher = saved(model, tmp_path / "teacher")
    ids = torch.full((1, 6), 7)  # one token: its share of energy is the calibration's
    cut = cut_of(model, hidden=24 if variant == "mixtral" else 36)
    edits = rms_rescale(cut, measure_moments(model, [ids]).mean_squares)
    plain = load_slice(teacher, cut, dtype=torch.float64)
    rescaled = load_slice(teacher, cut, edits=edits, dtype=torch.float64)
    wanted = input_norm(model, ids)[..., cut.ordering.hidden[: cut.architecture.hidden]]
    assert difference(input_norm(rescaled, ids), wanted) <= EXACT
    assert difference(input_norm(plain, ids), wanted) > 1e-3


def test_a_norm_without_a_weight_is_rescaled_by_what_multiplies_it() -> None:
    model, ids, seen = build_teacher("gemma4-moe"), token_ids(3, 17), []
    cut = cut_of(model, range(4), hidden=24)
    norm = model.get_submodule("model.layers.1.router.norm")
    handle = norm.register_forward_pre_hook(lambda m, i: seen.append(i[0].square().mean(0)))
    scales = rms_rescale(cut, measure_moments(model, [ids]).mean_squares).scales
    handle.remove()
    share = seen[0][cut.ordering.hidden[:24]].sum() / seen[0].sum()
    found = scales["model.layers.1.router.scale"]
    assert float(found.factor) == pytest.approx(float((share * 2).sqrt()))
    assert found.offset == 0.0


@pytest.mark.parametrize(
    ("variant", "norm", "axis", "sizes"),
    [
        ("olmo2", "self_attn.q_norm", "heads", {"heads": 6}),
        ("olmo2", "self_attn.k_norm", "kv_heads", {"heads": 6, "kv_heads": 2}),
        ("nemotron-h", "mixer.norm", "ssm_inner", {"ssm_heads": 4, "ssm_head_dim": 6}),
        ("nemotron-h", "mixer.norm", "ssm_inner", {"ssm_heads": 3, "ssm_groups": 1}),
        ("falcon-h1-norm", "mamba.norm", "ssm_inner", {"ssm_heads": 4, "ssm_head_dim": 6}),
        ("falcon-h1-norm first", "mamba.norm", "ssm_inner", {"ssm_heads": 4, "ssm_head_dim": 6}),
        ("qwen3-5", "linear_attn.norm", "ssm_head_dim", {"ssm_head_dim": 6}),
    ],
)
def test_norms_over_what_is_cut_give_what_is_kept_its_size(
    variant: str, norm: str, axis: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    """One token, and so one share of the mean square; the first layer, which hears the same."""
    changes: dict[str, dict[str, Any]] = {
        "olmo2": {"rms_norm_eps": 1e-12},
        "nemotron-h": {"layer_norm_epsilon": 1e-12},
        "falcon-h1-norm": {"rms_norm_eps": 1e-12},
        "falcon-h1-norm first": {"rms_norm_eps": 1e-12, "mamba_norm_before_gate": True},
        # Of several heads, with one weight for all, each has a share of its own.
        "qwen3-5": {"rms_norm_eps": 1e-18, "linear_num_value_heads": 1, "linear_num_key_heads": 1},
    }
    model = build_teacher(variant.split()[0], **changes[variant])
    teacher = saved(model, tmp_path / "teacher")
    ids = torch.full((1, 1), 7)
    layers = range(model.config.num_hidden_layers)
    cut = cut_of(model, list(layers), **sizes)
    edits = rms_rescale(cut, measure_moments(model, [ids]).mean_squares)
    plain = load_slice(teacher, cut, dtype=torch.float64)
    rescaled = load_slice(teacher, cut, edits=edits, dtype=torch.float64)
    specs = family_of(model.config).tensors_of_layer(model.config, 0)
    (weight,) = (spec for spec in specs if spec.name.endswith(f"0.{norm}.weight"))
    assert weight.axes == (axis,)
    said = norm_output(model, norm, ids)
    wanted = said[..., gather(torch.arange(said.shape[-1]), cut.selection(weight))]
    assert difference(norm_output(rescaled, norm, ids), wanted) <= EXACT
    whole_groups = "ssm_groups" in sizes  # whose norms are over what is kept alone
    assert (difference(norm_output(plain, norm, ids), wanted) > 1e-3) != whole_groups


def norm_output(model: Any, name: str, ids: Tensor) -> Tensor:
    """Output of a norm of the first layer."""
    seen: list[Tensor] = []
    norm = model.model.layers[0].get_submodule(name)
    handle = norm.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    model(input_ids=ids)
    handle.remove()
    return seen[0]


def test_a_rescale_of_the_whole_changes_nothing(tmp_path: Path) -> None:
    model = build_teacher("nemotron")
    teacher = saved(model, tmp_path / "teacher")
    cut = cut_of(model)
    edits = rms_rescale(cut, measure_moments(model, [token_ids(2, 9)]).mean_squares)
    student = load_slice(teacher, cut, edits=edits, dtype=torch.float64)
    assert difference(logits(student), logits(model)) <= EXACT


@torch.no_grad()
def constant_parts(model: Any, cut: Slice) -> None:
    """Have all heads and neurons that the cut drops say the same at every token."""
    sizes = cut.architecture
    for index, layer in enumerate(model.model.layers):
        dropped = cut.ordering.ffn[index][sizes.ffn :]
        layer.mlp.gate_proj.weight[dropped] = 0
        layer.mlp.up_proj.weight[dropped] = 0
        for head in cut.ordering.kv_heads[index][sizes.kv_heads :].tolist():
            layer.self_attn.v_proj.weight[head * 8 : (head + 1) * 8] = 0


def test_compensation_keeps_what_is_constant(tmp_path: Path) -> None:
    model = build_teacher("llama-gqa-biases")
    cut = cut_of(model, ffn=17, kv_heads=2, heads=6)
    constant_parts(model, cut)
    teacher = saved(model, tmp_path / "teacher")
    moments = measure_moments(model, [token_ids(4, 13)])
    edits = bias_compensation(teacher, cut, moments=moments)
    write_slice(teacher, cut, output=tmp_path / "student", edits=edits)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float64)
    plain = load_slice(teacher, cut, dtype=torch.float64)
    assert difference(logits(student), logits(model)) <= EXACT
    assert difference(logits(plain), logits(model)) > 0.01


def test_compensation_gives_biases_to_a_model_without(tmp_path: Path) -> None:
    model = build_teacher("llama-gqa-tied")
    teacher = saved(model, tmp_path / "teacher")
    cut = cut_of(model, (0, 2), ffn=17, hidden=36)
    moments = measure_moments(model, [token_ids(4, 13)])
    edits = bias_compensation(teacher, cut, moments=moments)
    write_slice(teacher, cut, output=tmp_path / "student", edits=edits)
    Checkpoint(tmp_path / "student").check()
    student: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float64)
    assert student.config.attention_bias and student.config.mlp_bias
    kept, dropped = cut.ordering.hidden[:36], cut.ordering.ffn[2][17:]
    weight = model.model.layers[2].mlp.down_proj.weight.detach()
    expected = (weight.double()[:, dropped] @ moments.ffn[2][dropped])[kept].float()
    torch.testing.assert_close(student.model.layers[1].mlp.down_proj.bias.detach(), expected)
    assert not student.model.layers[1].mlp.up_proj.bias.any()
    in_memory = load_slice(teacher, cut, edits=edits, dtype=torch.float64)
    assert difference(logits(in_memory), logits(student)) <= EXACT


@pytest.mark.parametrize(
    ("variant", "said"),
    [("mistral-gqa", "a bias on"), ("mixtral", "experts"), ("falcon-h1", "recurrent layers")],
)
def test_compensation_is_refused_where_there_is_no_bias(
    variant: str, said: str, tmp_path: Path
) -> None:
    model = build_teacher(variant)
    moments = measure_moments(model, [token_ids(2, 9)])
    with pytest.raises(PruningError, match=said):
        bias_compensation(saved(model, tmp_path), cut_of(model), moments=moments)


@pytest.mark.parametrize(
    ("variant", "sizes", "pairs", "merged"),
    [
        ("llama-gqa-biases", {"heads": 6}, {1: 2, 3: 5, 5: 8}, ["q"]),
        ("llama-gqa-biases", {"heads": 3}, {0: 1, 1: 4, 2: 7}, ["q"]),
        ("llama-gqa-biases", {"heads": 4, "kv_heads": 2}, {1: 2, 3: 5}, ["q"]),
        ("llama-mha-biases", {"heads": 4, "kv_heads": 4}, {3: 4, 2: 5}, ["q", "k", "v"]),
    ],
)
def test_merged_heads_are_the_printed_formula(
    variant: str, sizes: dict[str, Any], pairs: dict[int, int], merged: list[str], tmp_path: Path
) -> None:
    """`pairs`: place in the student -> place in the sorted teacher of the head folded into it."""
    model = build_teacher(variant)
    teacher = saved(model, tmp_path / "teacher")
    whole = architecture_of(model.config)
    shape: Architecture = replace(whole, hidden=36, **sizes)
    ordering = random_ordering(model.config)
    cut = Slice.of(model.config, shape, kept_layers=range(whole.layers), ordering=ordering)
    for name, edits in {"plain": NO_EDITS, "merged": head_merge(teacher, cut)}.items():
        write_slice(teacher, cut, output=tmp_path / name, edits=edits)
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    original = load_file(teacher.directory / "model.safetensors")
    for name, tensor in plain.items():
        expected = tensor.clone()
        if any(f".{kind}_proj." in name for kind in merged):
            order = cut.ordering.heads[int(name.split(".")[2])]
            for place, folded in pairs.items():
                rows = original[name].unflatten(0, (-1, 8))[order[folded]]
                rows = rows if rows.dim() == 1 else rows[:, cut.ordering.hidden[:36]]
                own = slice(place * 8, place * 8 + 8)
                expected[own] = tensor[own] + (tensor[own] - rows)
            assert not torch.equal(expected, tensor)
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["phi3", "qwen3-5"])
def test_fused_queries_cannot_be_merged(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    with pytest.raises(PruningError, match=f"{model.config.model_type} fuses them"):
        head_merge(saved(model, tmp_path), cut_of(model, heads=6))
