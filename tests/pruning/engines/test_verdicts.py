"""Which engines take which students: rules say what they say, and layers keep their patterns."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma3TextConfig, SmolLM3Config

from pruning import (
    ArchitectureGrid,
    Checkpoint,
    Ordering,
    Pruner,
    PruningError,
    Served,
    architecture_of,
    engines_for,
    engines_line,
    engines_of,
)
from pruning.engines.programs import ENGINES
from pruning.engines.rules import RULES
from pruning.engines.spec import QUANTISING, RUN, WINDOWS
from pruning.families.table import head_dim_of
from tests.pruning.models import VARIANTS, build_config, build_teacher, random_ordering, token_ids

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def layered(kind: str, layers: int = 12) -> Any:
    """A teacher with the pattern of its type."""
    if kind == "smollm3":
        return SmolLM3Config(**SIZES, num_hidden_layers=layers, pad_token_id=0)
    config = {"gemma2": Gemma2Config, "gemma3_text": Gemma3TextConfig}[kind]
    return config(**SIZES, num_hidden_layers=layers, query_pre_attn_scalar=8, sliding_window=8)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.engine}: {rule.needs}")
def test_every_row_says_what_when_why_and_from_where(rule: Any) -> None:
    said = (rule.tie, rule.pattern, rule.rows, rule.shape)
    assert sum(part is not None for part in said) == 1
    assert rule.needs and rule.reason and rule.source
    engine = ENGINES[rule.engine]
    assert set(rule.model_types) <= engine.model_types or rule.breaks == QUANTISING
    assert rule.known != RUN or engine.known == RUN


@pytest.mark.parametrize(
    ("variant", "engines"),
    [
        ("qwen2", ["llama.cpp", "ctranslate2", "mlx", "vllm"]),
        ("phi3", ["llama.cpp", "mlx"]),
        ("olmo2", ["llama.cpp", "sglang"]),
        ("granite", ["llama.cpp", "mlx"]),
        ("nemotron", ["llama.cpp"]),
        ("mixtral", ["mlx", "sglang"]),
        ("llama-gqa-tied", ["ctranslate2"]),
        ("mistral-gqa", []),
        ("qwen3", []),
        ("gemma2", []),
    ],
)
def test_hidden_must_be_heads_times_head_dim_where_the_engine_reads_none(
    variant: str, engines: list[str]
) -> None:
    config = build_config(variant)
    shape = replace(architecture_of(config), hidden=48, heads=6, kv_heads=2)
    verdicts = {v.engine: v for v in engines_for(config, replace(shape, heads=3, kv_heads=1), [0])}
    broken = {name for name, found in verdicts.items() if "heads x head_dim" in found.reason}
    assert broken == set(engines)
    assert not any(verdicts[name].takes for name in engines)
    for name in engines:
        Served(config, (name,)).check(replace(shape, hidden=6 * head_dim_of(config), ffn=0))
        with pytest.raises(PruningError, match=rf"not for {name}, which needs hidden = heads x"):
            Served(config, (name,)).check(replace(shape, hidden=40))


@pytest.mark.parametrize(("variant", "engine"), [("gpt2", "llama.cpp"), ("gpt-neox", "mlx")])
def test_ffn_must_be_four_times_hidden_where_the_engine_says_so(variant: str, engine: str) -> None:
    config = build_config(variant)
    served = Served(config, (engine,))
    shape = replace(architecture_of(config), hidden=16, heads=2, kv_heads=2)
    with pytest.raises(PruningError, match="needs FFN = 4 x hidden"):
        served.check(replace(shape, ffn=48))
    assert served.holds(replace(shape, ffn=64))


def placed(ordering: Ordering, served: Served) -> Ordering:
    """The ordering, with the places that the layers may stand at."""
    assert served.places is not None
    return replace(ordering, places=served.places)


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "smollm3"])
def test_a_depth_keeps_the_most_important_layers_that_keep_the_pattern(kind: str) -> None:
    config = layered(kind)
    served = Served(config, ("llama.cpp",))
    whole = architecture_of(config)
    pattern = next(rule.pattern for rule in served.rules if rule.pattern)
    kinds = pattern.kinds(config)
    for seed in range(4):
        ordering = placed(random_ordering(config, seed), served)
        ranks = ordering.layers.argsort().tolist()
        for depth in range(1, whole.layers + 1):
            fitting = [
                chosen
                for chosen in combinations(range(whole.layers), depth)
                if [kinds[layer] for layer in chosen] == [pattern.at(n) for n in range(depth)]
            ]
            best = min(fitting, key=lambda chosen: sorted(ranks[layer] for layer in chosen))
            assert ordering.kept_layers(depth) == list(best)
            served.check(replace(whole, layers=depth), best)


def test_the_cheapest_span_is_one_that_keeps_the_pattern() -> None:
    config = layered("smollm3", 8)
    served = Served(config, ("llama.cpp",))
    whole = architecture_of(config)
    costs = torch.full((8, 9), torch.inf)
    for dropped in range(8):
        costs[dropped, : 9 - dropped] = torch.arange(9 - dropped) * 1.0
    free = replace(random_ordering(config), spans=torch.zeros(0, dtype=torch.int64))
    ordering = placed(free, served).with_layers(torch.arange(8.0), costs)
    assert ordering.kept_layers(4, contiguous=True) == [4, 5, 6, 7]
    assert ordering.kept_layers(7, contiguous=True) == list(range(7))
    assert free.with_layers(torch.arange(8.0), costs).kept_layers(7) == list(range(1, 8))
    table = [served.holds(replace(whole, layers=n, contiguous=1)) for n in range(1, 9)]
    assert all(table), "the tail can always go"


def test_a_depth_without_a_fitting_choice_is_no_choice() -> None:
    config = layered("gemma2", 4)
    config.layer_types = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    config.num_hidden_layers = 6
    served = Served(config, ("llama.cpp",))
    whole = architecture_of(config)
    shapes = ArchitectureGrid.of([replace(whole, layers=depth) for depth in range(1, 7)])
    assert served.holds(shapes).tolist() == [True, True, True, True, False, False]
    ordering = placed(random_ordering(config), served)
    with pytest.raises(PruningError, match="no 5 layers of the model keep the pattern"):
        ordering.kept_layers(5)
    with pytest.raises(PruningError, match="not for llama.cpp, which needs windows in every other"):
        served.check(whole)


def test_an_ordering_keeps_its_places_on_disk(tmp_path: Path) -> None:
    config = layered("smollm3")
    ordering = placed(random_ordering(config), Served(config, ("llama.cpp",)))
    ordering.save(tmp_path / "with")
    random_ordering(config).save(tmp_path / "without")
    assert torch.equal(Ordering.load(tmp_path / "with").places, ordering.places)
    assert not len(Ordering.load(tmp_path / "without").places)


def test_a_cut_for_an_engine_keeps_the_pattern_and_refuses_other_layers(tmp_path: Path) -> None:
    model = build_teacher("smollm3", num_hidden_layers=8, no_rope_layers=[1, 1, 1, 0] * 2)
    model.save_pretrained(tmp_path / "teacher")
    shape = replace(architecture_of(model.config), layers=4)
    batches = [token_ids(2, 8)]
    pruner = Pruner(tmp_path / "teacher", model=model, serve_with=["llama.cpp"])
    found = pruner.prune(shape, batches, output=tmp_path / "cut")
    config = Checkpoint(tmp_path / "cut").config
    assert config.no_rope_layers == [1, 1, 1, 0]
    assert [model.config.no_rope_layers[layer] for layer in found.kept_layers] == [1, 1, 1, 0]
    with pytest.raises(
        PruningError, match="of layers 0, 3, 4, 5 is not for llama.cpp, which needs"
    ):
        pruner.prune(shape, batches, output=tmp_path / "other", kept_layers=[0, 3, 4, 5])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_are_elementwise(variant: str) -> None:
    config = build_config(variant)
    whole = architecture_of(config)
    names = tuple(n for n, engine in ENGINES.items() if config.model_type in engine.model_types)
    shapes = [whole, replace(whole, layers=2), replace(whole, hidden=24, heads=3, kv_heads=3)]
    grid = ArchitectureGrid.of(shapes)
    for name in names:
        served = Served(config, (name,))
        alone = [bool(served.holds(shape)) for shape in shapes]
        assert np.broadcast_to(served.holds(grid), 3).tolist() == alone


@pytest.mark.parametrize(
    ("engine", "variant", "said"),
    [
        ("tgi", "qwen3", "has 'tgi'; it must be any of transformers4, vllm, sglang, llama.cpp"),
        ("ctranslate2", "olmo2", "has ctranslate2: it takes no olmo2 models"),
        ("sglang", "phi3", "has sglang: it takes no phi3 models"),
        ("vllm", "cohere2", "has vllm: it was not tried with cohere2 models"),
    ],
)
def test_engines_that_cannot_be_are_refused(engine: str, variant: str, said: str) -> None:
    with pytest.raises(PruningError, match=said):
        Served(build_config(variant), (engine,))


def test_largest_gemma_keeps_hidden_and_depth_in_llama_cpp() -> None:
    sizes = SIZES | {"num_hidden_layers": 46, "head_dim": 16}
    config = Gemma2Config(**sizes, query_pre_attn_scalar=8)
    served = Served(config, ("llama.cpp",))
    whole = architecture_of(config)
    assert served.holds(whole) and served.holds(replace(whole, ffn=96))
    for shape in (replace(whole, hidden=32), replace(whole, layers=44)):
        with pytest.raises(PruningError, match="query_pre_attn_scalar"):
            served.check(shape)


def test_rows_that_do_not_quantise_are_refused_where_asked_for_and_told_otherwise() -> None:
    config = layered("smollm3", 4)
    odd = replace(architecture_of(config), ffn=120)
    with pytest.raises(PruningError, match="needs rows of a multiple of 32"):
        Served(config, ("llama.cpp",)).check(odd)
    verdict = {v.engine: v for v in engines_for(config, odd, range(4))}["llama.cpp"]
    assert verdict.takes and "multiple of 32" in verdict.reason
    assert "llama.cpp: yes, but it needs rows" in engines_line([verdict])


def test_an_ignored_window_is_told_and_refuses_nothing() -> None:
    served = Served(build_config("gemma2"), ("mlx",))
    assert any(rule.breaks == WINDOWS for rule in RULES if rule.engine == "mlx")
    (caution,) = served.cautions()
    assert "prompts that fit the window" in caution
    assert served.holds(architecture_of(served.config))
    assert not Served(layered("smollm3"), ("mlx",)).cautions()


def test_a_type_that_was_not_tried_is_no_promise() -> None:
    verdicts = {v.engine: v for v in engines_of(build_config("cohere2"))}
    assert not any(v.takes for name, v in verdicts.items() if name != "transformers4")
    assert verdicts["llama.cpp"].reason == "it was not tried with cohere2 models"


def test_the_line_names_who_takes_it_and_why_others_do_not() -> None:
    line = engines_line(engines_of(build_config("olmo2")))
    assert "transformers4" in line.partition(";")[0]
    assert "ctranslate2: no, it takes no olmo2 models" in line
