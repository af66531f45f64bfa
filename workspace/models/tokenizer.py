"""Tokenizer beside a model's weights."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import SearchError, reason_of

PACKAGES = ("sentencepiece", "tiktoken", "protobuf")
"""What transformers needs for tokenizers that are not in the form of a tokenizer.json."""
VOCABULARIES = (
    "tokenizer.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
)
"""Files with the tokens of a tokenizer. Without any, transformers 5 builds one of some types that
knows no token of text, and says nothing."""


def open_tokenizer(directory: Path, patterns: tuple[str, ...]) -> PreTrainedTokenizerBase:
    """The tokenizer in `directory`, whose files have names of these `patterns`.

    Raises SearchError, with the library's reason and the package that is missing, where there is
    none that can be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False
        )
    except Exception as problem:  # tokenizers raises plain Exception for a broken file
        files = {path.name for pattern in patterns for path in directory.glob(pattern)}
        raise SearchError(_fault(directory, files=files, problem=problem)) from problem
    found = any(path for pattern in VOCABULARIES for path in directory.glob(pattern))
    if tokenizer.vocab_files_names and not found:
        raise SearchError(_no_tokenizer(directory))
    return tokenizer


def _no_tokenizer(directory: Path) -> str:
    return (
        f"{directory} has no tokenizer; save the teacher's beside its weights, with "
        "tokenizer.save_pretrained"
    )


def _fault(directory: Path, *, files: set[str], problem: Exception) -> str:
    if not files:
        return _no_tokenizer(directory)
    fault = f"the tokenizer of {directory} cannot be loaded: {reason_of(problem)}"
    said = str(problem).lower()
    wanted = {name for name in PACKAGES if name in said}
    if "tokenizer.model" in files:
        wanted |= {"sentencepiece", "protobuf"}
    absent = [name for name in PACKAGES if name in wanted and not _installed(name)]
    if absent and "tokenizer.json" not in files:
        return f"{fault}; pip install {' '.join(absent)}"
    return f"{fault}; save it again, with tokenizer.save_pretrained"


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
