"""Model folders as people bring them: each is used rightly, or refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
)

import workspace.models.locating
from common.errors import DistillError, PruningError, SearchError
from common.fingerprint import differences
from pruning import Architecture, Checkpoint, write_student
from tests.byte_llama import byte_tokenizer, write_byte_llama
from workspace.models.model_source import ModelSource
from workspace.models.notes import notes_of, precision_note

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
Change = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama of tied embeddings with a byte-level tokenizer."""
    return write_byte_llama(tmp_path_factory.mktemp("teacher") / "plain", layers=2)


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    shutil.copytree(plain, tmp_path / "a teacher")
    return tmp_path / "a teacher"


def config(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def weights(change: Callable[[Tensors], Any]) -> Change:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return changed


def file(name: str, content: bytes, *gone: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)
        for other in gone:
            (folder / other).unlink()

    return change


def sharded(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    placement = {}
    for index, name in enumerate(sorted(tensors)):
        placement[name] = f"model-0000{1 + index % 2}-of-00002.safetensors"
    for shard in set(placement.values()):
        part = {name: tensors[name] for name in tensors if placement[name] == shard}
        save_file(part, folder / shard, {"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": placement})
    )
    (folder / WEIGHTS).unlink()


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def tried(folder: Path, precision: str = "file") -> ModelSource:
    """As the commands do it before anything is written."""
    teacher = ModelSource.open(str(folder))
    teacher.check()
    teacher.load(CPU, teacher.dtype_in(precision))
    return teacher


REFUSED: dict[str, tuple[Change, str]] = {
    "hidden size": (config(hidden_size=30), "not a multiple of the number of attention heads"),
    "head dimension": (config(head_dim=6), "config.json asks for"),
    "activation": (config(hidden_act="nonsense"), "cannot build the model .*'nonsense'"),
    "negative size": (config(intermediate_size=-64), "says -64 ffn"),
    "no vocabulary": (config(vocab_size=0), "vocab_size 0"),
    "type of a size": (config(num_hidden_layers="two"), "num_hidden_layers"),
    "rope type": (config(rope_parameters={"rope_type": "nope", "rope_theta": 1e4}), "nope"),
    "rope base": (config(rope_parameters={"rope_type": "default", "rope_theta": 0}), "not finite"),
    "layer types": (config(layer_types=["full_attention"]), "layer_type"),
    "model type": (config(model_type="brandnew"), "brandnew"),
    "own code": (
        config(model_type="brandnew", auto_map={"AutoConfig": "configuration_x.X"}),
        "custom code",
    ),
    "bitsandbytes": (config(quantization_config={"quant_method": "bitsandbytes"}), "quantised"),
    "gptq": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "positions": (config(max_position_embeddings=0), "max_position_embeddings 0"),
    "no object": (file("config.json", b"[1]"), "config.json"),
    "padding beyond": (config(pad_token_id=257), "pad_token_id 257, beyond .* 257 tokens"),
    "padding far beyond": (config(pad_token_id=99_999), "pad_token_id 99999"),
    "padding below": (config(pad_token_id=-300), "pad_token_id -300"),
    "untied without a head": (config(tie_word_embeddings=False), "lm_head.weight.*is the head"),
    "fp8": (
        weights(lambda t: t.update({"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)})),
        "model.norm.weight .* F8_E4M3: quantised",
    ),
    "int8": (
        weights(lambda t: t.update({"model.norm.weight": torch.ones(32).to(torch.int8)})),
        "model.norm.weight .* I8: quantised",
    ),
    "other names": (
        weights(lambda t: [t.update({f"module.{name}": t.pop(name)}) for name in list(t)]),
        "lacks the tensor model.embed_tokens.weight",
    ),
    "empty file": (file(WEIGHTS, b""), "damaged"),
    "pointer": (file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "index that is none": (
        both(sharded, file(f"{WEIGHTS}.index.json", b'{"weight_map": []}')),
        "index.json is damaged",
    ),
    "shard that is missing": (
        both(sharded, lambda f: (f / "model-00002-of-00002.safetensors").unlink()),
        "model-00002-of-00002.safetensors is missing",
    ),
    "pickles": (file("pytorch_model.bin", b"", WEIGHTS), "pickles.*save_pretrained"),
    "gguf": (file("model.gguf", b"GGUF", WEIGHTS, "config.json"), "GGUF.*gguf_file"),
    "adapter": (file("adapter_config.json", b"{}", WEIGHTS, "config.json"), "merge_and_unload"),
    "adapter with a configuration": (
        both(
            file("adapter_config.json", b"{}"),
            lambda f: (f / WEIGHTS).rename(f / "adapter_model.safetensors"),
        ),  # fmt: skip
        "merge_and_unload",
    ),
    "onnx": (file("model.onnx", b"", WEIGHTS), "ONNX"),
    "another framework": (file("weights.npz", b"", WEIGHTS), "another framework"),
    "checkpoint below": (
        both(
            lambda f: shutil.copytree(f, f / "checkpoint-7"), file("x", b"", "config.json", WEIGHTS)
        ),  # fmt: skip
        "its folder checkpoint-7 has",
    ),
    "broken tokenizer": (file("tokenizer.json", b"{"), "tokenizer of .* cannot be loaded"),
    "no tokens, which transformers makes a tokenizer of": (
        both(
            file("tokenizer_config.json", b'{"tokenizer_class": "Qwen2Tokenizer"}'),
            lambda folder: (folder / "tokenizer.json").unlink(),
        ),
        "has no tokenizer; save",
    ),
    "tokenizer of a missing package": (
        both(
            file("tokenizer.model", b"\n\0", "tokenizer.json"),
            file("tokenizer_config.json", b'{"tokenizer_class": "LlamaTokenizer"}'),
        ),
        "cannot be loaded|pip install",
    ),
    "tokenizer with code": (
        file(
            "tokenizer_config.json",
            b'{"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["x.X", null]}}',
        ),
        "custom code",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_one_sentence(folder: Path, change: Change, said: str) -> None:
    change(folder)
    with pytest.raises((SearchError, PruningError), match=said) as refusal:
        tried(folder)
    text = str(refusal.value)
    assert "\n" not in text and len(text) < 500


def halved(tensors: Tensors) -> None:
    tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})


def with_head(tensors: Tensors, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors["lm_head.weight"] = change(tensors["model.embed_tokens.weight"].clone())


USED: dict[str, Change] = {
    "plain": lambda folder: None,
    "no architectures": config(architectures=None),
    "code that is not needed": config(auto_map={"AutoConfig": "configuration_x.X"}),
    "padding of old Llamas": config(pad_token_id=-1),
    "long positions": config(max_position_embeddings=10**9),
    "the embedding again as the head": weights(lambda t: with_head(t, torch.clone)),
    "the head in a wider type": weights(
        lambda t: (halved(t), with_head(t, torch.Tensor.float)),
    ),
    "the embedding by the head's name": weights(
        lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")})
    ),
    "bare model": weights(
        lambda t: [t.update({name.removeprefix("model."): t.pop(name)}) for name in list(t)]
    ),
    "shards": sharded,
    "a tensor in two shards": both(
        sharded,
        lambda f: save_file(
            load_file(f / "model-00002-of-00002.safetensors")
            | {"model.embed_tokens.weight": torch.full((257, 32), 0.5)},
            f / "model-00002-of-00002.safetensors",
            {"format": "pt"},
        ),
    ),
    "a padded vocabulary": both(
        config(vocab_size=320),
        weights(lambda t: t.update({"model.embed_tokens.weight": torch.randn(320, 32)})),
    ),
    "fp64": weights(lambda t: t.update({name: value.double() for name, value in t.items()})),
}


@pytest.mark.parametrize("change", USED.values(), ids=USED)
def test_what_is_cut_is_what_transformers_loads(folder: Path, change: Change) -> None:
    change(folder)
    teacher = tried(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    with teacher.checkpoint.reading() as reader:
        for name in teacher.checkpoint._expected_shapes():
            assert torch.equal(reader.view(name)[:].to(loaded[name]), loaded[name]), name
    assert not [line for line in notes_of(teacher) if "left out" in line]


def test_a_head_that_differs_is_refused_where_it_is_tied(folder: Path) -> None:
    weights(lambda t: with_head(t, lambda embedding: embedding * 1.5))(folder)
    with pytest.raises(PruningError, match=r"lm_head\.weight of its own .* tie_word_embeddings"):
        tried(folder)
    with pytest.raises(SearchError, match="an output head of its own"):
        ModelSource(folder).load(
            CPU
        )  # of a type that is not in the table, nobody else would notice
    weights(lambda t: with_head(t, lambda embedding: embedding[:200].contiguous()))(folder)
    with pytest.raises(PruningError, match=r"lm_head\.weight of its own"):
        tried(folder)


def test_token_ids_that_only_generation_wants_are_said(folder: Path) -> None:
    config(eos_token_id=[1, 999])(folder)
    (folder / "generation_config.json").write_text('{"pad_token_id": 300, "eos_token_id": 256}')
    assert notes_of(tried(folder)) == [
        "teacher: eos_token_id in config.json is [1, 999], beyond the model's 257 tokens",
        "teacher: pad_token_id in generation_config.json is 300, beyond the model's 257 tokens",
    ]
    (folder / "generation_config.json").write_text("{")
    assert "teacher: generation_config.json is damaged, and so not known" in notes_of(tried(folder))


def test_what_transformers_leaves_aside_is_named(folder: Path) -> None:
    spare = {
        "v_head.summary.weight": torch.randn(1, 32),
        "model.layers.2.mlp.up_proj.weight": torch.randn(64, 32),
        "model.layers.0.self_attn.k_scale": torch.ones(1),
        "model.layers.0.self_attn.q_proj.bias": torch.ones(32),
        "model.layers.0.self_attn.masked_bias": torch.tensor(1),
    }
    weights(lambda t: t.update(spare))(folder)
    (line,) = notes_of(tried(folder))
    assert line.startswith("teacher: 5 tensors that transformers has no use for left out: ")
    assert line.endswith(" and 2 more")


def test_of_a_type_that_is_not_in_the_table_nothing_may_be_missing(tmp_path: Path) -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2))
    bloom.save_pretrained(tmp_path)
    weights(lambda t: t.update({"v_head.weight": torch.ones(1)}))(tmp_path)
    model = ModelSource.located(str(tmp_path))
    model.check()
    (line,) = notes_of(model)
    assert "v_head.weight" in line
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    weights(lambda t: t.__delitem__(name))(tmp_path)
    with pytest.raises(PruningError, match=name):
        ModelSource.located(str(tmp_path)).check()


@pytest.mark.parametrize(
    ("wide", "dtype"),
    [
        ({"model.embed_tokens.weight"}, torch.bfloat16),
        ({"model.norm.weight", "model.layers.0.input_layernorm.weight"}, torch.bfloat16),
        ({f"model.layers.{i}.mlp.{n}_proj.weight" for i in (0, 1) for n in ("up", "gate", "down")},
         torch.float32),
    ],
)  # fmt: skip
def test_the_type_is_that_of_most_bytes(folder: Path, wide: set[str], dtype: torch.dtype) -> None:
    weights(lambda t: t.update({n: v if n in wide else v.bfloat16() for n, v in t.items()}))(folder)
    weights(lambda t: t.update({"v_head.weight": torch.ones(90_000)}))(folder)  # is not used
    teacher = tried(folder)
    assert teacher.dtype == dtype == teacher.dtype_in("file")
    assert teacher.load(CPU, teacher.dtype).dtype == dtype
    assert any(f"used in {str(dtype).removeprefix('torch.')}" in line for line in notes_of(teacher))


def test_a_teacher_is_held_in_the_type_of_its_file(folder: Path) -> None:
    weights(halved)(folder)
    teacher = tried(folder)
    model = teacher.load(CPU, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert teacher.load(CPU, torch.bfloat16) is not model  # one that was tried out is given once
    assert teacher.dtype_in("fp32") == torch.float32
    assert teacher.precision_part("file") == {"teacher_precision": "bf16"}
    assert teacher.precision_part("fp32") == {}
    assert "teacher: computes in bfloat16" in precision_note(torch.bfloat16, CPU)
    assert precision_note(torch.float32, CPU) == "teacher: computes in float32"


def test_a_study_of_an_earlier_version_was_begun_in_fp32() -> None:
    old, new = {"seed": 0}, {"seed": 0, "teacher_precision": "bf16"}
    assert differences(old, {"seed": 0}) == []
    assert differences(old, new) == ["teacher_precision (was fp32, is bf16)"]


def test_attention_without_its_cap_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.loads((folder / "config.json").read_text())
    shape = {
        name: raw[name]
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    }
    Gemma2Config(**shape).save_pretrained(folder)
    monkeypatch.setattr(Gemma2ForCausalLM, "_supports_sdpa", False)
    assert ModelSource.open(str(folder)).config.attn_logit_softcapping == 50.0
    monkeypatch.setattr(Gemma2ForCausalLM, "_supports_sdpa", True)  # as transformers 5.17
    with pytest.raises(SearchError, match="leaves attn_logit_softcapping of .* out of its"):
        ModelSource.open(str(folder))


def test_a_model_that_does_not_fit_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("workspace.models.model_source.load", full)
    with pytest.raises(SearchError, match=r"memory of cpu in fp32: CUDA out of memory"):
        ModelSource.open(str(folder)).load(CPU)


def response(status: int) -> Any:
    class Response:
        status_code = status
        headers: dict[str, str] = {}
        request = None

    return Response()


@pytest.mark.parametrize(
    ("problem", "offline", "said"),
    [
        (hub.GatedRepoError("gated", response=response(403)), "", "gated.*accept its terms"),
        (hub.RepositoryNotFoundError("no", response=response(404)), "", "neither a folder nor"),
        (hub.HFValidationError("a--b"), "", "mind the spelling"),
        (hub.RevisionNotFoundError("no main", response=response(404)), "", "no such revision"),
        (hub.OfflineModeIsEnabled("offline"), "1", "HF_HUB_OFFLINE is set; unset it"),
        (hub.LocalEntryNotFoundError("not cached"), "1", "HF_HUB_OFFLINE is set; unset it"),
        (hub.LocalEntryNotFoundError("not cached"), "", "cannot be reached"),
        (TimeoutError("timed out"), "", "cannot be reached"),
        (hub.HfHubHTTPError("503 busy\nmore", response=response(503)), "", "503 busy.; try again"),
        (RuntimeError("something else\nmore"), "", "cannot be downloaded .*: something else"),
    ],
)
def test_what_the_hub_says_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, problem: Exception, offline: str, said: str
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise problem

    monkeypatch.setattr(workspace.models.locating, "snapshot_download", download)
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    with pytest.raises(SearchError, match=said) as refusal:
        ModelSource.open("somebody/something")
    assert str(refusal.value).startswith("the teacher somebody/something ")
    assert "\n" not in str(refusal.value)


def test_encode_refuses_what_is_not_finite() -> None:
    from distill.targets.encode import encode
    from distill.targets.formats import evaluation_format

    class Broken(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
            logits = torch.zeros(*input_ids.shape, 8)
            logits[0, 3, 5] = torch.nan
            return type("Output", (), {"logits": logits})()

    with pytest.raises(DistillError, match="blocks 4 to 5 is not finite"):
        encode(
            Broken(),
            torch.zeros(2, 6, dtype=torch.long),
            target_format=evaluation_format(8),
            first_slot=4,
        )


def test_a_student_whose_layers_differ_learns_but_is_not_cut(plain: Path, tmp_path: Path) -> None:
    shape = Architecture.parse("L2 H32 A[- 4/2] F[64 -]")
    write_student(Checkpoint(plain), shape, [0, 1], tmp_path / "student")
    student = ModelSource.located(str(tmp_path / "student"), role="student")
    student.check()
    assert student.parameters == student.load(CPU).num_parameters()
    byte_tokenizer().save_pretrained(tmp_path / "student")
    ModelSource.open(str(tmp_path / "student"), prunable=False)
    with pytest.raises(PruningError, match="per-layer student, L2 H32 A"):
        ModelSource.open(str(tmp_path / "student"))
