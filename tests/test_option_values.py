"""Every option of the commands with values that nobody should give: exit status 0 or 2, one line.

The commands run in this process, on tiny models, as far as what they are given is read and checked;
what would come then is left out (`REACHED`). Sampling and training with the largest values that are
accepted are tried in tests/search and tests/distill.
"""

import contextlib
import io
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import optuna
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import experiments.distill.session
import experiments.prune.session
import search.inputs.members
import search.run.opening
import search.run.outset
import search.run.session
from common.errors import SearchStopped
from experiments import run_distill, run_prune, run_search
from experiments.command import option_types
from experiments.distill.config import DistillConfig
from experiments.prune.config import PruneConfig
from search.config.study import SearchConfig
from search.database.storage import open_storage
from search.space.latency import TIMES, LatencyTable
from tests.byte_llama import write_byte_llama
from workspace.models.model_source import ModelSource

EXAMPLES, PAIRS = 2, 8
"""Of every option: the simplest, which is nan or empty, and one more; and of two at a time."""
REACHED = "the work would start here"

NUMBERS = (
    *(".nan", "nan", ".inf", "-.inf", "inf", "1e308", "-1e308", "1e400", "5e-324", "1e-300"),
    *("-1", "-0", "0", "1", "2", "3", "1.0", "0.5", "0.999999999", "1e3", "1_000", "1,000", "0x10"),
    *(str(2**power - less) for power in (31, 32, 53, 63, 64) for less in (0, 1)),
    *(str(10**30), str(-(2**63)), str(10**400), str(-(10**400)), "1" + "0" * 5000),
    *("1k", "50%", "8GB", "٣", "½", "1e", "1 2", "1:30"),
)
WORDS = """
None null true [] {} [[]] --x -x !!python/object:os.system ' @ # : *a | = a=b , ** [a- %s ${HOME}
~nobody/x ~no-such-user/x a.b:c os:system a/b/c .. kl task: task:x cpu cuda:99 meta 2024-02-30
127.0.0.1:99999999 a..b:1 sqlite:// sqlite:////dev/null/x postgresql://u@127.0.0.1:1/x nosuch://x
"""
TEXTS = (
    *("", " ", "  x ", "a\nb", "a\tb", "\r", "\x1b[31m", "\0", "a\0b", "\udcff", "\u202e"),
    *("{a: 1}", "[nan, 1]", "a: b", "- a", "x" * 300, "x" * 5000, "9" * 5000, "é", "日本語", "🙂"),
    *WORDS.split(),
)
PATHS = "../bytes ../empty ../corpus.txt/below ../nothing ../teacher /dev/null /proc/x"


@dataclass(frozen=True)
class Command:
    """A command with options that are good, small and enough."""

    main: Callable[[list[str]], int]
    kind: type
    given: dict[str, str]

    @property
    def types(self) -> dict[str, Any]:
        """Without --explain, which goes with no other option."""
        found = option_types(self.kind)
        return {option: hint for option, hint in found.items() if option != "--explain"}


TINY = {"--corpus": "corpus.txt", "--teacher": "teacher", "--block": "16", "--device": "cpu"}
COMMANDS = {
    "run_search": Command(
        run_search.main,
        SearchConfig,
        TINY
        | {
            "--workspace": "w",
            "--short_tokens": "64",
            "--full_tokens": "128",
            "--calibration": "4",
            "--training.batch": "1",
        },
    ),
    "run_distill": Command(
        run_distill.main,
        DistillConfig,
        TINY | {"--student": "student", "--output": "w", "--tokens": "128"},
    ),
    "run_prune": Command(
        run_prune.main, PruneConfig, TINY | {"--output": "w", "--ffn": "32", "--calibration": "4"}
    ),
}
"""Their paths are inside `place`."""


