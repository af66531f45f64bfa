"""What stands beside a student's weights: whose files, byte for byte, for whom to read."""

import json
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors import safe_open
from transformers import AutoTokenizer

from common.files import write_directory_atomically
from distill.train.export import gathered_weights, write_model
from pruning import Ordering
from tests.byte_llama import byte_tokenizer
from tests.pruning.models import build_teacher, random_ordering
from workspace.models.model_source import ModelSource
from workspace.models.student_folder import finish_folder, place_student

FILES = {
    "fast, of the plain class": {
        "tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "a"}',
        "special_tokens_map.json": '{"eos_token": "a"}',
    },
    "sentencepiece": {"tokenizer.model": "pieces", "added_tokens.json": '{"<x>": 257}'},
    "vocabulary and merges": {"vocab.json": '{"a": 0}', "merges.txt": "#version: 0.2\na b"},
    "tiktoken": {"cl.tiktoken": "YQ== 0", "tokenizer_config.json": "{}"},
    "templates": {
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/tools.jinja": "{{ tools }}",
    },
}


@pytest.fixture(scope="module")
def model() -> Any:
    return build_teacher("llama-gqa-tied")


@pytest.fixture
def teacher(model: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    model.save_pretrained(folder)
    byte_tokenizer(end=None).save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"temperature":   0.6, "do_sample": true}')
    return folder


@pytest.fixture
def trained(model: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    write_model(model, gathered_weights(model, model.dtype), folder)
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize("kind", FILES)
def test_tokenizer_files_are_the_teachers_byte_for_byte(
    kind: str, teacher: Path, trained: Path, tmp_path: Path
) -> None:
    write(teacher, FILES[kind])
    place_student(trained, tmp_path / "student", parent=ModelSource(teacher))
    for name in ("tokenizer.json", "tokenizer_config.json", *FILES[kind]):
        assert (tmp_path / "student" / name).read_bytes() == (teacher / name).read_bytes(), name
    assert (tmp_path / "student" / "generation_config.json").read_bytes() == (
        teacher / "generation_config.json"
    ).read_bytes()


def test_of_a_teacher_on_the_hub_all_of_them_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, teacher: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **patterns: Any) -> str:
        asked.update(patterns)
        return str(teacher)

    monkeypatch.setattr("workspace.models.locating.snapshot_download", download)
    ModelSource.located("someone/model")
    wanted = {name for files in FILES.values() for name in files} | {
        *("config.json", "generation_config.json", "model-00001-of-00002.safetensors"),
        *("LICENSE", "NOTICE.txt", "USE_POLICY.md", "README.md"),
    }
    unwanted = {"pytorch_model.bin", "consolidated.00.safetensors", "original/params.json"}
    assert set(filter_repo_objects(wanted | unwanted, **asked)) == wanted


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md"])
def test_the_teachers_licence_goes_along(
    name: str, teacher: Path, trained: Path, tmp_path: Path
) -> None:
    (teacher / name).write_text("terms")
    (teacher / "README.md").write_text("the teacher's own card")
    place_student(trained, tmp_path / "student", parent=ModelSource(teacher))
    assert (tmp_path / "student" / name).read_text() == "terms"
    assert not (tmp_path / "student" / "README.md").exists()


def test_a_students_own_files_come_before_its_teachers(
    teacher: Path, trained: Path, tmp_path: Path
) -> None:
    write(teacher, {"tokenizer.model": "the teacher's", "LICENSE": "T", "NOTICE": "of the teacher"})
    student = tmp_path / "own"
    place_student(trained, student, parent=ModelSource(teacher))
    (student / "tokenizer.model").unlink()
    write(student, {"added_tokens.json": "{}", "generation_config.json": "{}", "LICENSE": "S"})
    config = json.loads((student / "config.json").read_text()) | {"my_own_key": 1}
    (student / "config.json").write_text(json.dumps(config))
    place_student(
        trained, tmp_path / "out", parent=ModelSource(student), teacher=ModelSource(teacher)
    )
    found = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert "tokenizer.model" not in found, "the tokenizer is one student's or the teacher's, whole"
    assert found["generation_config.json"].read_text() == found["added_tokens.json"].read_text()
    assert (found["LICENSE"].read_text(), found["NOTICE"].read_text()) == ("S", "of the teacher")
    assert json.loads(found["config.json"].read_text())["my_own_key"] == 1


def test_a_student_without_a_tokenizer_gets_its_teachers(
    model: Any, teacher: Path, trained: Path, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").write_text("a template is no tokenizer")
    place_student(
        trained,
        tmp_path / "out",
        parent=ModelSource(tmp_path / "bare"),
        teacher=ModelSource(teacher),
    )
    written = (tmp_path / "out" / "tokenizer.json").read_bytes()
    assert written == (teacher / "tokenizer.json").read_bytes()


def test_where_nothing_can_be_copied_the_tokenizer_is_saved(
    model: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "bare")
    monkeypatch.setattr(ModelSource, "tokenizer", byte_tokenizer(end=None))
    place_student(trained, tmp_path / "out", parent=ModelSource(tmp_path / "bare"))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ab").input_ids


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_modes_are_those_that_the_umask_asks_for(
    umask: int, model: Any, teacher: Path, trained: Path, tmp_path: Path
) -> None:
    (teacher / "tokenizer.json").chmod(0o600)
    (teacher / "generation_config.json").chmod(0o755)
    write_directory_atomically(
        tmp_path / "student", partial(place_student, trained, parent=ModelSource(teacher))
    )
    write_directory_atomically(  # as full runs are written: safetensors makes files of mode 600
        tmp_path / "model",
        lambda aside: write_model(model, gathered_weights(model, model.dtype), aside),
    )
    ordering: Ordering = random_ordering(model.config)
    (tmp_path / "small").mkdir()
    ordering.save(tmp_path / "small" / "ordering.safetensors")
    for folder in ("student", "model", "small"):
        files = list((tmp_path / folder).iterdir())
        assert files
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file


def test_weights_say_that_they_are_torchs(trained: Path, model: Any, tmp_path: Path) -> None:
    random_ordering(model.config).save(tmp_path / "ordering.safetensors")
    for file in (trained / "model.safetensors", tmp_path / "ordering.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata()["format"] == "pt"


def test_a_folder_can_be_finished_again(teacher: Path, trained: Path, tmp_path: Path) -> None:
    place_student(trained, tmp_path / "student", parent=ModelSource(teacher))
    before = {file.name: file.read_bytes() for file in (tmp_path / "student").iterdir()}
    finish_folder(tmp_path / "student", ModelSource(teacher))
    assert {file.name: file.read_bytes() for file in (tmp_path / "student").iterdir()} == before
