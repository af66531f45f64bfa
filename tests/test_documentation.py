"""What README and docs tell people to type: every command is parsed, every snippet is run."""

import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin

import pytest
import torch
from markdown_it import MarkdownIt
from transformers import AutoModelForCausalLM, LlamaConfig

import experiments.run_dashboard
import experiments.run_distill
import experiments.run_evaluate
import experiments.run_export
import experiments.run_prune
import experiments.run_push
import experiments.run_report
import experiments.run_search
import search
from experiments.command import option_types, parse
from experiments.dashboard.config import DashboardCommand
from experiments.distill.config import DistillConfig
from experiments.evaluation.config import EvaluateConfig
from experiments.export.config import ExportConfig
from experiments.option_names import with_underscores
from experiments.prune.config import ExplainConfig, PruneConfig, config_class
from experiments.push.config import PushConfig, with_folder
from experiments.report.config import ReportConfig
from pruning import Architecture, architecture_of, check_architecture
from pruning.families.table import common
from search.config.study import SearchConfig
from tests.driver import ROOT, TEACHER, write_corpus
from tests.search.finished import RESULTS

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS: dict[str, tuple[type, Any]] = {
    "run_search.py": (SearchConfig, experiments.run_search),
    "run_demo.py": (SearchConfig, experiments.run_search),  # which it hands its options to
    "run_prune.py": (PruneConfig, experiments.run_prune),
    "run_distill.py": (DistillConfig, experiments.run_distill),
    "run_export.py": (ExportConfig, experiments.run_export),
    "run_push.py": (PushConfig, experiments.run_push),
    "run_report.py": (ReportConfig, experiments.run_report),
    "run_dashboard.py": (DashboardCommand, experiments.run_dashboard),
    "run_evaluate.py": (EvaluateConfig, experiments.run_evaluate),
}
REQUIRED = {
    SearchConfig: ["--teacher", "t", "--corpus", "c"],
    PruneConfig: ["--teacher", "t", "--corpus", "c", "--output", "o", "--ffn", "64"],
    EvaluateConfig: ["--models", "m"],
    ExportConfig: ["--student", "s", "--output", "o"],
    PushConfig: ["--folder", "f", "--repo", "a/b"],
    ReportConfig: ["--storage", "sqlite:///s.db"],
    DistillConfig: ["--teacher", "t", "--student", "s", "--corpus", "c", "--output", "o"],
}
OPTIONS = {kind: {"--config": str, **option_types(kind)} for kind, _ in COMMANDS.values()}


# The name


def test_nobody_is_sent_to_another_project_of_the_name() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    patterns = ("*.py", "*.md", "*.toml", "*.yaml", "Makefile", ".ci/*")
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "README.md" in listed and "pyproject.toml" in listed
    sent = re.compile(r"pypi\.org/\S*espalier|\b(install|add)\s(\S+\s)*['\"]?espalier(?!/)")
    for path in (ROOT / file for file in listed if file != "tests/test_documentation.py"):
        for line in path.read_text("utf-8").splitlines():
            assert not sent.search(line), f"{path}: {line}"
    assert sent.search("pip install 'espalier[postgresql]'")
    assert sent.search("https://pypi.org/project/espalier/")
    assert not sent.search("pip install -e '.[postgresql]'")
    assert 'name = "espalier-nas"' in (ROOT / "pyproject.toml").read_text()


# Commands


def blocks() -> Iterator[tuple[Path, str, str]]:
    """(file, language, text) of every block of code and every piece of code in a sentence."""
    for path in DOCUMENTS:
        for token in MarkdownIt().enable("table").parse(path.read_text("utf-8")):
            if token.type in ("fence", "code_block"):
                yield path, token.info or "text", token.content
            for child in token.children or []:
                if child.type == "code_inline":
                    yield path, "inline", child.content


