"""The text model of a multimodal checkpoint: alone it gives the same logits, or it is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    Cohere2VisionConfig,
    PaliGemmaConfig,
    Qwen2Config,
    Qwen3VLMoeConfig,
)

from common.errors import PruningError
from pruning import Checkpoint
from pruning.multimodal import TextPart
from pruning.multimodal.configuration import text_config_of
from pruning.multimodal.proof import prove
from tests.exactness import EXACT
from tests.multimodal import CONFIGS, HAVE_ROWS, TEXT, VISION, write_multimodal

WEIGHTS = "model.safetensors"
OF_TWO_LAYOUTS = ("gemma3", "mistral3", "qwen2_5_vl", "llava")
"""Types whose files may also have the names of the model in memory."""


def written(part: TextPart, directory: Path) -> Path:
    directory.mkdir()
    part.write(directory, lambda written, total: None)
    return directory


def rename(folder: Path, change: Callable[[str], str]) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({change(n): t for n, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def as_today(name: str) -> str:
    """A name in a file as the model in memory has it."""
    if name.endswith("lm_head.weight"):
        return "lm_head.weight"
    for older in ("language_model.model.", "model."):
        if name.startswith(older):
            return f"model.language_model.{name.removeprefix(older)}"
    return f"model.{name}"


def logits(folder: Path, auto: Any, ids: torch.Tensor) -> torch.Tensor:
    model = auto.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        answer: torch.Tensor = model(input_ids=ids).logits
    return answer


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("variant", "renamed"),
    [*((v, False) for v in HAVE_ROWS), *((v, True) for v in OF_TWO_LAYOUTS)],
)
def test_alone_it_gives_the_logits_of_the_whole(
    variant: str, renamed: bool, tmp_path: Path
) -> None:
    whole = write_multimodal(tmp_path / "whole", variant)
    if renamed:
        rename(whole, as_today)
    part = TextPart.of(whole)
    part.check()
    alone = written(part, tmp_path / "text")
    Checkpoint(alone).check()
    ids = torch.randint(2, 280, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = logits(whole, AutoModelForMultimodalLM, ids)
    found = logits(alone, AutoModelForCausalLM, ids)
    assert (found - expected).abs().max() <= EXACT * expected.abs().max()
    assert part.bytes == sum(t.nbytes for t in load_file(alone / WEIGHTS).values())


def test_types_of_the_table_are_among_those_that_are_tried() -> None:
    assert {"gemma3", "mistral3", "qwen2_5_vl", "qwen3_vl", "llava", "internvl"} <= set(HAVE_ROWS)


def test_a_type_without_a_row_is_refused_with_its_name(tmp_path: Path) -> None:
    moe = Qwen3VLMoeConfig(text_config=TEXT | {"num_experts": 4, "moe_intermediate_size": 8})
    moe.save_pretrained(tmp_path)
    with pytest.raises(PruningError, match="qwen3_vl_moe_text, which transformers has no causal"):
        TextPart.of(tmp_path)


def test_another_text_model_is_not_believed() -> None:
    whole = CONFIGS["qwen3_vl"]()
    text = text_config_of(whole)
    assert prove(whole, text).difference == 0
    other = text_config_of(whole)
    other.rope_parameters["rope_theta"] = 800.0
    slightly = text_config_of(whole)
    slightly.rms_norm_eps *= 10  # the least that a configuration could be wrong by
    for wrong in (other, slightly):
        with pytest.raises(PruningError, match="text model of qwen3_vl is no qwen3: .* differ by"):
            prove(whole, wrong)


def test_logits_that_are_scaled_otherwise_are_not_believed() -> None:
    """The multimodal class of Cohere 2 leaves the factor of the logits out."""
    whole = Cohere2VisionConfig(
        text_config=TEXT | {"model_type": "cohere2"},
        vision_config=VISION | {"model_type": "siglip_vision_model"},
    )
    with pytest.raises(PruningError, match="cohere2_vision is no cohere2: .* differ by 1.5e.01"):
        prove(whole, text_config_of(whole))


def test_positions_may_be_counted_from_one() -> None:
    whole = PaliGemmaConfig(
        text_config=TEXT | {"model_type": "gemma"},
        vision_config=VISION | {"model_type": "siglip_vision_model"},
    )
    assert prove(whole, text_config_of(whole)).difference < 1e-6


def test_a_proof_needs_the_same_tensors() -> None:
    whole = CONFIGS["qwen3_vl"]()
    text = Qwen2Config.from_dict(text_config_of(whole).to_dict() | {"model_type": "qwen2"})
    with pytest.raises(PruningError, match="cannot be shown to be a qwen2: .*q_proj.bias"):
        prove(whole, text)


def test_a_head_in_the_file_is_the_head_unless_it_is_said_to_be_tied(tmp_path: Path) -> None:
    """The class ties by default, and transformers then goes by the file."""
    folder = write_multimodal(tmp_path / "whole", "mistral3")
    values = json.loads((folder / "config.json").read_text())
    del values["tie_word_embeddings"]
    values["text_config"].pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(values))
    assert TextPart.of(folder).proof.tied and not TextPart.of(folder).config.tie_word_embeddings
    alone = written(TextPart.of(folder), tmp_path / "text")
    ids = torch.arange(2, 40)[None]
    expected = logits(folder, AutoModelForMultimodalLM, ids)
    assert torch.allclose(logits(alone, AutoModelForCausalLM, ids), expected)
    (folder / "config.json").write_text(json.dumps(values | {"tie_word_embeddings": True}))
    with pytest.raises(PruningError, match="but config.json ties them"):
        TextPart.of(folder).check()


def lacking(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        del tensors[name]
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return change


def with_second(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    inside = "language_model.model."
    more = {f"talker.{n}": t.clone() for n, t in tensors.items() if n.startswith(inside)}
    save_file(tensors | more, folder / WEIGHTS, {"format": "pt"})


def quantised(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def with_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacking("language_model.model.norm.weight"), "there is no language_model.model.norm"),
        (lacking("language_model.model.embed_tokens.weight"), "there is no embed_tokens.weight"),
        (with_second, "several text models: language_model.model., talker.language_model.model."),
        (quantised, "up_proj.weight in .* is I8: quantised or no weight"),
        (with_config(architectures=["Gemma3Model"]), "names a Gemma3Model, which is no whole"),
    ],
)
def test_what_is_not_whole_is_refused(
    change: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = write_multimodal(tmp_path / "whole", "gemma3")
    change(folder)
    with pytest.raises(PruningError, match=said):
        TextPart.of(folder).check()


def test_a_model_of_sound_and_text_of_a_deeper_kind_is_refused(tmp_path: Path) -> None:
    from transformers import Qwen2_5OmniConfig

    Qwen2_5OmniConfig().save_pretrained(tmp_path)
    with pytest.raises(PruningError, match="transformers has no multimodal class for qwen2_5_omni"):
        TextPart.of(tmp_path)
