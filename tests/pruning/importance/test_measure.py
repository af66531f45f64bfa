"""Importance against a brute-force computation from everything recorded."""

import gc
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pruning import (
    Checkpoint,
    Importance,
    Ordering,
    Pruner,
    PruneSettings,
    PruningError,
    Scoring,
    architecture_of,
    family_of,
    layer_importance,
    measure_importance,
)
from pruning.importance.weights import output_norms, output_norms_of
from tests.exactness import EXACT
from tests.pruning.models import VARIANTS, build_teacher, logits, random_ordering, token_ids
from tests.pruning.oracle import silenced

pytestmark = pytest.mark.usefixtures("float64")


@torch.no_grad()
def recorded(model: Any, samples: Tensor) -> dict[str, list[Tensor]]:
    """What passes each observed place, sample by sample in fp64: everything stored."""
    family = family_of(model.config)
    seen: dict[str, list[Tensor]] = defaultdict(list)
    handles = []

    def record(key: str, module: Any) -> None:
        def hook(_: Any, inputs: Any, kwargs: Any) -> None:
            value = inputs[0] if inputs else kwargs["hidden_states"]
            seen[key].append(value[0].double())

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def recurrent(key: str) -> Any:
        return lambda module, inputs, output: seen[key].append(output[0].double())

    depth = model.config.num_hidden_layers
    for i in range(depth):
        layer = model.get_submodule(f"{family.layers_module}.{i}")
        parts = family.parts(model.config, i)
        record(f"stream {i}", layer)
        if "attention" in parts:
            record(f"hidden {i} a", layer.get_submodule(family.attention_input))
            record(f"heads {i}", layer.get_submodule(family.attention_output))
        if "ffn" in parts or "experts" in parts:
            record(f"hidden {i} b", layer.get_submodule(family.ffn_input))
        if "ffn" in parts:
            record(f"ffn {i}", layer.get_submodule(family.ffn_output))
        if family.recurrence and "ssm" in parts:
            projection = layer.get_submodule(family.recurrence.input)
            record(f"hidden {i} c", projection)
            handles.append(projection.register_forward_hook(recurrent(f"ssm {i}")))
    last = model.get_submodule(f"{family.layers_module}.{depth - 1}")

    def stream(module: Any, inputs: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        seen[f"stream {depth}"].append(states[0].double())

    handles.append(last.register_forward_hook(stream))
    for sample in samples:
        model(input_ids=sample[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


OVER = {
    "mean": lambda x: x.abs().mean(0),
    "l2": lambda x: x.square().mean(0).sqrt(),
    "variance": lambda x: x.var(0, correction=0),
}
ACROSS = {
    "mean": lambda x: x.mean(0),
    "l2": lambda x: x.square().sum(0).sqrt(),
    "variance": lambda x: x.var(0, correction=0),
}


def brute_force(model: Any, samples: Tensor, batch: str, sequence: str) -> dict[str, Tensor]:
    """The scores by their definition."""
    seen = recorded(model, samples)
    sizes = architecture_of(model.config)

    def score(activations: list[Tensor]) -> Tensor:
        return ACROSS[batch](torch.stack([OVER[sequence](a) for a in activations]))

    def per_head(activations: list[Tensor]) -> list[Tensor]:
        return [a.unflatten(-1, (sizes.heads, -1)).norm(dim=-1) for a in activations]

    depth = range(sizes.layers)

    def per_unit(activations: list[Tensor]) -> list[Tensor]:
        if activations[0].shape[-1] == sizes.ffn:
            return activations
        return [a.unflatten(-1, (sizes.ffn, -1)).norm(dim=-1) for a in activations]

    ffn = [
        score(per_unit(seen[f"ffn {i}"])) if f"ffn {i}" in seen else torch.zeros(sizes.ffn)
        for i in depth
    ]
    heads = [
        score(per_head(seen[f"heads {i}"])) if f"heads {i}" in seen else torch.zeros(sizes.heads)
        for i in depth
    ]
    read = sorted(key for key in seen if key.startswith("hidden"))
    influence = []
    for i in depth:
        before, after = torch.cat(seen[f"stream {i}"]), torch.cat(seen[f"stream {i + 1}"])
        influence.append(1 - torch.cosine_similarity(before, after, dim=-1).mean())
    return {
        "hidden": torch.stack([score(seen[key]) for key in read]).sum(0),
        "heads": torch.stack(heads),
        "ffn": torch.stack(ffn),
        "layers": torch.stack(influence),
    }


def mamba_parts(model: Any, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Channels of the heads, and what is written into the state and read from it, of Mamba-2."""
    sizes = architecture_of(model.config)
    inner, states = sizes.ssm_heads * sizes.ssm_head_dim, sizes.ssm_groups * sizes.ssm_state
    _, channels, written, read, _ = projected.split(
        [inner, inner, states, states, sizes.ssm_heads], dim=-1
    )
    return channels, written, read


def delta_net_parts(model: Any, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of Qwen3-Next, as the model itself takes its projection apart."""
    net = next(m for m in model.modules() if hasattr(m, "fix_query_key_value_ordering"))
    other = projected.new_zeros(1, len(projected), 2 * net.num_v_heads)
    read, written, channels, *_ = net.fix_query_key_value_ordering(projected[None], other)
    return channels[0].flatten(1), written[0].flatten(1), read[0].flatten(1)


def recurrent_scores(
    model: Any, samples: Tensor, layer: int, parts: Callable[..., Any]
) -> dict[str, Tensor]:
    """L2 over samples of the mean over tokens of what enters the state of a layer."""
    sizes = architecture_of(model.config)
    found = [parts(model, output) for output in recorded(model, samples)[f"ssm {layer}"]]

    def score(values: list[Tensor]) -> Tensor:
        return ACROSS["l2"](torch.stack([OVER["mean"](value) for value in values]))

    channels = [part[0].unflatten(-1, (sizes.ssm_heads, -1)) for part in found]
    state = score([part[1] for part in found]) * score([part[2] for part in found])
    head_dim = score(channels)
    if family_of(model.config).shared_channels:
        head_dim = head_dim.mean(0).expand_as(head_dim)
    return {
        "ssm_head_dim": head_dim,
        "ssm_heads": score([part.norm(dim=-1) for part in channels]),
        "ssm_state": state.unflatten(-1, (sizes.ssm_groups, -1)),
    }


@pytest.mark.parametrize(
    ("variant", "parts", "recurrent", "other"),
    [
        ("nemotron-h", mamba_parts, (0, 3), 1),
        ("falcon-h1", mamba_parts, (0, 1, 2), None),
        ("qwen3-next", delta_net_parts, (0, 2), 1),
    ],
)
def test_recurrent_parts_are_scored_as_they_enter_the_state(
    variant: str, parts: Callable[..., Any], recurrent: tuple[int, ...], other: int | None
) -> None:
    model = build_teacher(variant)
    samples = token_ids(5, 13)
    scoring = Scoring(ssm_score="l2-mean")
    importance = measure_importance(model, samples.split(2), scoring=scoring)
    for layer in recurrent:
        for axis, expected in recurrent_scores(model, samples, layer, parts).items():
            measured = getattr(importance, axis)[layer].double()
            torch.testing.assert_close(measured, expected, rtol=1e-6, atol=1e-6)
    assert other is None or not importance.ssm_heads[other].any(), "a layer without a state"


def test_magnitude_and_the_control_can_be_those_of_recurrent_parts_alone(tmp_path: Path) -> None:
    model = build_teacher("nemotron-h")
    model.save_pretrained(tmp_path)
    checkpoint, batches = Checkpoint(tmp_path), [token_ids(2, 9)]

    def scores(**names: Any) -> Importance:
        scoring = Scoring(layer_score="block-influence", **names)
        return measure_importance(model, batches, scoring=scoring, checkpoint=checkpoint)

    plain, whole = scores(), scores(score="magnitude")
    by_weight, drawn = scores(ssm_score="magnitude"), scores(ssm_score="random")
    for axis in ("ssm_heads", "ssm_head_dim", "ssm_state"):
        assert torch.equal(getattr(by_weight, axis), getattr(whole, axis))
        assert not torch.equal(getattr(drawn, axis), getattr(plain, axis))
    for other in (by_weight, drawn):
        assert torch.equal(other.hidden, plain.hidden) and torch.equal(other.ffn, plain.ffn)
    with pytest.raises(PruningError, match="'magnitude' reads all weights"):
        measure_importance(model, batches, scoring=Scoring(ssm_score="magnitude"))


@torch.no_grad()
def test_channels_of_a_convolution_are_scored_as_they_leave_it() -> None:
    model: Any = build_teacher("lfm2")
    samples = token_ids(5, 13)
    seen: list[Tensor] = []
    output = model.model.layers[2].conv.out_proj
    handle = output.register_forward_pre_hook(lambda m, i: seen.append(i[0].double()))
    model(input_ids=samples)
    handle.remove()
    expected = seen[0].abs().mean(1).square().sum(0).sqrt()
    scoring = Scoring(ssm_score="l2-mean")
    importance = measure_importance(model, samples.split(2), scoring=scoring)
    torch.testing.assert_close(importance.ssm_heads[2].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_importance_is_the_brute_force_one_in_every_family(variant: str) -> None:
    model = build_teacher(variant)
    samples = token_ids(7, 13)
    importance = measure_importance(
        model, samples.split(3), scoring=Scoring("l2-mean", "block-influence")
    )
    for axis, expected in brute_force(model, samples, "l2", "mean").items():
        measured = getattr(importance, axis)
        torch.testing.assert_close(measured, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("batch", ["mean", "l2", "variance"])
@pytest.mark.parametrize("sequence", ["mean", "l2", "variance"])
def test_every_aggregation_is_the_brute_force_one(batch: str, sequence: str) -> None:
    model = build_teacher("llama-gqa-biases")
    samples = token_ids(7, 13)
    importance = measure_importance(model, samples.split(3), scoring=Scoring(f"{batch}-{sequence}"))
    expected = brute_force(model, samples, batch, sequence)
    for axis in ("hidden", "heads", "ffn"):
        measured = getattr(importance, axis).double()
        torch.testing.assert_close(measured, expected[axis], rtol=EXACT, atol=EXACT)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Any, Checkpoint]:
    model = build_teacher("llama-gqa-biases")
    model.save_pretrained(tmp_path / "teacher")
    return model, Checkpoint(tmp_path / "teacher")


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "batch", "sequence", "power"),
    [("activation-norm", "mean", "mean", 1), ("variance-norm", "mean", "variance", 2)],
)
def test_column_norms_weigh_heads_and_neurons(
    saved: tuple[Any, Checkpoint], name: str, batch: str, sequence: str, power: int
) -> None:
    model, checkpoint = saved
    samples = token_ids(6, 13)
    importance = measure_importance(model, [samples], scoring=Scoring(name), checkpoint=checkpoint)
    loaded = measure_importance(
        model, [samples], scoring=Scoring(name)
    )  # the weights that are in memory
    assert torch.equal(loaded.ffn, importance.ffn) and torch.equal(loaded.heads, importance.heads)
    expected = brute_force(model, samples, batch, sequence)
    for i, layer in enumerate(model.model.layers):
        columns = layer.mlp.down_proj.weight.double().norm(dim=0)
        expected["ffn"][i] *= columns**power
        blocks = layer.self_attn.o_proj.weight.double().unflatten(1, (-1, 8)).norm(dim=(0, 2))
        expected["heads"][i] *= blocks**power
    for axis in ("hidden", "heads", "ffn"):
        measured = getattr(importance, axis).double()
        torch.testing.assert_close(measured, expected[axis], rtol=EXACT, atol=EXACT)


@torch.no_grad()
def test_magnitude_is_the_norm_of_a_units_weights(saved: tuple[Any, Checkpoint]) -> None:
    model, checkpoint = saved
    importance = measure_importance(
        model, [token_ids(2, 9)], scoring=Scoring("magnitude"), checkpoint=checkpoint
    )
    with pytest.raises(PruningError, match="reads all weights; give the model's checkpoint"):
        measure_importance(model, [token_ids(2, 9)], scoring=Scoring("magnitude"))
    layer = model.model.layers[1]
    mlp, attention = layer.mlp, layer.self_attn
    parts = [mlp.gate_proj.weight[7], mlp.up_proj.weight[7], mlp.down_proj.weight[:, 7]]
    parts += [mlp.gate_proj.bias[7:8], mlp.up_proj.bias[7:8]]
    torch.testing.assert_close(importance.ffn[1, 7], torch.cat(parts).norm())
    rows = slice(16, 24)
    parts = [attention.q_proj.weight[rows].flatten(), attention.q_proj.bias[rows]]
    parts.append(attention.o_proj.weight[:, rows].flatten())
    torch.testing.assert_close(importance.heads[1, 2], torch.cat(parts).norm())
    with_channel = [
        p.select(dim, 5).flatten()
        for name, p in model.named_parameters()
        for dim in range(p.dim())
        if p.shape[dim] == 54 and not name.endswith(("q_proj.bias", "k_proj.bias"))
    ]
    torch.testing.assert_close(importance.hidden[5], torch.cat(with_channel).norm())


def test_taylor_is_the_effect_of_a_gate(saved: tuple[Any, Checkpoint]) -> None:
    model, _ = saved
    samples = token_ids(5, 13)
    importance = measure_importance(model, samples.split(2), scoring=Scoring("taylor"))
    layer = model.model.layers[1]
    effects: dict[str, list[Tensor]] = {"ffn": [], "heads": []}
    for sample in samples:
        gates = {"ffn": torch.ones(40, requires_grad=True), "heads": torch.ones(9, 1)}
        gates["heads"].requires_grad_()
        handles = [
            layer.mlp.down_proj.register_forward_pre_hook(lambda m, i: i[0] * gates["ffn"]),  # noqa: B023
            layer.self_attn.o_proj.register_forward_pre_hook(
                lambda m, i: (i[0].unflatten(-1, (9, 8)) * gates["heads"]).flatten(-2)  # noqa: B023
            ),
        ]
        loss = model(input_ids=sample[None], labels=sample[None]).loss * (len(sample) - 1)
        found = torch.autograd.grad(loss, [gates["ffn"], gates["heads"]])
        for axis, gradient in zip(effects, found, strict=True):
            effects[axis].append(gradient.flatten().abs())
        for handle in handles:
            handle.remove()
    for axis, values in effects.items():
        expected = torch.stack(values).mean(0)
        torch.testing.assert_close(getattr(importance, axis)[1], expected, rtol=EXACT, atol=EXACT)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_taylor_of_neurons_that_all_tokens_are_sent_to_is_the_effect_of_a_gate() -> None:
    """They read tokens without their sequences, of which a batch of one has one."""
    model: Any = build_teacher("qwen3-5-moe")
    samples = token_ids(3, 13).split(1)
    importance = measure_importance(model, samples, scoring=Scoring("taylor"))
    effects = []
    for sample in samples:
        gates = torch.ones(20, requires_grad=True)
        output = model.model.layers[1].mlp.shared_expert.down_proj
        handle = output.register_forward_pre_hook(lambda m, i: i[0] * gates)  # noqa: B023
        loss = model(input_ids=sample, labels=sample).loss * (sample.shape[1] - 1)
        effects.append(torch.autograd.grad(loss, gates)[0].abs())
        handle.remove()
    expected = torch.stack(effects).mean(0)
    torch.testing.assert_close(importance.shared_ffn[1], expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "mixtral"])
@pytest.mark.parametrize("score", ["l2-mean", "taylor"])
def test_no_batch_is_kept_in_memory(variant: str, score: str) -> None:
    model: Any = build_teacher(variant)
    seen: list[weakref.ref[Tensor]] = []
    output = model.model.layers[1].self_attn.o_proj
    handle = output.register_forward_hook(lambda m, i, o: seen.append(weakref.ref(i[0])))
    gc.disable()  # so that what only a cycle keeps alive is still there
    try:
        measure_importance(model, token_ids(6, 13).split(2), scoring=Scoring(score))
        assert len(seen) >= 3 and not any(ref() is not None for ref in seen)
    finally:
        gc.enable()
        handle.remove()


def test_random_depends_on_the_seed_alone() -> None:
    model = build_teacher("llama-gqa-tied")
    scores = [
        measure_importance(
            model, [token_ids(2, 9, seed=ids)], scoring=Scoring("random", "random", seed=seed)
        )
        for ids, seed in ((1, 0), (2, 0), (1, 1))
    ]
    for axis in ("hidden", "heads", "ffn", "layers"):
        assert torch.equal(getattr(scores[0], axis), getattr(scores[1], axis))
        assert not torch.equal(getattr(scores[0], axis), getattr(scores[2], axis))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["mixtral", "qwen3-moe", "qwen3-moe-mixed"])
def test_experts_are_scored_on_the_tokens_routed_to_them(variant: str) -> None:
    model: Any = build_teacher(variant)
    samples = token_ids(5, 13)
    before = logits(model)
    scoring = Scoring("l2-mean", expert_score="output-norm")
    importance = measure_importance(model, samples.split(2), scoring=scoring)
    assert torch.equal(logits(model), before)
    for index, layer in enumerate(model.model.layers):
        if not family_of(model.config).has("experts", model.config, index):
            assert not importance.experts[index].any() and not importance.expert_ffn[index].any()
            continue
        routed: list[tuple[Tensor, Tensor]] = []
        experts = layer.mlp.experts
        handle = experts.register_forward_pre_hook(lambda m, i: routed.append((i[0], i[1])))  # noqa: B023
        model(input_ids=samples, use_cache=False)
        handle.remove()
        (hidden, chosen), neurons = routed[0], importance.expert_ffn.shape[2]
        for expert in range(experts.num_experts):
            tokens = hidden[(chosen == expert).any(-1)]
            fused = tokens @ experts.gate_up_proj[expert].T
            inner = experts.act_fn(fused[:, :neurons]) * fused[:, neurons:]
            output = inner @ experts.down_proj[expert].T
            torch.testing.assert_close(
                importance.experts[index, expert],
                output.norm(dim=-1).mean(),
                rtol=EXACT,
                atol=EXACT,
            )
            torch.testing.assert_close(
                importance.expert_ffn[index, expert], inner.abs().mean(0), rtol=EXACT, atol=EXACT
            )


def test_an_expert_that_no_token_reaches_scores_zero() -> None:
    model: Any = build_teacher("mixtral")
    for layer in model.model.layers:
        layer.mlp.gate.forward = _never(layer.mlp.gate, 3)
    importance = measure_importance(model, [token_ids(4, 13)])
    assert importance.experts[:, 3].tolist() == [0.0] * 3
    assert importance.experts.argmin(-1).tolist() == [3] * 3


def _never(router: Any, expert: int) -> Any:
    def forward(hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = hidden_states @ router.weight.T
        scores[:, expert] = -torch.inf
        top, index = scores.softmax(-1).topk(2)
        return scores, top, index

    return forward


@torch.no_grad()
@pytest.mark.parametrize(
    "variant", ["llama-gqa-tied", "gemma2", "gpt2", "gpt-neox", "mixtral", "falcon-h1", "bamba"]
)
@pytest.mark.parametrize("method", ["logit-mse", "loss", "kl"])
def test_leaving_a_layer_out_is_the_oracles(variant: str, method: str) -> None:
    model: Any = build_teacher(variant)
    samples = token_ids(4, 13)
    whole = model(input_ids=samples).logits.double()
    sizes, ordering = architecture_of(model.config), random_ordering(model.config)

    def loss(logits: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), samples[:, 1:].ravel()
        )

    expected = []
    for dropped in range(3):
        kept = [layer for layer in range(3) if layer != dropped]
        without = silenced(model, ordering, replace(sizes, layers=2), kept)
        logits = without(input_ids=samples).logits.double()
        if method == "logit-mse":
            expected.append((logits - whole).square().mean())
        elif method == "loss":
            expected.append(loss(logits) - loss(whole))
        else:
            kl = torch.nn.functional.kl_div(
                logits.log_softmax(-1), whole.log_softmax(-1), log_target=True, reduction="sum"
            )
            expected.append(kl / samples.numel())
    scores, _ = layer_importance(model, samples.split(2), layer_score=method)
    torch.testing.assert_close(scores.double(), torch.stack(expected), rtol=EXACT, atol=EXACT)
    both = measure_importance(model, samples.split(2), scoring=Scoring(layer_score=method)).layers
    assert torch.equal(both, scores)


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "qwen3-moe-mixed"])
def test_span_costs_compare_what_enters_and_leaves(variant: str) -> None:
    model: Any = build_teacher(variant)
    samples = token_ids(4, 13)
    seen = recorded(model, samples)
    streams = [torch.cat(seen[f"stream {i}"]) for i in range(4)]
    importance = measure_importance(model, samples.split(3), scoring=Scoring(layer_score="span"))
    for length in range(1, 3):
        for first in range(3 - length + 1):
            cosine = torch.cosine_similarity(streams[first], streams[first + length], dim=-1)
            measured = float(importance.spans[length, first])
            assert measured == pytest.approx(float(1 - cosine.mean()), rel=EXACT, abs=EXACT)
    ordering = Ordering.from_importance(importance, architecture_of(model.config))
    assert ordering.kept_layers(3) == [0, 1, 2]
    assert ordering.kept_layers(1) in ([0], [2])


