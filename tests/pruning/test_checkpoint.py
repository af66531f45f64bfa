"""Reading checkpoints as they are found on disk, whole or broken."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig

from pruning import Checkpoint, PruningError, cut_student, write_sorted_teacher
from tests.exactness import EXACT
from tests.pruning.models import (
    build_teacher,
    difference,
    logits,
    random_ordering,
    smaller_than,
)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    build_teacher("llama-gqa-tied").save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["llama-gqa-tied", "llama-gqa-biases", "mistral-mha"])
def test_shards_are_sorted_and_cut_like_one_file(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    ordering = random_ordering(model.config)
    architecture = smaller_than(model.config)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    students = []
    for name in ("one", "many"):
        teacher = Checkpoint(tmp_path / name)
        teacher.check()
        write_sorted_teacher(teacher, ordering, tmp_path / f"{name}-sorted")
        source = Checkpoint(tmp_path / f"{name}-sorted")
        source.check()
        loaded = AutoModelForCausalLM.from_pretrained(source.directory)
        assert difference(logits(loaded), logits(model)) <= EXACT
        students.append(cut_student(source, architecture, ordering.kept_layers(2)).state_dict())
    assert len(Checkpoint(tmp_path / "many").files()) > 2
    assert students[0].keys() == students[1].keys()
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_a_whole_checkpoint_passes(directory: Path) -> None:
    Checkpoint(directory).check()


def test_a_tied_head_and_derived_tensors_in_the_file_are_left_out(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, directory / WEIGHTS)
    teacher = Checkpoint(directory)
    teacher.check()
    write_sorted_teacher(teacher, random_ordering(teacher.config), directory / "sorted")
    names = set(load_file(directory / "sorted" / WEIGHTS))
    assert set(tensors) - names == {
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }


@pytest.mark.parametrize("fault", ["missing", "extra", "misshapen", "nan"])
def test_check_names_the_wrong_tensor(fault: str, directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    named = NAME
    if fault == "missing":
        del tensors[NAME]
    elif fault == "extra":
        named = "model.layers.1.mlp.router.weight"
        tensors[named] = torch.zeros(3)
    elif fault == "misshapen":
        tensors[NAME] = tensors[NAME][:-1].contiguous()
    else:
        tensors[NAME][3, 4] = float("nan")
    save_file(tensors, directory / WEIGHTS)
    with pytest.raises(PruningError, match=named.replace(".", r"\.")):
        Checkpoint(directory).check()


def test_unsupported_model_type_is_named(tmp_path: Path) -> None:
    BloomConfig().save_pretrained(tmp_path)
    with pytest.raises(PruningError, match=r"bloom.*llama, mistral"):
        Checkpoint(tmp_path).check()


def test_a_truncated_file_is_refused(directory: Path) -> None:
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(PruningError, match="damaged"):
        Checkpoint(directory).check()
    with pytest.raises(PruningError, match="damaged"):
        write_sorted_teacher(
            Checkpoint(directory),
            random_ordering(Checkpoint(directory).config),
            directory / "sorted",
        )


def test_weights_that_are_only_pickled_are_refused(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()
    with pytest.raises(PruningError, match="safetensors"):
        Checkpoint(directory).check()


@pytest.mark.parametrize("fault", ["absent", "not json", "hidden not divisible", "type unknown"])
def test_an_unreadable_configuration_is_refused(fault: str, directory: Path) -> None:
    file = directory / "config.json"
    values = json.loads(file.read_text())
    if fault == "absent":
        file.unlink()
    elif fault == "not json":
        file.write_text("{")
    elif fault == "hidden not divisible":
        file.write_text(json.dumps(values | {"hidden_size": 50}))
    else:
        file.write_text(json.dumps(values | {"model_type": "no_such_type"}))
    with pytest.raises(PruningError, match=r"config\.json"):
        Checkpoint(directory).check()


@pytest.mark.parametrize("fault", ["shard gone", "index cut", "shard without tensor"])
def test_a_broken_set_of_shards_is_refused(fault: str, tmp_path: Path) -> None:
    build_teacher("llama-gqa-tied").save_pretrained(tmp_path, max_shard_size="40KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    if fault == "shard gone":
        shard.unlink()
    elif fault == "index cut":
        (tmp_path / INDEX).write_text((tmp_path / INDEX).read_text()[:50])
    else:
        tensors = load_file(shard)
        tensors.pop(next(iter(tensors)))
        save_file(tensors, shard)
    with pytest.raises(PruningError, match="copy"):
        Checkpoint(tmp_path).check()
