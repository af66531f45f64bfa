"""Engines and students whose layers differ: none takes one as it is, some take a copy."""

from typing import Any

import pytest

from pruning import Architecture, PruningError, Served, engines_for, engines_line, student_config
from pruning.engines.decilm import DECILM_READERS, why_not_as_decilm
from pruning.engines.programs import ENGINES
from pruning.engines.verdicts import decilm_verdicts, engines_of
from pruning.exports.padded import padded_layers
from pruning.exports.padding import stock_config
from tests.pruning.models import build_config

NARROW = Architecture.parse("L3 H54 A[9/3 - 9/3] F40")
"""54 is not 9 heads of 8 channels."""
AS_DECILM, AS_PADDED = "--form decilm writes", "--form padded writes"


def shape(text: str) -> Architecture:
    return Architecture.parse(f"L3 H72 {text} F[40 17 40]")


def llama(**values: Any) -> Any:
    return build_config("llama-gqa-tied", hidden_size=72, **values)


def said(config: Any, architecture: Architecture) -> dict[str, str]:
    verdicts = engines_for(config, architecture, range(3))
    assert [verdict.engine for verdict in verdicts] == list(ENGINES)
    assert not any(verdict.takes for verdict in verdicts)
    return {verdict.engine: verdict.reason for verdict in verdicts}


def test_readers_of_decilm_take_the_copy_and_others_the_padded_one() -> None:
    found = said(llama(), shape("A[9/3 - 3/1]"))
    assert {name for name, reason in found.items() if AS_DECILM in reason} == {
        *("vllm", "llama.cpp", "mlx")
    }
    assert all(AS_PADDED in found[name] for name in ("transformers4", "sglang"))
    assert "byte fallback" in found["llama.cpp"]  # its tokenizer is not Llama 3's
    assert "--trust-remote-code" in found["vllm"]
    assert said(llama(vocab_size=128_256), shape("A[9/3 - 3/1]"))["llama.cpp"].endswith(AS_DECILM)


def test_sglang_wants_as_many_groups_in_every_layer() -> None:
    assert why_not_as_decilm("sglang", llama(), shape("A[9/3 - 9/3]")) == ""
    assert "KV groups" in why_not_as_decilm("sglang", llama(), shape("A[9/3 - 3/1]"))
    assert "KV groups" in why_not_as_decilm("sglang", llama(), shape("A[- 9/3 9/3]"))  # layer 0
    assert "biases" in why_not_as_decilm("sglang", llama(mlp_bias=True), shape("A[9/3 - 9/3]"))


def test_some_take_hidden_size_over_heads_for_the_channels_of_a_head() -> None:
    config = build_config("llama-gqa-tied", hidden_size=54)
    takes = {one.engine: one.takes for one in decilm_verdicts(config, NARROW)}
    assert takes == {name: name in ("vllm", "sglang") for name in ENGINES}
    assert "8 and not 54 / 9" in why_not_as_decilm("llama.cpp", config, NARROW)


def test_only_some_engines_take_biases_of_query_key_and_value_alone() -> None:
    config = build_config("qwen2", hidden_size=72)
    takes = {one.engine: one.takes for one in decilm_verdicts(config, shape("A[9/3 - 9/3]"))}
    assert takes == {name: name in ("vllm", "llama.cpp") for name in ENGINES}


def test_other_types_have_padded_copies_alone() -> None:
    found = said(build_config("qwen3", hidden_size=72), shape("A[9/3 - 3/1]"))
    assert not any(AS_DECILM in reason for reason in found.values())
    assert AS_PADDED in found["vllm"]
    norms_heads = said(build_config("olmo2"), shape("A[9/3 - 3/1]"))
    assert not any("writes" in reason for reason in norms_heads.values())


def test_a_mixture_that_is_left_without_its_dense_layer_has_a_padded_copy() -> None:
    config = build_config("qwen3-moe-mixed")  # whose layer 1 is dense
    mixed = Architecture.parse("L2 H48 A[9/3 -] E4x24")
    assert (
        AS_PADDED in {one.engine: one.reason for one in engines_for(config, mixed, [0, 2])}["vllm"]
    )


@pytest.mark.parametrize(
    ("variant", "text"),
    [
        ("mixtral", "L3 H48 A[9/3 6/2 9/3] F-"),
        ("mixtral", "L3 H48 A9/3 E[5x40 -*2]"),
        ("qwen3-moe-mixed", "L3 H48 A9/3 F[- 40 -]"),
        ("qwen3-moe-mixed", "L3 H48 A- F[- 40 -]"),
    ],
)
def test_a_padded_copy_is_named_where_one_can_be_written(variant: str, text: str) -> None:
    config, architecture = build_config(variant), Architecture.parse(text)
    try:
        padded_layers(stock_config(config), architecture)
        written = True
    except PruningError:
        written = False
    assert written == any(AS_PADDED in one for one in said(config, architecture).values())
    assert written == text.endswith("E[5x40 -*2]")


def test_the_line_puts_engines_of_one_verdict_together() -> None:
    line = engines_line(engines_for(llama(), shape("A[9/3 - 3/1]"), range(3)))
    assert line.startswith(
        "engines that take it: none as it is; transformers4, sglang, ctranslate2"
    )


def test_a_written_student_is_asked_for_by_its_own_configuration() -> None:
    own = student_config(llama(), shape("A[9/3 - 3/1]"), range(3))
    assert {one.engine: one.reason for one in engines_of(own)} == said(
        llama(), shape("A[9/3 - 3/1]")
    )


def test_engines_that_are_to_take_it_narrow_what_may_differ() -> None:
    served = Served(llama(), ("vllm", "llama.cpp"))
    assert served.holds(shape("A[9/3 - 3/1]"))
    served.check(shape("A[9/3 - 3/1]"))
    with pytest.raises(PruningError, match="is not for mlx, which takes .* only as DeciLM"):
        Served(build_config("qwen2", hidden_size=72), ("mlx",)).check(shape("A[9/3 - 3/1]"))
    other = Served(llama(), ("vllm", "transformers4"))
    assert not other.holds(shape("A[9/3 - 3/1]"))
    with pytest.raises(PruningError, match="transformers4.*it reads no DeciLM"):
        other.check(shape("A[9/3 - 3/1]"))


def test_every_reader_of_decilm_is_an_engine_with_a_source() -> None:
    assert DECILM_READERS.keys() <= ENGINES.keys()
    assert all(reader.known and reader.source for reader in DECILM_READERS.values())
