"""Shared parts of the commands: options from a configuration class, one sentence for a fault."""

import contextlib
import errno
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from itertools import pairwise
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, set_parsing_settings

from common.given_paths import Names, check_there
from common.log import timed_lines
from common.progress import tell
from experiments.option_files import CONFIG, check_mapping
from experiments.option_names import OptionNames, WrongOption

LOGGER = logging.getLogger(__name__)
# Libraries read these when they are imported; their lines and bars would stand between ours.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "critical",
}
for name, value in QUIET.items():
    os.environ.setdefault(name, value)

SWITCHES = (
    "An option that is true or false needs no value: --NAME is true, --no_NAME is false. Dashes "
    "may stand for underscores."
)
MOST_LETTERS = 2000
"""Of a message; what is longer quotes a value that nobody reads."""
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
WRONG_TYPE = re.compile(r"""Parser key "(.+?)":;? Expected an? <class '(.+?)'>\. Got value: (.*)""")

WRONG_OPTIONAL = re.compile(
    r"""Parser key "(.+?)":;? Does not validate against any of the Union subtypes;? """
    r"""Subtypes: \[<class '(\w+)'>, <class 'NoneType'>\].*Given value: (.*)"""
)

SHOWN = ("-h", "--help", "--print_config")
"""Options that have the sentences of all others shown."""
NO_VALUE = re.compile(r"argument (--[\w.]+)\S*: expected one argument")
OF_KEY = re.compile(r"--([\w.]+) is NestedArg\(key='(.*?)', val='(.*)'\)")
WRONG_UNION = re.compile(
    r"""Parser key "(.+?)":;? Does not validate against any of the Union subtypes;.*"""
    r"""Given value: (.*)"""
)


@contextlib.contextmanager
def work_shown(shown: bool = True, *, corpus: Names = None, **models: Names) -> Iterator[None]:
    """Lines of a command's work from the imports on, which take seconds themselves; not `shown`
    where what is asked for is printed alone.

    Raises SearchError or DistillError first, where work shall begin with a `corpus` or with
    `models`, each by its option, of a path where nothing is.
    """
    if not shown:
        yield
        return
    check_there(corpus, models)
    with timed_lines():
        tell(LOGGER, work="loading PyTorch and what stands on it")
        yield