def test_a_model_that_is_partly_on_disk_scores_the_same(tmp_path: Path) -> None:
    model = build_teacher("llama-gqa-tied")
    model.save_pretrained(tmp_path / "teacher", max_shard_size="40KB")
    placed: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "teacher",
        device_map="auto",
        max_memory={"cpu": 100_000},
        offload_folder=tmp_path / "offload",
    )
    assert "disk" in placed.hf_device_map.values()
    samples = token_ids(4, 13)
    checkpoint = Checkpoint(tmp_path / "teacher")
    with pytest.raises(PruningError, match="weights that are on disk; give the model's checkpoint"):
        measure_importance(placed, [samples], scoring=Scoring("variance-norm"))
    for layers in ("block-influence", "span", "kl"):
        there = measure_importance(
            placed, [samples], scoring=Scoring(layer_score=layers), checkpoint=checkpoint
        )
        here = measure_importance(model, [samples], scoring=Scoring(layer_score=layers))
        for axis in fields(Importance):
            torch.testing.assert_close(getattr(there, axis.name), getattr(here, axis.name))


def test_experts_that_are_partly_on_disk_score_the_same(tmp_path: Path) -> None:
    model = build_teacher("mixtral")
    model.save_pretrained(tmp_path / "teacher")
    places = {f"model.layers.{i}": "disk" if i == 1 else "cpu" for i in range(3)}
    places |= {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places["model.rotary_emb"] = "cpu"
    placed: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "teacher", device_map=places, offload_folder=tmp_path / "offload"
    )
    samples = token_ids(4, 13)
    for _ in range(2):  # the second time shows that the first left the model whole
        there = measure_importance(placed, [samples], scoring=Scoring("l2-mean"))
        here = measure_importance(model, [samples], scoring=Scoring("l2-mean"))
        for axis in fields(Importance):
            torch.testing.assert_close(getattr(there, axis.name), getattr(here, axis.name))


