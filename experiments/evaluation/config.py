"""Configuration of run_evaluate.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass, field
from pathlib import Path

from common.bounds import NOT_NEGATIVE, ONE_OR_MORE, at_least, bounded, check_bounds, one_of
from common.errors import require
from common.values import check_values
from distill.data import CorpusFiles, CorpusFrom
from search.config import check_task_names, names_of_tasks
from workspace.settings import DEVICES, SHORTEST_BLOCK, TEACHER_PRECISIONS

TEST, ALL = "test", "all"
"""Parts of a corpus that models are measured on."""


@dataclass(frozen=True)
class SpeedConfig:
    """Timing of the models on this device."""

    seconds: float = bounded(10.0, NOT_NEGATIVE)
    """How long each model is timed; 0 does without."""
    batch: int = bounded(1, ONE_OR_MORE)
    """Sequences at once."""
    context: int | None = bounded(None, ONE_OR_MORE)
    """Tokens that are read, and that lie in the cache of a decoding step; by default 512, or the
    positions that all models have."""

    def __post_init__(self) -> None:
        check_bounds(self, "--speed.")


@dataclass(frozen=True)
class EvaluateConfig:
    """Models are all that must be given; what is measured of them follows from the rest."""

    models: list[str]
    """Causal LMs with their tokenizers, side by side: directories or Hub ids. The others are
    compared with the first."""
    reference: str | None = None
    """The model that the others are compared with; by default the first of --models."""
    tasks: str | list[str] | None = None
    """lm-eval's tasks by their names, such as hellaswag arc_easy, and folders of its task files
    (YAML; $data is a file of questions built from --corpus)."""
    task_questions: int | None = bounded(None, at_least(1))
    """Of each of lm-eval's own tasks the first so many questions, by default all; and how many are
    built for $data, by default 200."""
    corpus: str | list[str] | None = None
    """A text: .txt, .jsonl, .jsonl.gz (field "text") or .parquet file, a folder, or a Hub data
    set."""
    split: str = bounded(TEST, one_of((TEST, ALL)))
    """Which documents of it are read: test (those that a search or a distillation on it holds out
    for the test) or all (of a text that no model was trained on)."""
    tokens: int = bounded(32_768, ONE_OR_MORE)
    """Tokens of the text to read at most, as the reference counts them."""
    block: int | None = bounded(None, at_least(SHORTEST_BLOCK))
    """Tokens that a model reads at once, of the text and of a task; by default the positions that
    all models have, at most 1024 of the text."""
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    """Tokens per second of reading and of decoding."""
    output: Path = Path("runs/evaluation")
    """Directory of what is measured and of the tables; what it holds of these models is not
    measured again."""
    device: str = bounded("auto", one_of(DEVICES))
    """cpu, cuda, or auto."""
    precision: str = bounded("file", one_of(TEACHER_PRECISIONS))
    """What models are held and compute in: file (the type of their weights) or fp32."""
    seed: int = bounded(0, NOT_NEGATIVE)
    """Chooses the questions that are built for $data."""
    corpus_files: CorpusFiles = field(default_factory=CorpusFiles)
    """Which files of a folder are the text."""
    corpus_from: CorpusFrom = field(default_factory=CorpusFrom)
    """How the text is read, and how texts begin."""

    @property
    def names(self) -> list[str]:
        """All models, the one that others are compared with first."""
        first = self.reference or self.models[0]
        return [first, *(name for name in self.models if name != first)]

    @property
    def task_names(self) -> list[str]:
        """Folders and names of tasks."""
        return names_of_tasks(self.tasks)

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        require(bool(self.models), "--models is empty; give a model or several")
        for name in self.models:
            require(bool(name.strip()), "--models has an empty name; give a directory or a Hub id")
            require(self.models.count(name) == 1, f"--models has {name} twice; give it once")
        check_task_names(self.task_names)
        require(
            bool(self.task_names) or self.corpus is not None or self.speed.seconds > 0,
            "nothing is measured: give --tasks, --corpus, or --speed.seconds above 0",
        )
        require(
            self.corpus_from.tokens is None and self.corpus_from.weights is None,
            "--corpus_from.tokens and .weights are of texts that are learnt from; give --tokens",
        )
        require(self.output != Path(), "--output is empty; give a directory")