def exit_status(work: Callable[[], None], hint: Callable[[], str]) -> int:
    """Do the `work` of a command and return its exit status.

    0 done; 2 for what the user gave, in one sentence; 1 for what keeps failing and for a failing
    disk; 130 Ctrl-C and 143 SIGTERM. `hint` says what to do after something that came from outside.
    """
    from safetensors import SafetensorError

    from common.errors import EspalierError, EspalierStopped

    try:
        work()
    except EspalierError as problem:
        print(f"error: {one_line(problem)}", file=sys.stderr)
        return 2
    except EspalierStopped as problem:
        print(f"stopped: {one_line(problem)}", file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as problem:
        if not _of_the_disk(problem):
            raise
        print(f"stopped: {one_line(problem)}; {hint()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        print(f"interrupted: {hint()}", file=sys.stderr)
        return 128 + getattr(interruption, "signum", signal.SIGINT)
    return 0


def _of_the_disk(problem: Exception) -> bool:
    """Whether the disk is to blame; numpy and safetensors do not say so by an errno."""
    if isinstance(problem, OSError) and problem.errno is not None:
        return problem.errno in DISK_FAULTS
    return "requested and" in str(problem) or "os error 28" in str(problem)


class Parser(ArgumentParser):
    """One clear sentence for a wrong option, instead of the usage and a stack of reasons."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the command with the message as one line; the exception behind it says no more."""
        lines = [line.strip().removeprefix("- ") for line in message.splitlines() if line.strip()]
        text = "; ".join(lines).replace(":; ", ": ")
        for pattern in (WRONG_TYPE, WRONG_OPTIONAL):
            text = pattern.sub(r"--\1 is \3; it must be of type \2", text)
        text = WRONG_UNION.sub(r"--\1 is \2; it is of another type", text)
        text = OF_KEY.sub(r"--\1.\2 is \3", text)
        text = NO_VALUE.sub(r"\1 needs a value", text)
        refuse(text)


def refuse(text: str) -> NoReturn:
    """End the command for an option that cannot be read."""
    print(f"error: {one_line(text)} (see --help)", file=sys.stderr)
    raise SystemExit(2)


def one_line(text: object) -> str:
    """A message as one line that a terminal shows as it is, however odd the values in it are."""
    line = " ".join(str(text).splitlines()).strip()
    if len(line) > MOST_LETTERS:
        line = f"{line[: MOST_LETTERS // 2]} ... {line[-MOST_LETTERS // 2 :]}"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in line
    )


def option_types(kind: Any, prefix: str = "--") -> dict[str, Any]:
    """Every option of a configuration class and of those inside it -> its type."""
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        inner = option_types(hint, f"{prefix}{name}.") if is_dataclass(hint) else {}
        types |= inner or {prefix + name: hint}
    return types


def list_options(kind: Any) -> dict[str, bool]:
    """Options of a configuration class that take lists -> whether they take nothing else."""
    lists_only: dict[str, bool] = {}
    for option, hint in option_types(kind).items():
        kinds = [k for k in get_args(hint) or [hint] if k is not NoneType]
        kinds = [hint] if get_origin(hint) is list else kinds
        lists = [get_origin(each) is list for each in kinds]
        if any(lists):
            lists_only[option] = all(lists)
    return lists_only


def with_switches(arguments: Sequence[str], kind: Any) -> Iterator[str]:
    """Switches with their value: --dashboard alone is true, and --no_dashboard is false."""
    switches = {option for option, hint in option_types(kind).items() if hint is bool}
    denied = {f"--no_{option.removeprefix('--')}": option for option in switches}
    for argument, following in pairwise([*arguments, "--"]):
        if argument in denied:
            yield from (denied[argument], "false")
            continue
        yield argument
        if argument in switches and following.startswith("--"):
            yield "true"


def with_lists(arguments: Sequence[str], lists: Mapping[str, bool]) -> Iterator[str]:
    """Values after an option that takes a list, as in --family 0.75 0.5 or 0.75,0.5, as one."""
    option, values = "", list[str]()
    for argument in [*_apart(arguments, lists), "--"]:
        if option in lists and not argument.startswith("--"):
            values.append(argument)
            continue
        alone = len(values) == 1 and (not lists[option] or values[0].startswith("["))
        parts = [part for value in values for part in value.split(",")]
        yield from values if alone or not values else [f"[{', '.join(map(_quoted, parts))}]"]
        values, option = [], argument
        if argument != "--":
            yield argument


def _apart(arguments: Sequence[str], lists: Mapping[str, bool]) -> Iterator[str]:
    """The same with the values of --family=0.75 as an argument of their own."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        yield from (name, value) if equals and lists.get(name) else (argument,)


def _quoted(value: str) -> str:
    """A number as it is, anything else as a string."""
    try:
        float(value)
        return value
    except ValueError:
        return json.dumps(value)


def checked(arguments: Sequence[str], names: OptionNames) -> Iterator[str]:
    """The arguments with the full names of their options.

    Raises WrongOption for a name that there is not and a value that nothing can be read from.
    """
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and argument != "--":
            option = names.full(name)
            yield f"{option}{equals}{value}"
            if not equals:
                continue
        else:
            value = argument
            yield argument
        names.check_value(option, value)
        if option == CONFIG or option in names.groups:
            check_mapping(option, value, names=names)


@cache
def parser_of(kind: Any, description: str | None, *, sentences: bool) -> Parser:
    """The parser of a configuration class.

    Its `sentences`, which only the help shows, are read from the source files, and take most of the
    time.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=sentences)
    parser = Parser(description=description, epilog=SWITCHES, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(kind)
    return parser


def parse(kind: Any, arguments: list[str] | None, *, description: str | None = None) -> Any:
    """A `kind` from the command line and, with --config, a YAML file.

    Raises what the class raises for values that cannot be.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        written = list(checked(given, OptionNames(option_types(kind))))
    except WrongOption as problem:
        refuse(str(problem))
    joined = list(with_lists(list(with_switches(written, kind)), list_options(kind)))
    asked = any(name.partition("=")[0] in SHOWN for name in joined)
    parser = parser_of(kind, description, sentences=asked)
    parsed = parser.parse_args(joined)
    values = vars(parser.instantiate(parsed))
    values.pop("config")
    return kind(**values)