@pytest.mark.parametrize("layer_score", ["block-influence", "span"])
def test_a_stream_that_moves_between_layers_scores_the_same(layer_score: str) -> None:
    model: Any = build_teacher("llama-gqa-tied")
    samples = token_ids(4, 13)
    still = measure_importance(model, [samples], scoring=Scoring(layer_score=layer_score))
    model.model.layers[1].register_forward_pre_hook(lambda m, i: (i[0].clone(), *i[1:]))
    moved = measure_importance(model, [samples], scoring=Scoring(layer_score=layer_score))
    assert torch.equal(moved.layers, still.layers) and torch.equal(moved.spans, still.spans)


def test_layers_alone_are_scored_by_the_score_that_is_named() -> None:
    model = build_teacher("llama-gqa-tied")
    samples = token_ids(4, 13)
    influence, _ = layer_importance(model, [samples], layer_score="block-influence")
    for name in ("block-influence", "span", "kl", "random"):
        layers, spans = layer_importance(model, [samples], layer_score=name)
        whole = measure_importance(model, [samples], scoring=Scoring(layer_score=name))
        assert torch.equal(spans, whole.spans)
        assert torch.equal(layers, whole.layers) or name == "random"
        assert torch.equal(layers, influence) == (name in ("block-influence", "span"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"score": "l3-mean"}, "no score is called 'l3-mean'; known scores: mean-mean"),
        ({"layer_score": "best"}, "no layer score is called 'best'; known layer scores: block-"),
    ],
)
def test_unknown_scores_are_named_with_the_known(names: dict[str, Any], said: str) -> None:
    with pytest.raises(PruningError, match=said):
        measure_importance(
            build_teacher("llama-gqa-tied"), [token_ids(1, 5)], scoring=Scoring(**names)
        )


