"""What the commands share: several values after an option, and switches without one."""

from operator import attrgetter
from pathlib import Path

import pytest

from experiments.command import list_options, option_types, parse, with_lists
from experiments.run_prune import PruneConfig
from search.config import SearchConfig
from search.distill_config import DistillConfig

REQUIRED = {
    SearchConfig: ["--teacher=t", "--corpus=c"],
    PruneConfig: ["--teacher=t", "--corpus=c", "--output=o", "--ffn=64"],
    DistillConfig: ["--teacher=t", "--student=s", "--corpus=c", "--output=o"],
}
APART = {DistillConfig: {"match_states"}}
"""Switches that exclude another one."""


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ("--family 0.75 0.5", ["--family", "[0.75, 0.5]"]),
        ("--objectives kl", ["--objectives", '["kl"]']),
        ("--objectives kl task:a.b --trials 3", ["--objectives", '["kl", "task:a.b"]']),
        ("--objectives [kl,flops]", ["--objectives", "[kl,flops]"]),
        ("--space.heads 8", ["--space.heads", "[8]"]),
        ("--space.heads 4,8", ["--space.heads", "[4, 8]"]),
        ("--budget.parameters 0.5", ["--budget.parameters", "0.5"]),
        ("--budget.memory 2GB 4GB", ["--budget.memory", '["2GB", "4GB"]']),
        ("--corpus_files.include *.py *.c", ["--corpus_files.include", '["*.py", "*.c"]']),
        ("--study my study", ["--study", "my", "study"]),
        ("--family=[0.5,0.2] --seed 1", ["--family=[0.5,0.2]", "--seed", "1"]),
    ],
)
def test_values_after_an_option_that_takes_a_list(given: str, joined: list[str]) -> None:
    found = list(with_lists(given.split(), list_options(SearchConfig)))
    assert found[: len(joined)] == joined
    assert "--" not in found


def switches_of(kind: type) -> list[str]:
    found = [option for option, hint in option_types(kind).items() if hint is bool]
    return [
        name for name in (o.removeprefix("--") for o in found) if name not in APART.get(kind, ())
    ]


def values(kind: type, options: list[str]) -> set[bool]:
    """What a command has for its switches."""
    config = parse(kind, None, [*REQUIRED[kind], *options])
    return {attrgetter(name)(config) for name in switches_of(kind)}


@pytest.mark.parametrize("kind", REQUIRED)
def test_switches_need_no_value_and_take_one(kind: type, tmp_path: Path) -> None:
    names = switches_of(kind)
    assert names
    for written in (True, False):
        text = str(written).lower()
        alone = [f"--{name}" if written else f"--no_{name}" for name in names]
        assert values(kind, [*alone, "--device", "cpu"]) == {written}
        assert values(kind, [f"--{name}={text}" for name in names]) == {written}
        assert values(kind, [part for name in names for part in (f"--{name}", text)]) == {written}
        file = tmp_path / f"{text}.yaml"
        file.write_text("\n".join(f"{name}: {text}" for name in names))
        assert values(kind, [f"--config={file}"]) == {written}
        assert values(kind, [f"--config={file}", *(f"--no_{name}" for name in names)]) == {False}


def test_states_are_matched_by_a_switch() -> None:
    options = [*REQUIRED[DistillConfig], "--match_states", "--training.targets", "live"]
    assert parse(DistillConfig, None, options).match_states


def test_a_switch_that_is_neither_true_nor_false_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(SearchConfig, None, [*REQUIRED[SearchConfig], "--dashboard", "maybe"])
    assert capsys.readouterr().err == (
        "error: --dashboard is maybe; it must be of type bool (see --help)\n"
    )
