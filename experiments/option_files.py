"""Options in YAML, checked before they are read: given twice, unknown or misplaced."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from experiments.option_names import OptionNames, WrongOption

CONFIG = "--config"
MERGE = "tag:yaml.org,2002:merge"


def check_mapping(option: str, value: str, *, names: OptionNames) -> None:
    """Look at the value of --config or of a group of options: the name of a file, or YAML itself.

    Raises WrongOption for what holds something else than options, each once.
    """
    prefix = "--" if option == CONFIG else f"{option}."
    if _is_file(value):
        _check_file(Path(value).resolve(), prefix, names=names)
    elif ":" in value or value.strip() == "{}":
        _Mapping(option, prefix, names=names).check(value)
    elif option == CONFIG:
        raise WrongOption(f"{option} is {value!r}, which is no file; give a YAML file of options")
    else:
        raise WrongOption(
            f"{option} is {value!r}, but it is a group of options; give one of them, such as "
            f"{names.first_of(option)}"
        )


def _check_file(
    path: Path, prefix: str, *, names: OptionNames, inside: Sequence[Path] = ()
) -> None:
    """`inside` are the files that led to this one."""
    if path in inside:
        raise WrongOption(f"{CONFIG} is {path}, which names itself")
    try:
        text = path.read_text("utf-8")
    except OSError as problem:
        raise WrongOption(f"{CONFIG} {path} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise WrongOption(f"{CONFIG} {path} is no text in UTF-8") from problem
    for start, name in _Mapping(f"{CONFIG} {path}", prefix, names=names).check(text):
        if _is_file(path.parent / name):
            _check_file((path.parent / name).resolve(), start, names=names, inside=[*inside, path])


def _is_file(path: Path | str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # its name is too long for one
        return False


class _Mapping:
    """Options of one text."""

    def __init__(self, where: str, prefix: str, *, names: OptionNames):
        """`where` says in a sentence which text it is, and `prefix` what its options begin with."""
        self.where, self.prefix, self.names = where, prefix, names

    def check(self, text: str) -> list[tuple[str, str]]:
        """The files that it names, each with what its options begin with. Raises WrongOption."""
        try:
            root = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as problem:
            raise WrongOption(f"{self.where} is no YAML: {_reason(problem)}") from problem
        if not isinstance(root, yaml.MappingNode):
            raise WrongOption(f"{self.where} holds no options; write one a line, such as seed: 1")
        lines: dict[str, int] = {}
        files = []
        for option, key, value in self._options(root, self.prefix):
            if option in lines:
                raise WrongOption(
                    f"{self.where} has {option} twice, in lines {lines[option]} and {_line(key)}; "
                    "leave one out"
                )
            lines[option] = _line(key)
            self._check_value(option, value, around=[])
            if option == CONFIG and isinstance(value, yaml.ScalarNode):
                files.append(("--", value.value))
            elif option in self.names.groups:
                files.append((f"{option}.", value.value))
        return files

    def _options(
        self, mapping: yaml.MappingNode, prefix: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """(name, where it stands, value) of every option."""
        for key, value in mapping.value:
            if key.tag == MERGE:
                continue  # what it brings may be set anew
            if not isinstance(key, yaml.ScalarNode):
                raise WrongOption(f"{self.where} has no name before the colon in line {_line(key)}")
            option = prefix + key.value
            try:
                whole = self.names.full(option)
            except WrongOption as problem:
                raise WrongOption(f"{self.where}, line {_line(key)}: {problem}") from problem
            if option != whole:
                raise WrongOption(
                    f"{self.where}, line {_line(key)}: there is no option {option}; did you mean "
                    f"{whole}?"
                )
            if option in self.names.groups and isinstance(value, yaml.MappingNode):
                yield from self._options(value, option + ".")
                continue
            if option in self.names.groups and not _may_be_a_file(value):
                first = self.names.first_of(option).removeprefix(option + ".")
                raise WrongOption(
                    f"{self.where} has {option} in line {_line(key)}, a group of options; indent "
                    f"them below it, such as {first}: ..."
                )
            yield option, key, value

    def _check_value(self, option: str, value: yaml.Node, *, around: list[yaml.Node]) -> None:
        if value in around:
            raise WrongOption(f"{self.where} has {option} inside itself in line {_line(value)}")
        if isinstance(value, yaml.ScalarNode):
            if not value.tag.endswith(":null"):
                self.names.check_value(option, value.value)
            return
        parts = value.value
        if isinstance(value, yaml.MappingNode):
            parts = [part for pair in value.value for part in pair]
            keys = [key.value for key, _ in value.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise WrongOption(f"{self.where} has a key of {option} twice; leave one out")
        for part in parts:
            self._check_value(option, part, around=[*around, value])


def _may_be_a_file(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":str") and bool(node.value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _reason(problem: yaml.YAMLError) -> str:
    """What is wrong, and in which line."""
    text = getattr(problem, "problem", None) or str(problem).splitlines()[0]
    mark = getattr(problem, "problem_mark", None)
    return text if mark is None else f"{text} in line {mark.line + 1}"