@pytest.mark.parametrize("scoring", [Scoring(), Scoring("l2-mean", "block-influence")])
def test_importance_does_not_depend_on_the_batches(scoring: Scoring) -> None:
    model = build_teacher("llama-gqa-tied")
    samples = token_ids(8, 13)
    whole = measure_importance(model, [samples], scoring=scoring)
    for size in (1, 3, 4):
        split = measure_importance(model, samples.split(size), scoring=scoring)
        for axis in fields(Importance):
            torch.testing.assert_close(
                getattr(split, axis.name), getattr(whole, axis.name), rtol=EXACT, atol=EXACT
            )


@torch.no_grad()
def test_planted_dead_parts_rank_last() -> None:
    model: Any = build_teacher("mistral-gqa")
    dead_neuron, dead_head, dead_channel = 11, 5, 33
    for layer in model.model.layers:
        layer.mlp.up_proj.weight[dead_neuron] = 0
        layer.input_layernorm.weight[dead_channel] = 0
        layer.post_attention_layernorm.weight[dead_channel] = 0
    # A query head has no values of its own: silence those of its KV group, of three heads.
    group = dead_head // 3
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight[group * 8 : (group + 1) * 8] = 0
    # A layer that adds nothing does not move the stream.
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    model.model.layers[1].mlp.down_proj.weight.zero_()
    importance = measure_importance(model, [token_ids(4, 13)], scoring=Scoring("l2-mean"))
    assert int(importance.hidden.argmin()) == dead_channel
    assert importance.ffn.argmin(-1).tolist() == [dead_neuron] * 3
    last_three = importance.heads.argsort(-1, descending=True)[:, 6:]
    assert [sorted(row) for row in last_three.tolist()] == [[3, 4, 5]] * 3
    assert int(importance.layers.argmin()) == 1


