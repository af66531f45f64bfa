"""What the commands share: several values after an option, and switches without one."""

from operator import attrgetter
from pathlib import Path

import pytest

from experiments.command import list_options, option_types, parse, with_lists
from experiments.distill.config import DistillConfig
from experiments.prune.config import PruneConfig
from search.config.study import SearchConfig

REQUIRED = {
    SearchConfig: ["--teacher=t", "--corpus=c"],
    PruneConfig: ["--teacher=t", "--corpus=c", "--output=o", "--ffn=64"],
    DistillConfig: ["--teacher=t", "--student=s", "--corpus=c", "--output=o"],
}
APART: dict[type, set[str]] = {
    DistillConfig: {"match_states"},
    SearchConfig: {"per_layer.windows"},
}
"""Switches that exclude another option or want one."""


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
        ("--family=[0.5,0.2] --seed 1", ["--family", "[0.5,0.2]", "--seed", "1"]),
        ("--objectives=kl --seed 1", ["--objectives", '["kl"]', "--seed", "1"]),
        ("--objectives=kl,flops", ["--objectives", '["kl", "flops"]']),
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
    config = parse(kind, [*REQUIRED[kind], *options])
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
    assert parse(DistillConfig, options).match_states


def test_a_switch_that_is_neither_true_nor_false_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(SearchConfig, [*REQUIRED[SearchConfig], "--dashboard", "maybe"])
    assert capsys.readouterr().err == (
        "error: --dashboard is maybe; it must be of type bool (see --help)\n"
    )


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that ends the command."""
    with pytest.raises(SystemExit) as ended:
        parse(SearchConfig, [*REQUIRED[SearchConfig], *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("error: ") and err[:-1].isprintable()
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trails", "3"], "there is no option --trails; did you mean --trials?"),
        (["--tokens=3"], "did you mean --per_layer.tokens or --correction.tokens or --corpus_"),
        (["--training.larning_rate=1"], "did you mean --training.learning_rate"),
        (["--no_dashbord"], "did you mean --no_dashboard"),
        (["--zzz"], "there is no option --zzz (see --help)"),
        (["--trials.x=3"], "there is no option --trials.x; did you mean --trials?"),
        (["--space.multiple_of.ffn=x"], "--space.multiple_of.ffn is x; it is of another type"),
        (["--budget", "0.5"], "--budget is '0.5', but it is a group of options; give one of them,"),
        (["--training="], "--training is '', but it is a group of options"),
        (["--budget", "{parameter: 0.5}"], "did you mean --budget.parameters?"),
        (["--seed"], "--seed needs a value"),
        (["--block", "1k"], "--block is 1k; it must be of type int"),
        (["--workspace="], "--workspace is empty; give a path"),
        (["--study", "a\udcff"], r"--study is 'a\udcff', which is no text"),
        (["--funnel.keep", "9" * 400], "--funnel.keep has a number of 400 digits"),
        (["--config", "no/such.yaml"], "--config is 'no/such.yaml', which is no file"),
        (["--config="], "--config is '', which is no file"),
    ],
    ids=lambda part: part[0][:30] if isinstance(part, list) else "",
)
def test_options_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(arguments, capsys)


def test_dashes_stand_for_underscores() -> None:
    options = ["--dashboard", "--short-tokens=7000", "--pages.ray-port", "0", "--no-dashboard"]
    config = parse(SearchConfig, [*REQUIRED[SearchConfig], *options])
    assert (config.short_tokens, config.pages.ray_port, config.dashboard) == (7000, 0, False)


def test_the_beginning_of_one_name_is_that_option() -> None:
    options = ["--budget.param", "10M", "20M", "--fam=[0.5,0.2]", "--dash", "--space.h+", "8"]
    with pytest.raises(SystemExit):  # hidden and heads
        parse(SearchConfig, [*REQUIRED[SearchConfig], *options])
    config = parse(SearchConfig, [*REQUIRED[SearchConfig], *options[:2], *options[4:5]])
    assert config.budget.parameters == "10M" and config.dashboard
    config = parse(SearchConfig, [*REQUIRED[SearchConfig], *options[:3]])
    assert config.budget.parameters == ["10M", "20M"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no options"),
        ("- seed", "holds no options"),
        ("seed: 1\ntrails: 3", "line 2: there is no option --trails; did you mean --trials?"),
        ("seed: 1\nseed: 2", "has --seed twice, in lines 1 and 2"),
        ("splits: {test_tokens: 9}\nsplits.test_tokens: 8", "--splits.test_tokens twice, in lines"),
        ("space: {multiple_of: {ffn: 8, ffn: 16}}", "a key of --space.multiple_of twice"),
        ("budget: 0.5", "--budget in line 1, a group of options; indent them below it"),
        ("training: null", "--training in line 1, a group of options"),
        ("trial: 3", "there is no option --trial; did you mean --trials?"),
        ("3: 4", "there is no option --3"),
        ("? [a]\n: b", "no name before the colon in line 1"),
        ("objectives: &a [*a]", "--objectives inside itself"),
        ("seed: &a [1", "is no YAML: expected ',' or ']'"),
        ("seed: 1\n---\nseed: 2", "is no YAML"),
        ("seed: !!python/object:os.system {}", "python/object"),
        ("seed: .nan", "--seed is nan; it must be of type int"),
        ('study: "a\\0b"', r"--study is 'a\x00b', which is no text"),
        (f"seed: {'9' * 5000}", "--seed has a number of 5000 digits"),
        ("config: options.yaml", "names itself"),
        (
            "splits: more.yaml",
            "there is no option --splits.test_shares; did you mean --splits.test",
        ),
    ],
)
def test_files_of_options_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(content)
    (tmp_path / "more.yaml").write_text("test_shares: 0.01")
    line = refusal([f"--config={file}"], capsys)
    assert said in line


def test_files_of_options_that_are_no_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    assert "is no text in UTF-8" in refusal([f"--config={tmp_path / 'bytes'}"], capsys)
    assert "is no file" in refusal([f"--config={tmp_path}"], capsys)


def test_a_file_of_options_may_name_others(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    (tmp_path / "more.yaml").write_text("seed: 5\n")
    file.write_text(
        "config: more.yaml\ntasks:\nsplits: {test_tokens: 64}\nspace: {multiple_of: {ffn: 8}}\n"
    )
    config = parse(SearchConfig, [*REQUIRED[SearchConfig], f"--config={file}"])
    assert (config.seed, config.splits.test_tokens) == (5, 64)
    assert config.space.multiples == {"ffn": 8}
    config = parse(SearchConfig, [*REQUIRED[SearchConfig], "--config", "{seed: 6}"])
    assert config.seed == 6
