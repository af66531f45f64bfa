"""A multimodal teacher: its text model is used and said, or it is refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import PruningError, SearchError
from pruning import Checkpoint
from tests.multimodal import write_multimodal
from workspace.layout import Workspace
from workspace.models import ModelSource

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_multimodal(tmp_path / "whole", "gemma3")


def test_the_text_model_is_written_once_and_then_found(
    folder: Path, tmp_path: Path, lines: list[str]
) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    workspace = Workspace(tmp_path / "work")
    teacher = ModelSource.open(str(folder))
    assert teacher.config.model_type == "gemma3_text" and teacher.known
    assert not workspace.root.exists()  # nothing is written before all else is checked
    placed = teacher.placed(workspace)
    placed.check()
    model = placed.load(torch.device("cpu"))
    assert model.num_parameters() == placed.parameters == teacher.parameters
    assert placed.tokenizer_fingerprint() == teacher.tokenizer_fingerprint()
    assert (placed.directory / "README.md").exists()
    assert not (placed.directory / "preprocessor_config.json").exists()
    assert "text model (gemma3_text) of a multimodal gemma3 is used" in lines[0]
    assert lines[1].startswith("proof: with text alone Gemma3ForConditionalGeneration computes")
    written = (placed.directory / WEIGHTS).stat().st_mtime_ns
    again = ModelSource.open(str(folder)).placed(workspace)
    assert again.directory == placed.directory
    assert (again.directory / WEIGHTS).stat().st_mtime_ns == written
    assert lines[-1] == f"text model: found {placed.directory.name}"


def test_of_other_weights_it_is_another(folder: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    first = ModelSource.open(str(folder)).placed(workspace)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    tensors = load_file(folder / WEIGHTS)
    tensors["language_model.model.norm.weight"] += 1
    save_file(tensors, other / WEIGHTS, {"format": "pt"})
    second = ModelSource.open(str(other)).placed(workspace)
    assert first.directory != second.directory
    found = load_file(second.directory / WEIGHTS)["model.norm.weight"]
    assert torch.equal(found, tensors["language_model.model.norm.weight"])


def test_what_is_wrong_with_its_tensors_is_said_of_the_users_folder(
    folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["language_model.model.norm.weight"] *= torch.nan
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    placed = ModelSource.open(str(folder)).placed(Workspace(tmp_path / "work"))
    with pytest.raises(PruningError, match=f"norm.weight in {folder / WEIGHTS} has values that"):
        placed.check()


def test_its_configuration_says_what_it_is(tmp_path: Path) -> None:
    folder = write_multimodal(tmp_path / "whole", "qwen2_5_vl")
    placed = ModelSource.open(str(folder)).placed(Workspace(tmp_path / "work"))
    config = json.loads((placed.directory / "config.json").read_text())
    assert config["model_type"] == "qwen2" and config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 700.0}
    assert "text_config" not in config and "vision_config" not in config
    assert Checkpoint(placed.directory).config.vocab_size == 300


def config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def without_text_model(folder: Path) -> None:
    save_file({"x": torch.ones(1)}, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pickled, "has its weights as pickles"),
        (config(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantised; deq"),
        (config(architectures=["Gemma3Model"]), "text model cannot be used: .* no whole Gemma3For"),
        (without_text_model, "text model cannot be used: its files do not have the tensors"),
    ],
)
def test_bad_folders_are_refused_in_one_sentence(
    folder: Path, change: Callable[[Path], None], said: str
) -> None:
    change(folder)
    with pytest.raises((SearchError, PruningError), match=said) as refusal:
        ModelSource.open(str(folder))
    assert "\n" not in str(refusal.value)


def test_a_multimodal_student_is_refused(folder: Path) -> None:
    with pytest.raises(SearchError, match="student .* is a multimodal model; give a text model"):
        ModelSource.located(str(folder), role="student")
