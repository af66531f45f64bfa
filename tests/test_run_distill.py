"""The command that distils two models, on tiny ones: stages, resumption, workers, wrong input."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from common.errors import SearchStopped
from distill.backend.parallel import World
from distill.recipes.assets import Assets
from distill.recipes.student import StudentRun
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from experiments.distill import session
from experiments.distill.workers import WorkerGroup
from experiments.run_distill import main
from pruning import (
    Architecture,
    Checkpoint,
    Pruner,
    architecture_of,
    load_student,
    write_sorted_teacher,
    write_student,
)
from tests.byte_llama import byte_tokenizer
from tests.distill.group import together
from tests.driver import ENVIRONMENT
from tests.processes import DISTILL, Process, served
from tests.pruning.models import random_ordering

BLOCK, BATCH, STEPS = 16, 2, 12
TOKENS = BLOCK * BATCH * STEPS
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""
SHAPE = Architecture(layers=2, hidden=24, heads=4, kv_heads=2, ffn=24)


def tiny_llama(seed: int = 0, vocabulary: int = 257) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=32,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with a chat template, a student cut out of it, a text corpus and one of chats."""
    root = tmp_path_factory.mktemp("models")
    tiny_llama().save_pretrained(root / "teacher")
    byte_tokenizer(TEMPLATE).save_pretrained(root / "teacher")
    batches = [torch.randint(0, 257, (4, BLOCK), generator=torch.Generator().manual_seed(0))]
    pruner = Pruner(root / "teacher", model=tiny_llama())
    pruned = pruner.prune(SHAPE, batches, output=root / "student")
    facts = {
        "kept_layers": pruned.kept_layers,
        "kept_channels": pruned.ordering.hidden[: SHAPE.hidden].tolist(),
    }
    (root / "student" / "prune.json").write_text(json.dumps(facts))
    words = [f"word{number:03d} is {'even' if number % 2 == 0 else 'odd'}" for number in range(400)]
    texts = [json.dumps({"text": f"{word}; " * 3}) for word in words]
    (root / "texts.jsonl").write_text("\n".join(texts))
    chats = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Is {number} even?"},
                    {"role": "assistant", "content": "yes" if number % 2 == 0 else "no, not it"},
                ]
            }
        )
        for number in range(600)
    ]
    (root / "chats.jsonl").write_text("\n".join(chats))
    return root


def command(folder: Path, output: Path, **options: Any) -> list[str]:
    settings = {
        "teacher": folder / "teacher",
        "student": folder / "student",
        "corpus": folder / "texts.jsonl",
        "output": output,
        "tokens": TOKENS,
        "block": BLOCK,
        "training.batch": BATCH,
        "training.targets": "topk",
        "training.topk": 16,
        "training.learning_rate": 5e-3,
        "training.precision": "fp32",
        "splits.selection_tokens": 64,
        "splits.test_tokens": 64,
        "reports": 3,
        "device": "cpu",
    }
    settings |= {name.replace("__", "."): value for name, value in options.items()}
    return [f"--{name}={value}" for name, value in settings.items() if value is not None]


