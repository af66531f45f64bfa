"""Copies by their form: what is refused, and that they are loaded as they were written."""

from pathlib import Path

import pytest
import torch

from pruning import (
    Architecture,
    Checkpoint,
    PruningError,
    architecture_of,
    load_student,
    student_config,
    write_student,
)
from pruning.exports import (
    FORMS,
    check_copies,
    check_forms,
    check_type,
    copied_parameters,
    load_copy,
)
from tests.pruning.models import build_config, build_teacher, difference, logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", ["llama-gqa-biases", "qwen2"])
def test_a_copy_is_loaded_here_and_computes_the_same(
    variant: str, form: str, tmp_path: Path
) -> None:
    model = build_teacher(variant, dtype=torch.float64, hidden_size=72)
    model.save_pretrained(tmp_path / "teacher")
    shape = Architecture.parse("L3 H72 A[- 4/2 3/1] F[40 17 -]")
    write_student(Checkpoint(tmp_path / "teacher"), shape, range(3), tmp_path / "student")
    student = Checkpoint(tmp_path / "student")
    (tmp_path / "copy").mkdir()
    FORMS[form].write(student, tmp_path / "copy")
    copy = load_copy(student.config, form, tmp_path / "copy")
    assert difference(logits(copy), logits(load_student(student.directory))) < 1e-12
    assert copied_parameters(student.config, form) == sum(p.numel() for p in copy.parameters())


def test_a_mixture_without_experts_has_no_padded_copy() -> None:
    config = build_config("qwen3-moe")
    shape = Architecture.parse("L3 H48 A[9/3 3/1*2] F[- 16 -]")
    with pytest.raises(PruningError, match="no experts left"):
        FORMS["padded"].layers(config, shape)


def test_forms_are_refused_by_what_is_known_so_far() -> None:
    with pytest.raises(PruningError, match="--export has 'gguf'; it must be any of padded, decilm"):
        check_forms(["padded", "gguf"])
    check_type(["padded", "decilm"], build_config("llama-gqa-tied", hidden_size=72))
    check_type(["padded"], build_config("olmo2"))
    check_type(["padded"], build_config("qwen3-moe-mixed"))  # with a layer that has no experts
    with pytest.raises(PruningError, match="--export has decilm: .*Llama's blocks"):
        check_type(["decilm"], build_config("olmo2"))


def test_a_student_whose_layers_are_alike_needs_no_copy() -> None:
    config = build_config("llama-gqa-tied", hidden_size=72)
    with pytest.raises(PruningError, match="--export has padded: the student is a stock"):
        check_copies(["padded"], config)
    own = student_config(config, Architecture.parse("L2 H72 A[9/3 3/1] F40"), [0, 2])
    assert architecture_of(own).per_layer
    check_copies(list(FORMS), own)
