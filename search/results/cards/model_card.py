"""The model card of any student: its origin, how to load it, its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import validate_repo_id

from common.files import write_file_atomically
from pruning.exports import DECILM_TYPE
from pruning.families import raw_config
from search.results.rendering import TEMPLATES
from workspace.models import CARD

TAG = "espalier"
UNKNOWN = "unknown"
"""What the Hub calls a licence that nobody named."""
TERMS = ("license", "license_name", "license_link", "language")
"""Keys of a model's card that hold for a student of it too."""
METRICS = {
    "kl": ("kl_divergence", "KL to the teacher (nats per token)"),
    "ce": ("cross_entropy", "cross-entropy (nats per token)"),
    "perplexity": ("perplexity", "perplexity"),
    "bits_per_byte": ("bits_per_byte", "bits per byte of text"),
    "top1_agreement": ("accuracy", "top-1 agreement with the teacher"),
}
"""Our name of a figure -> (type, name) in a model index."""


TASKS = {"pictures": "image-text-to-text", "sound": "audio-text-to-text"}
"""Kind of a multimodal checkpoint -> what the Hub calls its use."""


@dataclass(frozen=True)
class Origin:
    """Models and texts that a student was made of, without paths of this machine."""

    teacher: str
    """Hub id, or the folder's own name."""
    base_model: str | None
    """Hub id."""
    terms: Mapping[str, Any]
    """Licence and language, where they are known."""
    corpus: str
    """Hub ids of data sets and the files' own names."""
    datasets: tuple[str, ...]
    """Hub ids."""

    @classmethod
    def of(cls, models: Mapping[str, Path], corpus: str | list[str]) -> "Origin":
        """`models` are those that a student was made of: how the user named it -> its folder.

        The first is what it was cut from, the last is the teacher.
        """
        cards = [_front_matter(folder) for folder in models.values()]
        base: str | None = None
        terms: dict[str, Any] = {}
        for name, card in zip(models, cards, strict=True):
            base = base or hub_id(name) or _inherited(card)
            if not terms.get("license"):
                terms = {key: card[key] for key in TERMS if card.get(key) not in (None, UNKNOWN)}
        sources = [corpus] if isinstance(corpus, str) else corpus
        shown = ", ".join(map(shown_name, sources))
        data_sets = tuple(name for name in map(hub_id, sources) if name)
        return cls(shown_name(list(models)[-1]), base, terms, shown, data_sets)


@dataclass(frozen=True)
class Card:
    """A command's account of a student that it made."""

    title: str
    """First heading, and the model's name in the model index."""
    text: str
    """Markdown."""
    tags: tuple[str, ...]
    """Beside the one of the project."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of this checkpoint on held-out text, by the names in `METRICS`."""
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics of lm-eval, by task."""
    use: str = ""
    """What somebody who wants to use it must know first."""


def write_model_card(directory: Path, card: Card, *, origin: Origin) -> None:
    """Write README.md beside the weights."""
    kind = _kind(directory)
    text = ModelCard.from_template(
        _data(card, origin, kind=kind),
        template_path=str(TEMPLATES / "model_card.md.jinja"),
        title=card.title,
        text=card.text.strip(),
        kind=kind,
        card=card,
        origin=origin,
    )
    write_file_atomically(directory / CARD, str(text))


def _kind(directory: Path) -> str:
    """How the checkpoint in `directory` is loaded: as a stock one, as one of pictures or sound too,
    per-layer or as a DeciLM."""
    config = raw_config(directory)
    for kind, inside in (("pictures", "vision_config"), ("sound", "audio_config")):
        if config.get(inside):
            return kind
    if "block_configs" not in config:
        return "stock"
    return "decilm" if config["model_type"] == DECILM_TYPE else "per-layer"


def hub_id(name: str) -> str | None:
    """`name` where it can only be a model or data set on the Hub."""
    if Path(name).expanduser().exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def shown_name(name: str) -> str:
    """A Hub id as it is, a path by its last part."""
    return hub_id(name) or Path(name).expanduser().resolve().name


def _data(card: Card, origin: Origin, *, kind: str) -> ModelCardData:
    """The front matter of a model of that `kind`."""
    known: dict[str, Any] = {"license": UNKNOWN, **origin.terms}
    if origin.base_model:
        known |= {"base_model": origin.base_model, "base_model_relation": "finetune"}
    if origin.datasets:
        known["datasets"] = list(origin.datasets)
    if card.figures or card.tasks:
        known |= {"model_name": card.title, "eval_results": _results(card, origin)}
    return ModelCardData(
        library_name="espalier" if kind == "per-layer" else "transformers",
        pipeline_tag=TASKS.get(kind, "text-generation"),
        tags=[TAG, *card.tags],
        **known,
    )


def _results(card: Card, origin: Origin) -> list[EvalResult]:
    """Figures on held-out text, and metrics of tasks."""
    held_out = [
        EvalResult(
            task_type="text-generation",
            dataset_type=next(iter(origin.datasets), "text"),
            dataset_name=f"held-out part of {origin.corpus}",
            dataset_split="test",
            metric_type=METRICS[name][0],
            metric_name=METRICS[name][1],
            metric_value=round(value, 4),
        )
        for name, value in card.figures.items()
    ]
    return held_out + [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=f"{task} (lm-eval)",
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for task, metrics in card.tasks.items()
        for metric, value in metrics.items()
    ]


def _front_matter(folder: Path) -> dict[str, Any]:
    """Front matter of the card in `folder`; {} where there is none to read."""
    try:
        return metadata_load(folder / CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _inherited(card: Mapping[str, Any]) -> str | None:
    """The model on the Hub that a student was made of, from its card."""
    base = card.get("base_model") if TAG in (card.get("tags") or []) else None
    return base if isinstance(base, str) else None