def finish(folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    assert main(command(folder, output, **options)) == 0
    result: dict[str, Any] = json.loads((output / "distill.json").read_text())
    return result


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "student" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    finish(folder, output)
    return output


def test_the_student_is_a_stock_checkpoint_that_is_closer_to_its_teacher(
    whole: Path, folder: Path
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(whole / "student")
    tokenizer = AutoTokenizer.from_pretrained(whole / "student")
    assert tokenizer.chat_template == TEMPLATE
    ids = tokenizer("word", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]
    assert architecture_of(model.config) == SHAPE
    result = json.loads((whole / "distill.json").read_text())
    assert result["after"]["kl"]["mean"] < 0.9 * result["before"]["kl"]["mean"]
    assert result["tokens"] == TOKENS
    assert result["student"]["parameters"] == model.num_parameters()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (whole / "student" / name).read_bytes() == (folder / "teacher" / name).read_bytes()
    card = ModelCard.load(whole / "student" / "README.md").data
    assert card.eval_results[0].metric_value == round(result["after"]["kl"]["mean"], 4)
    modes = {path.stat().st_mode & 0o777 for path in (whole / "student").iterdir()}
    assert modes == {(whole / "distill.json").stat().st_mode & 0o777}
    start = load_file(folder / "student" / "model.safetensors")
    assert all(not torch.equal(value, start[name]) for name, value in weights(whole).items())


def test_metrics_are_lines_of_json_and_tensorboard_events(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == [TOKENS // 3, 2 * TOKENS // 3, TOKENS]
    curve = json.loads((whole / "distill.json").read_text())["curve"]
    for line, point in zip(lines, curve, strict=True):
        assert {name: line[name] for name in point} == point
        assert line.keys() >= {"learning_rate", "tokens_per_second", "time"}
    (events,) = (whole / "tensorboard").iterdir()
    assert events.stat().st_size > 500


def test_nothing_but_the_run_itself_is_left(whole: Path) -> None:
    names = {path.name.split("-")[0] for path in whole.iterdir() if not path.name.startswith(".")}
    kept = {"corpus", "targets", "student", "tensorboard"}
    assert names == kept | {"distill.json", "metrics.jsonl", "run.json"}


def test_a_finished_run_is_not_run_again(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "student" / "model.safetensors").stat().st_mtime_ns
    assert main(command(folder, whole)) == 0
    assert "nothing is trained again" in capsys.readouterr().out
    assert (whole / "student" / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, whole, training__topk=8, seed=3)) == 2
    error = capsys.readouterr().err
    assert "seed (was 0, is 3)" in error
    assert "training.topk (was 16, is 8)" in error


def interrupt(monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Have a run be interrupted as soon as its checkpoint at step `stop` is written."""
    from distill.train.trainer import Distillation

    save = Distillation.save

    def interrupted(run: Distillation, directory: Path, **meta: Any) -> None:
        save(run, directory, **meta)
        if run.step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Distillation, "save", interrupted)


def test_a_finished_run_is_told_apart_from_one_on_another_text(
    whole: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    finish(folder, run)
    said = capsys.readouterr().out
    assert f"nothing is trained again; its student: {run / 'student'}" in said
    lines = (folder / "texts.jsonl").read_text().splitlines()
    (tmp_path / "others.jsonl").write_text("\n".join(lines[::-1]))
    assert main(command(folder, run, corpus=tmp_path / "others.jsonl")) == 2
    assert "holds a run with other settings: corpus" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [1, 5, STEPS - 1])
def test_interrupted_and_resumed_is_bit_for_bit_the_same(
    whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    interrupt(monkeypatch, stop)
    assert main(command(folder, tmp_path / "run", checkpoint_seconds=0)) == 130
    monkeypatch.undo()
    finish(folder, tmp_path / "run", checkpoint_seconds=0)
    assert all(torch.equal(v, weights(tmp_path / "run")[n]) for n, v in weights(whole).items())


def test_a_student_whose_layers_differ_is_trained_resumed_and_written_as_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Architecture.parse("L3 H32 A[- 4/2 2/1] F[48 - 24]")
    write_student(Checkpoint(folder / "teacher"), shape, [0, 1, 2], tmp_path / "per-layer")
    options: dict[str, Any] = {"student": tmp_path / "per-layer", "warm_start__tokens": None}
    result = finish(folder, tmp_path / "whole", **options)
    assert result["after"]["kl"]["mean"] < result["before"]["kl"]["mean"]
    assert not (tmp_path / "whole" / "student-decilm").exists()
    finish(folder, tmp_path / "whole", export="[decilm]", **options)  # the run is finished already
    assert "DeciLM" in (tmp_path / "whole" / "student-decilm" / "config.json").read_text()
    student = load_student(tmp_path / "whole" / "student")
    assert architecture_of(student.config) == shape
    assert result["student"]["parameters"] == student.num_parameters()
    interrupt(monkeypatch, stop=5)
    again = command(folder, tmp_path / "run", checkpoint_seconds=0, **options)
    assert main(again) == 130
    monkeypatch.undo()
    assert main(again) == 0
    resumed = weights(tmp_path / "run")
    assert all(torch.equal(v, resumed[n]) for n, v in weights(tmp_path / "whole").items())


def test_every_stage_at_once(folder: Path, tmp_path: Path) -> None:
    result = finish(
        folder,
        tmp_path / "run",
        training__targets="live",
        match_states=True,
        correction__tokens=2 * TOKENS,
        correction__learning_rate=5e-3,
        warm_start__tokens=TOKENS,
        range_steps=20,
        training__learning_rate=None,
        training__average=0.9,
        training__micro_batch=1,
        training__schedule="wsd",
        plateau=50,
    )
    correction = result["teacher"]["correction"]
    assert correction["after"]["mean"] < 0.95 * correction["before"]["mean"]
    assert result["after"]["kl"]["mean"] < result["before"]["kl"]["mean"]
    found = json.loads((tmp_path / "run" / "range_run.json").read_text())
    assert 1e-5 < found["rate"] < 1
    assert not list((tmp_path / "run").glob("targets-train*"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    assert architecture_of(model.config) == SHAPE


def test_only_what_the_assistant_says_is_learnt(folder: Path, tmp_path: Path) -> None:
    chats = folder / "chats.jsonl"
    result = finish(
        folder, tmp_path / "run", corpus=chats, assistant_only=True, training__lm_weight=0.5
    )
    assert result["after"]["ce"]["mean"] < result["before"]["ce"]["mean"]
    (facts,) = (tmp_path / "run").glob("corpus-*/facts.json")
    counted = json.loads(facts.read_text())
    assert 0 < counted["train_counted_tokens"] < 0.6 * counted["train_tokens"]
    plain = finish(folder, tmp_path / "plain", corpus=chats)
    assert plain["before"]["ce"]["mean"] != result["before"]["ce"]["mean"]


def test_a_trial_of_a_search_is_cut_again(folder: Path, tmp_path: Path) -> None:
    teacher = Checkpoint(folder / "teacher")
    study = tmp_path / "study"
    study.mkdir()
    write_sorted_teacher(teacher, random_ordering(teacher.config), study / "sorted-x")
    (study / "trials.csv").write_text(
        "number,state,layers,hidden,heads,kv_heads,ffn\n"
        "0,FAIL,,,,,\n"
        f"7,COMPLETE,{SHAPE.layers},{SHAPE.hidden},{SHAPE.heads},{SHAPE.kv_heads},{SHAPE.ffn}\n"
    )
    result = finish(
        folder, tmp_path / "run", student=f"{study}:7", warm_start__tokens=TOKENS, tokens=TOKENS
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    assert architecture_of(model.config) == SHAPE
    assert result["after"]["kl"]["mean"] < result["before"]["kl"]["mean"]


def test_a_run_ends_where_evaluations_bring_nothing(folder: Path, tmp_path: Path) -> None:
    result = finish(
        folder, tmp_path / "run", training__learning_rate=1e-12, plateau=2, reports=STEPS
    )
    assert result["tokens"] == 3 * BLOCK * BATCH


def test_padding_of_the_vocabulary_is_reconciled(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    model.resize_token_embeddings(264)
    model.save_pretrained(tmp_path / "padded")
    result = finish(folder, tmp_path / "run", student=tmp_path / "padded")
    assert result["after"]["kl"]["mean"] < result["before"]["kl"]["mean"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student").vocab_size == 264


def student_with(folder: Path, target: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    AutoModelForCausalLM.from_pretrained(folder / "student").save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"teacher": "nowhere/at/all"}, "does not exist"),
        ({"student": "nowhere/at/all"}, "does not exist"),
        ({"corpus": "nowhere/at/all.txt"}, "does not exist"),
        ({"block": 64}, "--block is 64, but the student has only 32 positions"),
        ({"tokens": 16}, "--tokens is 16, less than one step of 32 tokens"),
        ({"workers__count": 3}, "batch is 2, which 3 workers cannot share evenly; use 3"),
        ({"workers__count": 0}, "--workers.count is 0"),
        ({"training__loss": "hinge"}, "loss is 'hinge'"),
        ({"training__precision": "tf32"}, "precision is 'tf32'"),
        ({"training__targets": "sampled", "training__loss": "reverse-kl"}, "sampled targets"),
        ({"match_states": True}, "--training.targets live"),
        ({"targets_gb": 0.00001}, "--targets_gb 1e-05"),
        ({"range_steps": 5}, "--range_steps is 5"),
        ({"export": "[padded]"}, "--export has padded: the student is a stock checkpoint"),
        ({"plateau": 0}, "--plateau is 0"),
        ({"assistant_only": True}, "no chats"),
        ({"wandb": "project"}, "wandb is not installed"),
        ({"training__batch": "many"}, "--training.batch is many"),
        ({"correction__tokens": -1}, "tokens is -1"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"output": ""}, "--output is empty"),
        ({"student": "nowhere/at/all"}, "the student nowhere/at/all does not exist"),
        ({"student": ""}, "--student is empty"),
        ({"teacher_device": "cuda:7"}, "--teacher_device is 'cuda:7'"),
        ({"range_steps": 20}, "--training.learning_rate is given"),
        ({"training__optimizer": "adamw-8bit", "training__batch": 3, "workers__count": 3}, "8bit"),
    ],
)
def test_wrong_input_is_one_sentence(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    text: str,
) -> None:
    others = {name: value for name, value in options.items() if name != "output"}
    try:
        status = main(command(folder, options.get("output", tmp_path / "run"), **others))
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    assert status == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and error.count("\n") == 0
    assert text in error
    assert not (tmp_path / "run" / "student").exists()


def test_files_of_something_else_are_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "run" / "student" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    assert main(command(folder, tmp_path / "run")) == 2
    assert "such as student" in capsys.readouterr().err
    assert kept.read_text() == "mine"


def test_the_student_may_not_lie_in_the_output(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = student_with(folder, tmp_path / "run" / "trial-mine", byte_tokenizer())
    before = sorted(path.name for path in student.iterdir())
    assert main(command(folder, tmp_path / "run", student=student)) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert sorted(path.name for path in student.iterdir()) == before


def test_text_with_tokens_that_the_student_lacks_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["word"])
    teacher = tiny_llama(vocabulary=264)
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    assert main(command(folder, tmp_path / "run", teacher=tmp_path / "teacher")) == 2
    assert "'word' (number 257)" in capsys.readouterr().err


def changed(model: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(model, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize("whose", ["teacher", "student"])
def test_folders_are_used_rightly_or_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    name, spare = "model.layers.0.mlp.up_proj.weight", "model.layers.9.mlp.up_proj.weight"
    lacking = changed(folder / whose, tmp_path / "lacking", lambda t: t.pop(name))
    assert main(command(folder, tmp_path / "run", **{whose: lacking})) == 2
    assert f"lacks the tensor {name}" in capsys.readouterr().err
    deaf = changed(folder / whose, tmp_path / "deaf", lambda t: None)
    facts = json.loads((deaf / "config.json").read_text())
    facts["rope_parameters"] = {"rope_type": "default", "rope_theta": 0}
    (deaf / "config.json").write_text(json.dumps(facts))
    assert main(command(folder, tmp_path / "run", **{whose: deaf})) == 2
    assert "not finite in fp32" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    more = changed(folder / whose, tmp_path / "more", lambda t: t.update({spare: torch.ones(2)}))
    assert main(command(folder, tmp_path / "run", **{whose: more})) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if spare in line]
    assert f"{whose}: " in line


def test_a_run_goes_on_in_the_precision_that_it_began_with(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halve = lambda t: t.update({name: value.bfloat16() for name, value in t.items()})  # noqa: E731
    teacher = changed(folder / "teacher", tmp_path / "teacher", halve)
    arguments = {"teacher": teacher, "training__targets": "live"}
    finish(folder, tmp_path / "run", **arguments, teacher_precision="fp32")
    assert main(command(folder, tmp_path / "run", **arguments)) == 2
    assert "teacher_precision (was fp32, is bf16)" in capsys.readouterr().err
    one = json.loads((tmp_path / "run" / "distill.json").read_text())["after"]["kl"]["mean"]
    other = finish(folder, tmp_path / "other", **arguments)["after"]["kl"]["mean"]
    assert other == pytest.approx(one, rel=0.05) and other != one


def test_what_saves_memory_may_change_while_a_run_goes_on(
    whole: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"training__micro_batch": 1, "training__gradient_checkpointing": True}
    assert main(command(folder, whole, **options)) == 0
    assert main(command(folder, whole, training__batch=None)) == 0
    assert "nothing is trained again" in capsys.readouterr().out


def test_tokenizers_that_differ_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = byte_tokenizer()
    other.add_tokens(["more"])
    student = student_with(folder, tmp_path / "student", other)
    assert main(command(folder, tmp_path / "run", student=student)) == 2
    assert "(257 and 258" in capsys.readouterr().err


def test_a_vocabulary_that_lacks_tokens_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_llama(vocabulary=200).save_pretrained(tmp_path / "student")
    assert main(command(folder, tmp_path / "run", student=tmp_path / "student")) == 2
    assert "only padding may differ" in capsys.readouterr().err


def test_a_student_that_does_not_say_what_it_was_cut_from_gets_no_warm_start(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = student_with(folder, tmp_path / "student", byte_tokenizer())
    options = {"student": student, "warm_start__tokens": TOKENS}
    assert main(command(folder, tmp_path / "run", **options)) == 2
    assert "does not say what it was cut from" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    options = {"training__learning_rate": 1e18, "training__clip_norm": 1e30}
    assert main(command(folder, output, checkpoint_seconds=0, **options)) == 1
    error = capsys.readouterr().err
    assert "not finite" in error or "the loss became" in error
    assert "target shards 0" in error and "checkpoint is kept" in error
    assert (output / "checkpoint" / "meta.json").exists()


def test_targets_that_were_damaged_are_written_again(folder: Path, tmp_path: Path) -> None:
    finish(folder, tmp_path / "run")
    expected = weights(tmp_path / "run")
    (tmp_path / "run" / "distill.json").unlink()
    for path in (tmp_path / "run").glob("targets-train*/00000/log_probs.npy"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 0xFF
        path.write_bytes(bytes(data))
    finish(folder, tmp_path / "run")
    assert all(torch.equal(v, weights(tmp_path / "run")[n]) for n, v in expected.items())


def alone(world: World, run: StudentRun) -> None:
    run.train(world, "cpu")


def ray_workers(process_id: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process_id).children(recursive=True):
        try:
            if child.cmdline() and "ray::RayTrainWorker" in child.cmdline()[0]:
                found.append(child)
        except psutil.Error:
            continue
    return found


def until_step(process: Process, output: Path, low: float, high: float) -> None:
    """Wait till the checkpoint is of a step between the two."""
    end = time.monotonic() + PATIENCE
    while not low < step_of(output) < high:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def test_workers_are_given_paths_that_hold_in_any_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def ended(group: WorkerGroup, work: Any, *rest: Any, **named: Any) -> None:
        runs.extend(work.args)
        raise SearchStopped("seen enough")

    monkeypatch.setattr(WorkerGroup, "run", ended)
    monkeypatch.setattr(session, "ray_for_workers", lambda *given, **named: nullcontext(1))
    monkeypatch.chdir(folder)
    assert main(command(Path(), tmp_path / "run", workers__count=2)) == 1
    (run,) = runs
    assert run.assets.teacher == folder / "teacher" and run.student == folder / "student"


@pytest.mark.process
def test_stopped_workers_and_a_killed_one_change_nothing(folder: Path, tmp_path: Path) -> None:
    """Two workers under Ray end where two undisturbed processes do, whatever befalls them.

    Ctrl-C first; then, in the run that goes on, one of them is killed.
    """
    output, steps = tmp_path / "run", 200
    options = {
        "tokens": BLOCK * BATCH * steps,
        "workers__count": 2,
        "workers__cpus": 1,
        "checkpoint_seconds": 0.2,
    }
    arguments = command(folder, output, **options)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    process = served(arguments, logs[0], ENVIRONMENT, DISTILL)
    try:
        until_step(process, output, 0, 0.4 * steps)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130, logs[0].read_text()
        said = logs[0].read_text()
        assert "interrupted: start the same command again" in said and "Traceback" not in said
        process = served(arguments, logs[1], ENVIRONMENT, DISTILL)
        until_step(process, output, 0.5 * steps, 0.9 * steps)
        ray_workers(process.pid)[-1].send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, logs[1].read_text()
    finally:
        process.send_signal(signal.SIGKILL)
    said = logs[1].read_text()
    assert said.count("going on from") == 2, said
    assert "Traceback" not in said

    run = same_run(folder, output, steps, tmp_path / "undisturbed")
    together(2, tmp_path / "store", alone, run)
    expected = load_file(tmp_path / "undisturbed" / "model" / "model.safetensors")
    assert all(torch.equal(v, weights(output)[n]) for n, v in expected.items())


def same_run(folder: Path, output: Path, steps: int, target: Path) -> StudentRun:
    """What the command's workers did, to be done again without Ray."""
    made = {path.name.rsplit("-", 1)[0]: path for path in output.iterdir()}
    settings = json.loads((output / "run.json").read_text())
    return StudentRun(
        student=folder / "student",
        assets=Assets(
            corpus=made["corpus"],
            training_targets=made["targets-train"],
            selection_targets=made["targets-selection"],
            test_targets=made["targets-test"],
            teacher=folder / "teacher",
            vocabulary=257,
            training=ResolvedTraining(**settings["training"]),
            seed=0,
            device="cpu",
        ),
        limits=RunLimits(BLOCK * BATCH * steps, 3, target / "checkpoint"),
        output=target,
        dtype="float32",
    )


def step_of(output: Path) -> int:
    try:
        return int(json.loads((output / "checkpoint" / "meta.json").read_text())["step"])
    except (OSError, ValueError):
        return 0
