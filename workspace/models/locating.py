"""Folder of a model that the user names by a path or a Hub id; refusals of what is no model."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from common.errors import SearchError, reason_of
from common.given_paths import is_path, no_model

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def located(name: str, *, role: str, patterns: tuple[str, ...]) -> Path:
    """The folder of the model called `name`; of a Hub id, its files of these `patterns`.

    `role` is the option that names it. Raises SearchError where there is none, or one that is to be
    converted first.
    """
    if not name:
        raise SearchError(f"--{role} is empty; give a model's folder or Hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        require_model(path, f"the {role} {name}")
        return path
    if is_path(name) or path.exists():
        raise no_model(name, role)
    patterns = (*patterns, "adapter_config.json")
    directory = _downloaded(name, shown=f"the {role} {name}", patterns=patterns)
    require_model(directory, f"the {role} {name}")
    return directory


def described(name: str, *, role: str) -> Path:
    """The folder of the model called `name`, which need hold no more than its config.json; of a Hub
    id, what was downloaded before. Nothing is downloaded. Raises SearchError where there is none.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "config.json").exists():
            raise SearchError(_without_config(path, f"the {role} {name}"))
        return path
    try:
        known = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        known = None
    if not isinstance(known, str):
        raise SearchError(
            f"the {role} {name} is neither a folder nor a model that was downloaded before, and a "
            "plan downloads nothing; give a folder with its config.json"
        )
    return Path(known).parent


def has_weights(directory: Path) -> bool:
    """Whether the folder has weights that can be loaded."""
    return _any(directory, ("*.safetensors",))


def require_model(directory: Path, named: str) -> None:
    """Raises SearchError, with what to do, for a folder without a whole Hugging Face model."""
    if (directory / "adapter_config.json").exists() and not _any(
        directory, ("model*.safetensors",)
    ):
        raise SearchError(
            f"{named} is an adapter, not a model; merge it into its base model first, with peft's "
            "AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(...)"
        )
    config, weights = (directory / "config.json").exists(), _any(directory, ("*.safetensors",))
    if config and weights:
        return
    if _any(directory, ("*.gguf",)):
        raise SearchError(
            f"{named} is a GGUF file, whose weights are in the form of llama.cpp; give the model "
            "that it was made of, or convert it with AutoModelForCausalLM.from_pretrained(folder, "
            'gguf_file="...") and save_pretrained'
        )
    if config and _any(directory, PICKLES):
        raise SearchError(
            f"{named} has its weights as pickles, which may run code when they are opened, and no "
            "model.safetensors; convert a model that you trust with AutoModelForCausalLM."
            "from_pretrained and save_pretrained"
        )
    if _any(directory, ("*.onnx", "onnx/*.onnx")):
        raise SearchError(
            f"{named} is an ONNX export, which cannot be trained; give the model that it was made "
            "of"
        )
    if config and _any(directory, ("*.npz", "*.h5", "*.msgpack")):
        raise SearchError(
            f"{named} has no model.safetensors but weights of another framework; give the model in "
            "the form that transformers saves with save_pretrained"
        )
    if not config:
        raise SearchError(_without_config(directory, named))


def _without_config(directory: Path, named: str) -> str:
    below = sorted(path.parent.name for path in directory.glob("*/config.json"))
    if below:
        return f"{named} has no config.json, but its folder {below[-1]} has; give that one"
    return f"{named} has no config.json; give a folder that save_pretrained wrote"


def _any(directory: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(directory.glob(pattern), None) for pattern in patterns)


def _downloaded(name: str, *, shown: str, patterns: tuple[str, ...]) -> Path:
    ignored = ["consolidated*"]  # the same weights again, in another layout
    try:
        return Path(snapshot_download(name, allow_patterns=[*patterns], ignore_patterns=ignored))
    except Exception as problem:  # the hub client raises many unrelated types
        raise SearchError(f"{shown} {_hub_fault(problem)}") from problem


def _hub_fault(problem: Exception) -> str:
    """Why a model cannot be downloaded, and what to do."""
    if isinstance(problem, GatedRepoError):
        return (
            "is gated on the Hugging Face Hub; accept its terms on its page there, then log in "
            "with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(problem, RepositoryNotFoundError | HFValidationError):
        return (
            "is neither a folder nor a model of the Hugging Face Hub; mind the spelling, and for a "
            "private one log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(problem, RevisionNotFoundError):
        return f"has no such revision on the Hugging Face Hub ({reason_of(problem)})"
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    if isinstance(problem, OfflineModeIsEnabled | LocalEntryNotFoundError) and offline:
        return (
            "is neither a folder nor a model that was downloaded before, and HF_HUB_OFFLINE is "
            "set; unset it, or give a folder"
        )
    if isinstance(problem, LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return (
            "is neither a folder nor a model that was downloaded before, and the Hugging Face Hub "
            "cannot be reached; try again with a connection, or give a folder"
        )
    if isinstance(problem, HfHubHTTPError):
        return f"cannot be downloaded from the Hugging Face Hub ({reason_of(problem)}); try again"
    return f"cannot be downloaded from the Hugging Face Hub: {reason_of(problem)}"