def command_lines() -> Iterator[list[str]]:
    """The words of every line that starts one of our programs, in documents and in --help."""
    texts = [(text, kind == "inline") for _, kind, text in blocks()]
    texts += [(module.__doc__, False) for module in {module for _, module in COMMANDS.values()}]
    for text, in_a_sentence in texts:
        for line in text.replace("\\\n", " ").splitlines():
            called = line.strip().startswith("espalier ") and not in_a_sentence
            ours = "experiments/" in line or called
            words = shlex.split(line, comments=True) if ours else []
            if words[:1] == ["espalier"] and words[1:]:
                words = ["python", f"experiments/run_{words[1]}.py", *words[2:]]
                if Path(words[1]).name not in COMMANDS:  # such as `espalier --help`
                    continue
            if words[:1] == ["python"]:
                yield [*words[1:], *(["..."] if in_a_sentence else [])]


LINES = list(command_lines())


def test_documented_programs_exist() -> None:
    assert len(LINES) > 20
    for script, *options in LINES:
        source = (ROOT / script).read_text("utf-8")
        if "rows.add_options(" in source:  # those that such benchmarks have in common
            for shared in ("rows.py", "demo_setting.py"):
                source += (ROOT / "experiments/benchmarks" / shared).read_text("utf-8")
        if Path(script).name not in COMMANDS:
            for option in options:
                assert not option.startswith("--") or f'"{option}"' in source, (script, option)


@pytest.mark.parametrize(
    "words", [words for words in LINES if Path(words[0]).name in COMMANDS and "--help" not in words]
)
def test_documented_commands_are_understood(words: list[str]) -> None:
    """`...` stands for what a command needs besides, which the demo has by itself."""
    name = Path(words[0]).name
    kind, _ = COMMANDS[name]
    given = [word for word in words[1:] if word != "..."]
    given = with_folder(given) if kind is PushConfig else given
    if config_class(given) is ExplainConfig:
        kind = ExplainConfig
    whole = len(given) == len(words[1:]) and name != "run_demo.py"
    parse(kind, given if whole else [*REQUIRED[kind], *given])


def documented_options() -> Iterator[tuple[str, list[str]]]:
    """(option, values) of every option in a sentence; `--a.b/.c` is two, and `.c` after `--a.b`."""
    group = ""
    for _, language, text in blocks():
        first, *values = text.split() or [""]
        if language != "inline" or not re.match(r"(--|\.)[a-z]", first):
            continue
        for name in first.split("/"):
            if name.startswith("--"):
                group = name.rpartition(".")[0]
            elif not group:
                continue
            yield (name if name.startswith("--") else group + name), values


def is_switch(option: str) -> bool:
    return any(options.get(option) is bool for options in OPTIONS.values())


def takes_keys(option: str) -> bool:
    """Whether an option may be given as several, `--option.key`."""
    kinds = [options[option] for options in OPTIONS.values() if option in options]
    return any(get_origin(each) is dict for kind in kinds for each in (kind, *get_args(kind)))


def test_documented_options_exist() -> None:
    known = {option for options in OPTIONS.values() for option in options}
    groups = {option.rpartition(".")[0] + ".*" for option in known}
    groups |= {group.removesuffix(".*") for group in groups}
    known |= {option.replace("--", "--no_", 1) for option in known if is_switch(option)}
    programs = "".join((ROOT / words[0]).read_text("utf-8") for words in LINES)
    found = dict(documented_options())
    assert len(found) > 60
    for option in found.keys() - {"--help"}:
        named = with_underscores(option) in known | groups or f'"{option}"' in programs
        assert named or takes_keys(option.rpartition(".")[0]), option


def alternatives() -> Iterator[tuple[str, list[str]]]:
    """Options with each of the values that documents give them; not with those in capitals."""
    for option, values in documented_options():
        shown = " ".join(values)
        if shown and not re.search("[A-Z]|--", shown):
            yield from ((option, value.split()) for value in shown.split("|"))


def test_documented_values_are_taken() -> None:
    tried = set()
    for option, values in alternatives():
        kinds = [kind for kind, options in OPTIONS.items() if option in options]
        if (option, *values) in tried or not kinds:
            continue
        tried.add((option, *values))
        parse(kinds[0], [*REQUIRED[kinds[0]], option, *values])
    assert len(tried) > 20


