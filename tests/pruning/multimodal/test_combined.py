"""Students put back into the multimodal model: text and pictures are answered as they should be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from common.errors import PruningError
from pruning import Architecture, Checkpoint, architecture_of, write_student
from pruning.multimodal import Combined, TextPart, check_whole, load_multimodal
from tests.exactness import EXACT
from tests.multimodal import HAVE_ROWS, write_multimodal
from tests.pruning.models import shuffling_ordering

WEIGHTS = "model.safetensors"
IDS = torch.randint(2, 280, (1, 24), generator=torch.Generator().manual_seed(0))
PICTURED = [v for v in HAVE_ROWS if v not in ("gemma4", "internvl")]
"""Types whose models the tests can give a picture to."""
HEADS_FILL = ("qwen2_5_vl", "internvl")
"""Types without a head_dim, whose heads fill the hidden size."""


def with_picture(variant: str) -> dict[str, Tensor]:
    """A text with a picture in it, as the model of that type takes it."""
    qwen = variant.startswith("qwen")
    ids, pixels = IDS.clone(), (4, 96) if qwen else (1, 3, 8, 8)
    ids[0, 5 : 6 if qwen or variant == "llama4" else 9] = 290
    generator = torch.Generator().manual_seed(1)
    picture = {"input_ids": ids, "pixel_values": torch.randn(*pixels, generator=generator)}
    if variant == "mistral3":
        picture["image_sizes"] = torch.tensor([[8, 8]])
    if qwen:
        picture["image_grid_thw"] = torch.tensor([[1, 2, 2]])
        picture["mm_token_type_ids"] = (ids == 290).int()
    return picture


def logits(model: Any, **given: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(**given).logits
    return answer


def same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= EXACT * expected.abs().max())


def cut(part: TextPart, shape: Architecture, kept: list[int], tmp_path: Path) -> Combined:
    """A student in shuffled order, to be put back."""
    (tmp_path / "text").mkdir()
    part.write(tmp_path / "text", lambda written, total: None)
    teacher, ordering = Checkpoint(tmp_path / "text"), shuffling_ordering(part.config)
    write_student(teacher, shape, kept, tmp_path / "student", ordering=ordering)
    channels = ordering.hidden[: shape.hidden].tolist()
    return Combined(part, Checkpoint(tmp_path / "student"), channels)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", PICTURED)
def test_a_shuffled_teacher_put_back_sees_the_same(variant: str, tmp_path: Path) -> None:
    part = TextPart.of(write_multimodal(tmp_path / "whole", variant))
    whole = architecture_of(part.config)
    combined = cut(part, whole, list(range(whole.layers)), tmp_path)
    (tmp_path / "copy").mkdir()
    combined.write(tmp_path / "copy")
    before, after = (load_multimodal(tmp_path / n, torch.float64) for n in ("whole", "copy"))
    given = with_picture(variant)
    expected = logits(before, **given)
    assert same(logits(after, **given), expected)
    assert same(logits(after, input_ids=IDS), logits(before, input_ids=IDS))
    assert not same(logits(before, **given | {"pixel_values": -given["pixel_values"]}), expected)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float64)
    assert same(logits(student, input_ids=IDS), logits(before, input_ids=IDS))


@pytest.mark.usefixtures("float64")
def test_pictures_show_channels_in_a_wrong_order(tmp_path: Path) -> None:
    part = TextPart.of(write_multimodal(tmp_path / "whole", "gemma3"))
    whole = architecture_of(part.config)
    combined = cut(part, whole, list(range(whole.layers)), tmp_path)
    (tmp_path / "copy").mkdir()
    replace(combined, channels=list(range(whole.hidden))).write(tmp_path / "copy")
    before, after = (load_multimodal(tmp_path / n, torch.float64) for n in ("whole", "copy"))
    assert same(logits(after, input_ids=IDS), logits(before, input_ids=IDS))
    given = with_picture("gemma3")
    assert not same(logits(after, **given), logits(before, **given))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", HAVE_ROWS)
def test_a_student_put_back_answers_text_as_the_student(variant: str, tmp_path: Path) -> None:
    folder = write_multimodal(tmp_path / "whole", variant)
    part = TextPart.of(folder)
    whole = architecture_of(part.config)
    shape = replace(whole, layers=2, ffn=24)
    if variant not in HEADS_FILL:
        shape = replace(shape, heads=3, kv_heads=1)
    combined = cut(part, shape, [1, 2], tmp_path)
    (tmp_path / "copy").mkdir()
    combined.write(tmp_path / "copy")
    copy = load_multimodal(tmp_path / "copy", torch.float64)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float64)
    assert same(logits(copy, input_ids=IDS), logits(student, input_ids=IDS))
    if variant in PICTURED:
        assert logits(copy, **with_picture(variant)).isfinite().all()
    before, after = load_file(folder / WEIGHTS), load_file(tmp_path / "copy" / WEIGHTS)
    beside = before.keys() - set(part.names.values())
    assert beside and all(torch.equal(before[name], after[name]) for name in beside)
    assert combined.parameters_beside == sum(before[name].numel() for name in beside)
    assert copy.num_parameters() == student.num_parameters() + combined.parameters_beside
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    original = json.loads((folder / "config.json").read_text())
    assert {n: v for n, v in values.items() if n != "text_config"} == {
        n: v for n, v in original.items() if n != "text_config"
    }


def test_in_a_flat_configuration_the_student_stands_flat(tmp_path: Path) -> None:
    """Qwen2.5-VL on the Hub has the values of its text model outside of a text_config."""
    folder = write_multimodal(tmp_path / "whole", "qwen2_5_vl")
    raw = json.loads((folder / "config.json").read_text())
    inside = {n: v for n, v in raw.pop("text_config").items() if n not in raw}
    (folder / "config.json").write_text(json.dumps(inside | raw))
    part = TextPart.of(folder)
    shape = replace(architecture_of(part.config), layers=2, ffn=24)
    combined = cut(part, shape, [0, 1], tmp_path)
    (tmp_path / "copy").mkdir()
    combined.write(tmp_path / "copy")
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert "text_config" not in values and values["num_hidden_layers"] == 2
    assert (
        load_multimodal(tmp_path / "copy", torch.float32).config.text_config.num_hidden_layers == 2
    )


def test_what_no_weight_of_a_model_is_stays_too(tmp_path: Path) -> None:
    folder = write_multimodal(tmp_path / "whole", "gemma3")
    tensors = load_file(folder / WEIGHTS)
    beside = {
        "vision_tower.position_ids": torch.arange(7),
        "vision_tower.steps": torch.tensor(3),
        "language_model.model.layers.2.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    save_file(tensors | beside, folder / WEIGHTS, {"format": "pt"})
    part = TextPart.of(folder)
    shape = replace(architecture_of(part.config), layers=2)
    combined = cut(part, shape, [0, 1], tmp_path)
    (tmp_path / "copy").mkdir()
    combined.write(tmp_path / "copy")
    found = load_file(tmp_path / "copy" / WEIGHTS)
    for name in ("vision_tower.position_ids", "vision_tower.steps"):
        assert torch.equal(found[name], beside[name])
    assert not any(".layers.2." in name for name in found)


def test_only_students_of_the_same_hidden_size_fit(tmp_path: Path) -> None:
    part = TextPart.of(write_multimodal(tmp_path / "whole", "gemma3"))
    shape = replace(architecture_of(part.config), hidden=24)
    combined = cut(part, shape, list(range(shape.layers)), tmp_path)
    with pytest.raises(PruningError, match="has hidden size 24, and what gemma3 makes of pictures"):
        combined.check()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_multimodal(tmp_path / "whole", "qwen3_vl")
    part = TextPart.of(folder)
    whole = architecture_of(part.config)
    combined = cut(part, whole, list(range(whole.layers)), tmp_path)
    combined.check()
    for channels, said in (
        (None, "does not say which channel of the teacher"),
        ([0] * 48, "names 48 channels, which are not the 48 of the multimodal model"),
        (list(range(40)), "names 40 channels"),
    ):
        with pytest.raises(PruningError, match=said):
            replace(combined, channels=channels).check()
    deep = replace(part, whole=part.whole)
    deep.whole.vision_config.deepstack_visual_indexes = [0, 1, 2, 3]
    with pytest.raises(
        PruningError, match="first 4 layers of its text model, and the student has 3"
    ):
        replace(combined, part=deep).check()
    check_whole(part)
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if "visual" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(PruningError, match="is not whole: missing keys model.visual"):
        check_whole(replace(part))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(PruningError, match="has no processor"):
        check_whole(part)


def test_heads_that_do_not_fill_the_hidden_size_are_refused_where_nothing_says_so(
    tmp_path: Path,
) -> None:
    part = TextPart.of(write_multimodal(tmp_path / "whole", "qwen2_5_vl"))
    whole = architecture_of(part.config)
    fewer = replace(whole, heads=3, kv_heads=1)
    combined = cut(part, fewer, list(range(whole.layers)), tmp_path)
    with pytest.raises(PruningError, match="qwen2_5_vl cannot say the student, L3 H48 A3/1 F40"):
        combined.check()


def test_a_student_of_another_type_is_refused(tmp_path: Path) -> None:
    other = TextPart.of(write_multimodal(tmp_path / "other", "llava"))
    whole = architecture_of(other.config)
    student = cut(other, whole, list(range(whole.layers)), tmp_path).student
    part = TextPart.of(write_multimodal(tmp_path / "whole", "gemma3"))
    with pytest.raises(PruningError, match="is a stock gemma3_text .* and the student a llama of"):
        Combined(part, student, list(range(48))).check()