class InMemory(optuna.storages.InMemoryStorage):
    """In place of the database of a workspace."""

    shared = False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a text and what else a path may lead to."""
    place = tmp_path_factory.mktemp("options")
    write_byte_llama(place / "teacher", layers=2)
    write_byte_llama(place / "student", layers=1)
    text = "\n\n".join(f"Paragraph {n} says {n * n} and then {n % 7}." for n in range(200))
    (place / "corpus.txt").write_text(text)
    (place / "bytes").write_bytes(bytes(range(256)))
    (place / "empty").mkdir()
    (place / "home").mkdir()
    return place


@pytest.fixture(scope="module", autouse=True)
def nothing_begins(place: Path) -> Iterator[None]:
    """A command that is accepted ends, with status 1, where its work would begin."""

    def stop(*_: Any, **__: Any) -> Any:
        raise SearchStopped(REACHED)

    def measure(_: Any, shapes: Any, *, setting: Any) -> LatencyTable:
        times = tuple(float(number) for number, _ in enumerate(shapes, 1))
        return LatencyTable(tuple(shapes), dict.fromkeys(TIMES, times), setting)

    opened = open_storage

    def in_memory(url: str, *given: Any, **named: Any) -> Any:
        """The database of the workspace takes longer to make than all else."""
        default = url.startswith("sqlite:") and url.endswith("/w/study.db")
        return InMemory() if default else opened(url, *given, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search.run.session, "ray_cluster", stop)
        patched.setattr(search.run.outset, "_checked", lambda _: None)  # it reads with the teacher
        patched.setattr(experiments.distill.session._Session, "run", stop)
        patched.setattr(experiments.prune.session.PlannedCut, "_model", stop)
        patched.setattr(search.inputs.members, "measure", measure)
        patched.setattr(ModelSource, "check", lambda _: None)
        patched.setattr(ModelSource, "load", lambda *_, **__: None)  # the same models every time
        patched.setattr(search.run.opening, "open_storage", in_memory)
        patched.setenv("HOME", str(place / "home"))
        patched.delenv("ESPALIER_STORAGE", raising=False)
        yield


OF_THE_TEXT = ("--splits.", "--corpus_from.", "--assistant_only")
"""Begin the options that are settled while the text is packed into the workspace."""


def may_stay(option: str, left: list[str]) -> bool:
    """Whether a refusal of this option may leave these files: what took a minute to measure, or a
    workspace whose database does not open or whose text is too small."""
    if option == "--storage" or option.startswith(OF_THE_TEXT):
        return left == [".lock", "w"]
    return len(left) == 2 and left[0].startswith("latency-")


def ended(command: Command, options: dict[str, list[str]], place: Path) -> tuple[int, str, str]:
    """Exit status, output and errors of the command where these options replace its good ones.

    It runs in a folder of its own, which must be empty again after a refusal.
    """
    folder = place / "here"
    folder.mkdir()
    names = {"--corpus", "--teacher", "--student"}
    arguments = [
        f"{name}={place / value if name in names else value}"
        for name, value in command.given.items()
        if name not in options
    ]
    for name, values in options.items():
        arguments += [f"{name}={values[0]}"] if len(values) == 1 else [name, *values]
    # as strict and as lenient as those of a process
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("error", UserWarning)
            try:
                status = command.main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        left = sorted(path.name for path in folder.rglob("*"))
    finally:
        shutil.rmtree(folder)
        os.environ.pop("ESPALIER_STORAGE", None)
    said, refused = (stream.buffer.getvalue().decode() for stream in (out, err))
    if status == 2:
        stays = left == [] or any(may_stay(name, left) for name in options)
        assert stays, (options, said, refused, left)
    return status, said, refused


def check(command: Command, options: dict[str, list[str]], place: Path) -> None:
    """Accepted without a word, or refused in one line that names what is wrong."""
    status, out, err = ended(command, options, place)
    assert "Traceback" not in out + err
    if status != 2:
        assert (status, err) in ((0, ""), (1, f"stopped: {REACHED}\n")), (options, status, err)
        return
    assert err.startswith("error: ") and err.endswith("\n"), (options, err)
    assert err[:-1].isprintable() and len(err) < 2300, (options, err)
    parts = {part for name in options for part in name.removeprefix("--").split(".")}
    parts |= {"split"} if "splits" in parts else set()
    parts |= {value for values in options.values() for value in values if value.startswith("--")}
    assert any(part in err for part in parts), (options, err)


def written(hint: Any) -> st.SearchStrategy[list[str]]:
    """Arguments after an option of this type: most of the kind that it takes."""
    numbers = st.sampled_from(NUMBERS) | st.integers().map(str) | st.floats().map(repr)
    texts = st.sampled_from(TEXTS) | st.text(max_size=12)
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    found: list[st.SearchStrategy[list[str]]] = []
    for kind in [hint] if get_origin(hint) in (list, dict) else kinds:
        if get_origin(kind) is list:
            inside = written(get_args(kind)[0]).map(lambda values: values[0])
            found.append(st.lists(inside, min_size=1, max_size=4))
        elif get_origin(kind) is dict:
            found.append(numbers.map(lambda number: [f"{{ffn: {number}, heads: 1}}"]))
        elif kind is bool:
            found.append(st.sampled_from([["true"], ["false"], ["maybe"], [""], ["1"]]))
        elif kind in (int, float):
            found.append(numbers.map(lambda number: [number]))
        else:
            found.append((texts | st.sampled_from(PATHS.split())).map(lambda text: [text]))
    return st.one_of(*found, (numbers | texts).map(lambda value: [value]))


OPTIONS = [(name, option) for name, command in COMMANDS.items() for option in command.types]


def examples(number: int) -> settings:
    """So many, always the same, and none of an earlier run."""
    return settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda part: part)
def test_any_value_is_taken_or_refused(name: str, option: str, place: Path) -> None:
    command = COMMANDS[name]

    @seed(zlib.crc32(f"{name} {option}".encode()))  # else all options of a type get the same
    @examples(EXAMPLES)
    @given(written(command.types[option]))
    def with_values(values: list[str]) -> None:
        check(command, {option: values}, place)

    with_values()


@pytest.mark.parametrize("name", COMMANDS)
def test_any_two_values_are_taken_or_refused(name: str, place: Path) -> None:
    command = COMMANDS[name]

    @examples(PAIRS)
    @given(st.data())
    def with_two(data: st.DataObject) -> None:
        names = st.lists(st.sampled_from(sorted(command.types)), min_size=2, max_size=2)
        options = {name: data.draw(written(command.types[name])) for name in data.draw(names)}
        check(command, options, place)

    with_two()