# Snippets


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models and texts that the snippets name, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("my-model", "my-teacher", "my-student"):
        Path(name).symlink_to(TEACHER)
    shutil.copy(Path(sysconfig.get_path("stdlib")) / "argparse.py", "my-text.txt")
    write_corpus(Path("my-text.jsonl.gz"))
    return tmp_path


def with_others(text: str, others: dict[str, str]) -> str:
    """The snippet with small numbers in place of those that it shows."""
    for shown, small in others.items():
        assert shown in text, shown
        text = text.replace(shown, small)
    return text


def run(text: str, name: str = "__main__", **known: Any) -> dict[str, Any]:
    names = {"__name__": name, **known}
    exec(compile(text, "snippet", "exec"), names)
    return names


SHAPE = "Architecture(layers=24, hidden=3072, heads=32, kv_heads=8, ffn=9216)"
SMALL = "Architecture(layers=3, hidden=96, heads=4, kv_heads=2, ffn=240)"


def searches(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the search itself; it is not started where a process imports the file."""
    asked = []

    def run_search(config: SearchConfig) -> Any:
        asked.append(config)
        return SimpleNamespace(results=RESULTS)

    monkeypatch.setattr(search, "run_search", run_search, raising=False)
    run(text, "__mp_main__")
    assert not asked
    run(text)
    assert asked[0].teacher == "my-model"


def prunes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shape of the tiny model; the one that is shown can be cut out of a Llama 3.1 8B."""
    whole = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    check_architecture(whole, eval(SHAPE, {"Architecture": Architecture}))
    made = {"batches": [torch.arange(128).view(2, 64)]}
    given: dict[str, Any] = {} if "batches = " in text else made
    smaller = {"view(4, 1024)": "view(4, 64)", "split(4096)": "split(256)", "== 4096": "== 256"}
    names = run(with_others(text, {SHAPE: SMALL} | ({} if given else smaller)), **given)
    assert len(names["batches"]) > 0
    assert AutoModelForCausalLM.from_pretrained("student").config.num_hidden_layers == 3


def cuts_layer_by_layer(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run(text, batches=[torch.arange(128).view(2, 64)])
    assert architecture_of(names["model"].config) == names["shape"]


def distils(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On short sequences, for two steps; the corpus is cut to its first documents."""
    less = {
        "Packing(block=1024)": "Packing(64)",
        'read_documents("my-text.jsonl.gz")': 'list(read_documents("my-text.jsonl.gz"))[:80]',
        "20_000_000": "1_024",
    }
    names = run(with_others(text, less))
    assert names["run"].step == names["run"].total_steps == 2
    assert AutoModelForCausalLM.from_pretrained("student").config.num_hidden_layers == 6


def loads_the_best(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a demo that ended; here with the teacher in its student's place."""
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo/best").symlink_to(TEACHER)
    assert run(text)["model"].config.model_type == "llama"


def describes_a_family(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert eval(text, vars(common)).model_type == "mymodel"


SNIPPETS: list[tuple[str, str, Callable[[str, pytest.MonkeyPatch], None]]] = [
    ("README.md", "run_search(", searches),
    ("own_model.md", "run_search(", searches),
    ("own_model.md", "prune(", prunes),
    ("tutorial.md", "from_pretrained(", loads_the_best),
    ("distillation.md", "Distillation(", distils),
    ("pruning.md", "Architecture(layers=", prunes),
    ("pruning.md", "load_student(", cuts_layer_by_layer),
    ("pruning.md", "llama_like(", describes_a_family),
]


@pytest.mark.parametrize(
    ("path", "text"), [(path, text) for path, language, text in blocks() if language == "python"]
)
def test_documented_snippets_run(
    path: Path, text: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs,) = (runs for name, call, runs in SNIPPETS if name == path.name and call in text)
    runs(text, monkeypatch)