def test_no_batches_is_an_error() -> None:
    with pytest.raises(PruningError, match="no calibration sequences"):
        measure_importance(build_teacher("llama-gqa-tied"), [])


@torch.no_grad()
def test_scores_that_are_not_finite_are_an_error() -> None:
    model: Any = build_teacher("llama-gqa-tied")
    model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(PruningError, match="not finite"):
        measure_importance(model, [token_ids(2, 13)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_model_is_left_as_found(training: bool, fails: bool) -> None:
    model: Any = build_teacher("llama-gqa-tied").train(training)
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: p.clone() for name, p in model.named_parameters()}

    def batches() -> Any:
        yield token_ids(2, 13)
        if fails:
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            measure_importance(model, batches())
    else:
        measure_importance(model, batches())
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_saved_scores_are_read_back(tmp_path: Path) -> None:
    importance = measure_importance(build_teacher("llama-gqa-tied"), [token_ids(2, 13)])
    importance.save(tmp_path / "importance.safetensors")
    read = Importance.load(tmp_path / "importance.safetensors")
    for axis in fields(Importance):
        assert torch.equal(getattr(read, axis.name), getattr(importance, axis.name))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["gpt2", "phi3", "qwen3-moe-mixed"])
def test_output_norms_of_file_and_model_agree(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    model.save_pretrained(tmp_path)
    from_file = output_norms(Checkpoint(tmp_path))
    for axis, norms in output_norms_of(model).items():
        torch.testing.assert_close(norms, from_file[axis])
        assert norms.numel() == 0 or norms.sum() > 0


@pytest.mark.parametrize(
    ("layers", "chosen", "passes"), [(3, None, 0), (2, [0, 2], 0), (2, None, 4)]
)
def test_layers_that_no_score_decides_on_take_no_passes(
    tmp_path: Path, layers: int, chosen: list[int] | None, passes: int
) -> None:
    model = build_teacher("llama-mha")
    model.save_pretrained(tmp_path / "teacher")
    sizes = replace(architecture_of(model.config), layers=layers, ffn=16)
    settings = PruneSettings(layer_score="kl", rms_rescale=False)
    calls = []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    pruner = Pruner(tmp_path / "teacher", settings, model)
    pruner.prune(sizes, [token_ids(2, 8)], output=tmp_path / "out", kept_layers=chosen)
    assert len(calls) == passes  # of whole and without each layer; widths need no logits
