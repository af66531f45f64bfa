"""What a user can get wrong: one sentence, exit status 2, nothing trained, nothing left behind.

Everything goes through the real command; it is stopped where Ray would start.
"""

import collections
import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, MambaConfig, PreTrainedTokenizerFast

import search.run.session
from common.errors import SearchStopped
from experiments.run_search import main
from search.database.lease import locked
from tests.byte_llama import write_byte_llama

ROOT = Path(__file__).resolve().parents[1]
REACHED = "the trials would start here"
ROWS = b'{"text": "some words"}\n' * 900


@pytest.fixture(autouse=True)
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is accepted ends, with status 1, where its trials would start."""

    @contextlib.contextmanager
    def stop(*_: Any, **__: Any) -> Iterator[None]:
        raise SearchStopped(REACHED)
        yield

    monkeypatch.setattr(search.run.session, "ray_cluster", stop)
    monkeypatch.delenv("ESPALIER_STORAGE", raising=False)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer."""
    return write_byte_llama(tmp_path_factory.mktemp("inputs") / "teacher", layers=3)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "corpus.txt"
    path.write_text(
        "\n\n".join(f"Paragraph {n} says {n * n} and then {n % 7}." for n in range(400))
    )
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def start(
    teacher: Path, corpus: Path, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command with small, good options, changed by those given; None drops one."""

    def run(**changes: Any) -> tuple[int, str, str]:
        options = {
            "teacher": teacher,
            "corpus": corpus,
            "workspace": workspace,
            "block": 16,
            "short_tokens": 64,
            "full_tokens": 128,
            "calibration": 4,
            "trials": 2,
            "training.batch": 1,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        shown = capfd.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture
def refused(start: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """The one line that the command says when it refuses."""

    def run(**changes: Any) -> str:
        status, out, err = start(**changes)
        check_refusal(status, out, err)
        return err

    return run


@pytest.fixture
def accepted(start: Callable[..., tuple[int, str, str]]) -> Callable[..., None]:
    def run(**changes: Any) -> None:
        status, _, err = start(**changes)
        assert (status, err) == (1, f"stopped: {REACHED}\n")

    return run


def add_a_trial(storage: str) -> None:
    """As if the study had tried something: from then on it depends on its settings."""
    study = optuna.load_study(study_name="espalier", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))


def check_refusal(status: int, out: str, err: str) -> None:
    assert status == 2, err
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert len(err) < 400, err
    assert "Traceback" not in out + err


Refused = Callable[..., str]
Accepted = Callable[..., None]


def copied(teacher: Path, target: Path) -> Path:
    shutil.copytree(teacher, target)
    return target


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_good_input_is_accepted(accepted: Accepted) -> None:
    accepted()


# The teacher


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "nobody/nothing", ""])
def test_no_teacher(refused: Refused, workspace: Path, name: str) -> None:
    line = refused(teacher=name)
    assert name in line
    assert not workspace.exists()


def test_teacher_without_config(refused: Refused, teacher: Path, tmp_path: Path) -> None:
    directory = copied(teacher, tmp_path / "t")
    (directory / "config.json").unlink()
    assert "no config.json" in refused(teacher=directory)
    (directory / "config.json").write_text("{ not json")
    assert "config.json" in refused(teacher=directory)


def test_teacher_is_a_file(refused: Refused, corpus: Path) -> None:
    assert "no folder" in refused(teacher=corpus)


def test_not_a_causal_language_model(refused: Refused, teacher: Path, tmp_path: Path) -> None:
    directory = copied(teacher, tmp_path / "t")
    edit_config(directory, architectures=["LlamaForSequenceClassification"])
    line = refused(teacher=directory)
    assert "LlamaForSequenceClassification" in line
    assert "ForCausalLM" in line


@pytest.mark.parametrize(("config", "kind"), [(MambaConfig(), "mamba"), (BertConfig(), "bert")])
def test_unsupported_model_type(
    refused: Refused, workspace: Path, tmp_path: Path, config: Any, kind: str
) -> None:
    config.save_pretrained(tmp_path / "t")
    line = refused(teacher=tmp_path / "t")
    assert f"'{kind}'" in line
    assert "have no row in the table of families, and none could be inferred: " in line
    assert not workspace.exists()


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def drop(directory: Path) -> None:
    edit_weights(directory, lambda t: t.__delitem__("model.layers.1.mlp.up_proj.weight"))


def poison(directory: Path) -> None:
    edit_weights(directory, lambda t: t.update({"model.norm.weight": torch.full((32,), torch.nan)}))


def add(directory: Path) -> None:
    edit_weights(directory, lambda t: t.update({"model.surprise": torch.zeros(2)}))


def reshape(directory: Path) -> None:
    edit_weights(directory, lambda t: t.update({"model.norm.weight": torch.ones(31)}))


def forget(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "model.safetensors is damaged"),
        (drop, "lacks the tensor model.layers.1.mlp.up_proj.weight"),
        (poison, "model.norm.weight .* not finite"),
        (reshape, r"model.norm.weight .* \(31,\).* \(32,\)"),
        (forget, "no model.safetensors"),
    ],
)
def test_broken_weights(
    refused: Refused,
    teacher: Path,
    tmp_path: Path,
    workspace: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    directory = copied(teacher, tmp_path / "t")
    damage(directory)
    assert re.search(said, refused(teacher=directory))
    assert not workspace.exists()


def test_tensors_without_a_use_are_named_and_left_out(
    start: Callable[..., tuple[int, str, str]], teacher: Path, tmp_path: Path
) -> None:
    directory = copied(teacher, tmp_path / "t")
    add(directory)
    status, out, err = start(teacher=directory)
    assert (status, err) == (1, f"stopped: {REACHED}\n")
    assert "no use for left out: model.surprise" in out


def test_a_teacher_that_cannot_answer_is_refused_before_anything_is_written(
    refused: Refused, teacher: Path, tmp_path: Path, workspace: Path
) -> None:
    directory = copied(teacher, tmp_path / "t")
    edit_config(directory, rope_parameters={"rope_type": "default", "rope_theta": 0})
    assert "not finite in fp32" in refused(teacher=directory)
    assert not workspace.exists()


def test_tokens_without_an_embedding(
    refused: Refused, accepted: Accepted, teacher: Path, corpus: Path, tmp_path: Path
) -> None:
    directory = copied(teacher, tmp_path / "t")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.add_tokens(["<|im_start|>", "<|pad|>"])
    tokenizer.save_pretrained(directory)
    accepted(teacher=directory)
    marked = tmp_path / "marked.txt"
    marked.write_text(corpus.read_text().replace("says", "<|im_start|>says"))
    line = refused(teacher=directory, corpus=marked)
    assert "'<|im_start|>' (number 257)" in line
    assert "257 tokens are known to the teacher" in line
    assert "<|im_start|>" in refused(teacher=directory, corpus=marked)  # the corpus is packed now


def test_a_study_goes_on_in_the_precision_that_it_began_with(
    refused: Refused, accepted: Accepted, teacher: Path, tmp_path: Path, workspace: Path
) -> None:
    directory = copied(teacher, tmp_path / "t")
    edit_weights(directory, lambda t: t.update({n: v.bfloat16() for n, v in t.items()}))
    accepted(teacher=directory, teacher_precision="fp32")
    add_a_trial(f"sqlite:///{workspace / 'study.db'}")
    targets = set(workspace.glob("targets-*"))
    assert "teacher_precision (was fp32, is bf16)" in refused(teacher=directory)
    accepted(teacher=directory, teacher_precision="fp32")
    assert set(workspace.glob("targets-*")) == targets
    accepted(teacher=directory, workspace=tmp_path / "other")
    others = {path.name for path in (tmp_path / "other").glob("targets-*")}
    assert len(others) == len(targets) and not others & {path.name for path in targets}


def test_no_tokenizer(refused: Refused, teacher: Path, tmp_path: Path) -> None:
    directory = copied(teacher, tmp_path / "t")
    (directory / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused(teacher=directory)
    for path in directory.glob("tokenizer*"):
        path.unlink()
    line = refused(teacher=directory)
    assert str(directory) in line
    assert "no tokenizer" in line


def test_tokenizer_of_another_model(refused: Refused, teacher: Path, tmp_path: Path) -> None:
    directory = copied(teacher, tmp_path / "t")
    edit_config(directory, vocab_size=200)
    line = refused(teacher=directory)
    assert "257" in line
    assert "200" in line


# The corpus


@pytest.mark.parametrize("name", ["/no/such/text.txt", "missing.txt", "nobody/nothing"])
def test_no_corpus(refused: Refused, workspace: Path, name: str) -> None:
    assert name in refused(corpus=name)
    assert not workspace.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "no document"),
        ("blank.txt", b" \n\n \n", "no document"),
        ("latin.txt", "caf\u00e9 ".encode("latin-1") * 400, "not UTF-8"),
        ("rows.jsonl", b'{"body": "no text here"}\n', "'text'"),
        ("numbers.jsonl", b'{"text": 5}\n', "'text'"),
        ("broken.jsonl", b'{"text": "a"\n{{{\n', "broken.jsonl"),
        ("none.jsonl", b"", "none.jsonl"),
        ("rows.jsonl.gz", gzip.compress(b'{"body": "x"}\n', mtime=0), "'text'"),
        ("cut.jsonl.gz", gzip.compress(ROWS, mtime=0)[:-20], "cut.jsonl.gz"),
        ("broken.parquet", b"PAR1 no table", "broken.parquet"),
    ],
)
def test_unreadable_corpus(
    refused: Refused, workspace: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    line = refused(corpus=path)
    assert said in line
    assert name in line
    assert not workspace.exists()


def test_a_folder_without_matching_files(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.doc").write_text("hello")
    assert f"{folder} is empty" in refused(corpus=folder)


def test_a_corpus_that_is_too_small(
    refused: Refused, accepted: Accepted, corpus: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.txt"
    path.write_text("\n\n".join(corpus.read_text().split("\n\n")[:12]))
    line = refused(corpus=path)
    assert "too small" in line
    assert "blocks of 16" in line
    accepted()  # the study is not bound to the corpus that was refused


# Budget, space and other settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget.parameters": "1.5"}, "--budget.parameters is 1.5"),
        ({"budget.parameters": "1e12"}, "--budget.parameters is 1e+12, above the teacher's own"),
        ({"budget.parameters": "0"}, "--budget.parameters is 0"),
        ({"budget.parameters": "nan"}, "--budget.parameters is 'nan'; it must be a number above 0"),
        ({"budget.tolerance": "1"}, "--budget.tolerance is 1"),
        ({"budget.parameters": "0.01"}, "the nearest is L1 H"),
        ({"space.heads": "[3]"}, "--space.heads has 3; it must be a multiple of the 2"),
        ({"space.heads": "[8]"}, "--space.heads has 8; it must be between 1 and 4"),
        ({"space.layers": "[0]"}, "--space.layers has 0"),
        ({"space.hidden": "[]"}, "--space.hidden is empty"),
        ({"space.ffn": "[64,128,64]"}, "--space.ffn has 128"),
        ({"space.layers": "[3]", "space.ffn": "[64]", "space.hidden": "[32]"}, "--space"),
        ({"nonsense": "1"}, "nonsense"),
        ({"trials": "many"}, "--trials is many; it must be of type int"),
        ({"trials": "0"}, "--trials is 0"),
        ({"winners": "-1"}, "--winners is -1"),
        ({"seed": "-1"}, "--seed is -1"),
        ({"seeds": "0"}, "--seeds is 0"),
        ({"evidence": "some"}, "--evidence is 'some'; it must be one of short, full, none"),
        ({"evidence": "none", "scratch_tokens": "9999999"}, "--evidence none runs nothing"),
        ({"teacher": None}, "teacher"),
        ({"corpus": None}, "corpus"),
        ({"importance.score": "best"}, "--importance.score is 'best'; it must be one of"),
        ({"importance.layers": "best"}, "--importance.layers is 'best'; it must be one of"),
        ({"importance.least_layers.heads": "2"}, "--importance.least_layers has heads: 2"),
        ({"importance.least_layers.attention": "2"}, "all layers of the teacher are of one kind"),
        ({"sampler.name": "best"}, "--sampler.name is 'best'; it must be one of"),
        ({"sampler.name": "no.such:Sampler"}, "--sampler.name is 'no.such:Sampler', which cannot"),
        ({"halving.stopper": "best"}, "--halving.stopper is 'best'; it must be one of"),
        ({"halving.stopper": "no.such:Pruner"}, "--halving.stopper is 'no.such:Pruner', which"),
        ({"halving.stopper": "optuna.samplers:RandomSampler"}, "no optuna BasePruner"),
        (
            {"halving.stopper": "optuna.pruners:NopPruner", "objectives": "[kl, parameters]"},
            "pruners take one objective only, not kl, parameters",
        ),
        ({"objectives": "[kl, speed]"}, "--objectives has 'speed'; it must be kl, parameters"),
        ({"objectives": "[parameters]"}, "kl must be among them"),
        ({"objectives": "[kl, kl]"}, "--objectives names one twice"),
        ({"objectives": "[kl, task:x]"}, "task:x, but --tasks names no folder"),
        ({"objectives": "[kl, flops, memory, active]"}, "at most 3"),
        ({"family": "[0.25, 0.5]"}, "--family is 0.25 0.5; give different shares, the largest"),
        ({"family": "[0.5]"}, "--family is 0.5; give two shares or more"),
        ({"family": "[1.5, 0.5]"}, "--family has 1.5"),
        ({"family": "[0.9, 0.5]", "objectives": "[kl, flops]"}, "give one of them"),
        ({"family": "[0.9, 0.5]", "budget.memory": "0.5"}, "--family and --budget are both given"),
        ({"family": "[0.9, 0.01]"}, "the nearest is"),
        ({"space.per_layer": "[heads]"}, "--space.per_layer has 'heads'; it must be any of"),
        ({"space.per_layer": "[ffn, ffn]"}, "--space.per_layer has ffn ffn; each sub-block may be"),
        ({"per_layer.tokens": "5"}, "--space.per_layer names no sub-block that does"),
        ({"family": "[0.9, 0.5]", "space.per_layer": "[ffn]"}, "--family and --space.per_layer"),
        (
            {"space.per_layer": "[ffn]", "per_layer.ffn_shares": "[1, 0.5]", "space.layers": "[3]"}
            | {"budget.parameters": "0.45"},
            "no combination of blocks of --space.per_layer meets the budget",
        ),
        ({"budget.memory": "8QB"}, "--budget.memory is '8QB'"),
        ({"budget.flops": "[0.5, 0.4]"}, "--budget.flops is [0.5, 0.4]; the first end"),
        ({"budget.parameters": "[0.4, 0.5]", "budget.flops": "0.01"}, "the nearest is"),
        ({"budget.decode_ms": "1", "budget.decode_tokens_per_second": "9"}, "limit the same"),
        ({"budget.latency_table": "/no/such.csv", "budget.decode_ms": "1"}, "/no/such.csv cannot"),
        ({"funnel.keep": "0"}, "--funnel.keep is 0"),
        ({"task_questions": "0"}, "--task_questions is 0"),
        (
            {"family": "[0.9, 0.5]", "halving.stopper": "optuna.pruners:NopPruner"},
            "would compare the members of --family with each other",
        ),
        (
            {"objectives": "[kl, task:typo]", "tasks": "experiments/demo/tasks"},
            "task:typo, but experiments/demo/tasks has the tasks next_line",
        ),
        ({"time_budget": "soon"}, "--time_budget is 'soon'; it must be a time above 0"),
        ({"scratch_tokens": "1"}, "--scratch_tokens is 1; it must be at least --full_tokens"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"teacher_precision": "half"}, "--teacher_precision is 'half'; it must be one of file, f"),
        (
            {"spread": "true", "training.targets": "live"},
            "fits no single device, and --training.targets live needs it on one",
        ),
        ({"block": "65"}, "--block is 65, but the teacher has only 64 positions"),
        ({"block": "2"}, "--block is 2"),
        ({"short_tokens": "15"}, "--short_tokens is 15, less than one block of 16"),
        ({"training.batch": "8"}, "--short_tokens is 64, less than one step of 128"),
        ({"full_tokens": "32"}, "--full_tokens is 32; it must be at least --short_tokens (64)"),
        ({"training.learning_rate": "-1"}, "learning_rate is -1"),
        ({"training.precision": "fp8"}, "precision is 'fp8'"),
        ({"splits.test_share": "0.5"}, "test_share is 0.5"),
        ({"halving.first_share": "1"}, "--halving.first_share is 1"),
        ({"resources.cpus": "4096"}, "--resources.cpus is 4096, but this machine has"),
        ({"resources.concurrent": "4096"}, "--resources.concurrent is 4096"),
        ({"resources.workers": "4096"}, "--resources asks for 4096 CPUs and 0 GPUs per trial"),
        ({"full_workers": "4096"}, "--full_workers is 4096, but no node has 4096 CPUs"),
        ({"resources.gpus": "-1"}, "--resources.gpus is -1"),
        ({"resources.memory_gb": "0"}, "--resources.memory_gb is 0.0; it must be above 0"),
        ({"tasks": "/no/such/tasks"}, "--tasks has /no/such/tasks, which is no folder"),
        ({"tasks": "[hellaswag, hellaswag]"}, "--tasks has hellaswag twice; give it once"),
        ({"study": ""}, "--study is empty"),
        (
            {"export": "[padded]"},
            "--export has padded, but --space.per_layer lets no layers differ",
        ),
        (
            {"export": "[gguf]", "space.per_layer": "[ffn]"},
            "--export has 'gguf'; it must be any of padded, decilm",
        ),
        ({"targets_gb": "0.000001"}, "above --targets_gb 1e-06"),
        ({"storage": "oracle9://host/db"}, "'oracle9'"),
        ({"storage": "mssql://host/db"}, "'mssql', which a study cannot be kept in; use sqlite,"),
        ({"storage": "mysql+nosuch://host/db"}, "unknown driver 'nosuch' of mysql"),
        ({"storage": "sqlite://"}, "--storage names a database in memory"),
        ({"storage": "study.db"}, "sqlite:///FILE.db"),
        ({"storage": "sqlite:////dev/null/below/study.db"}, "/dev/null/below"),
        ({"config": "/no/such/config.yaml"}, "/no/such/config.yaml"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be(refused: Refused, changes: dict[str, Any], said: str) -> None:
    assert said in refused(**changes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("budget: [unclosed", "config"),
        ("trials: [1, 2]", "trials"),
        ("no_such_option: 1", "no_such_option"),
        ("budget:\n  nonsense: 1", "nonsense"),
        ("just words", "config"),
    ],
)
def test_config_files_that_cannot_be(
    refused: Refused, tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    assert said in refused(config=path, trials=None if "trials" in content else 2)


def test_cheap_checks_come_before_reading_the_weights(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pruning

    def read(*_: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(pruning.Checkpoint, "check", read)
    refused(**{"budget.parameters": 0.01})
    refused(block=65)
    refused(corpus="/no/such/text")


# Storage, study and workspace


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/studies",
        "postgresql://127.0.0.1:1/studies?password=hunter2",
        "mariadb://me:hunter2@127.0.0.1:1/studies",
        "nosuchdb://me:hunter2@127.0.0.1/studies",
        "me:hunter2@127.0.0.1",
    ],
)
def test_a_password_is_never_shown(
    start: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ESPALIER_STORAGE", url)
    status, out, err = start()
    check_refusal(status, out, err)
    assert "hunter2" not in out + err
    assert "ESPALIER_STORAGE" not in os.environ
    if url.startswith("postgresql"):
        status, out, err = start(storage=url)
        check_refusal(status, out, err)
        assert "hunter2" not in out + err
        assert "ESPALIER_STORAGE" in err


def test_a_study_made_with_other_settings(
    refused: Refused, accepted: Accepted, workspace: Path
) -> None:
    accepted()
    add_a_trial(f"sqlite:///{workspace / 'study.db'}")
    line = refused(seed=5)
    assert "seed (was 0, is 5)" in line
    assert "budget" not in line
    line = refused(**{"budget.parameters": 0.6, "short_tokens": 80})
    assert "budget (was " in line
    assert "short_tokens (was 64, is 80)" in line
    assert "served (was batch 1" in refused(**{"budget.batch": 2})
    assert "settings: per_layer (was not given, is given); put" in refused(
        **{"space.per_layer": "[ffn]"}
    )
    accepted()


def test_what_may_change_in_a_study(accepted: Accepted, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    accepted(storage=storage, trials=2, training__batch=None)
    add_a_trial(storage)
    accepted(storage=storage, trials=3, training__batch=None, winners=1, full_tokens=4096 * 16)
    accepted(storage=storage, training__batch=None, workspace=tmp_path / "elsewhere")
    accepted(storage=storage, training__batch=None, max_retries=5, resources__concurrent=1)
    accepted(storage=storage, training__batch=None, evidence="full", seeds=2)


def test_a_workspace_in_use(refused: Refused, accepted: Accepted, workspace: Path) -> None:
    workspace.mkdir()
    with locked(workspace):
        assert str(workspace) in refused()
    accepted()


@pytest.mark.parametrize("below", ["", "below"])
def test_a_workspace_that_cannot_be(refused: Refused, tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    line = refused(workspace=file / below)
    assert str(file) in line
    assert "--workspace" in line
    assert file.read_text() == "kept"


def test_a_full_disk(
    refused: Refused, accepted: Accepted, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = collections.namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
        line = refused()
    assert str(workspace) in line
    assert "1.0 kB left" in line
    assert not list(workspace.glob("targets-*"))
    accepted()


def test_targets_that_are_too_large(refused: Refused, accepted: Accepted, workspace: Path) -> None:
    assert "--targets_gb" in refused(targets_gb=1e-6)
    assert not list(workspace.glob("targets-*"))
    accepted()


# The command itself


def command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments/run_search.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.process
def test_the_command_in_a_process_of_its_own(corpus: Path, workspace: Path) -> None:
    status, out, err = command(
        "--teacher=/no/such/folder", f"--corpus={corpus}", f"--workspace={workspace}"
    )
    check_refusal(status, out, err)
    assert "/no/such/folder" in err
    assert all("loading " in line for line in out.splitlines())  # said where that takes long
    assert not workspace.exists()


@pytest.mark.process
def test_help_has_a_sentence_for_every_option() -> None:
    status, out, err = command("--help")
    assert (status, err) == (0, "")
    options = re.split(r"\n  (?=-)", out.split("\noptions:", 1)[1])[1:]
    assert len(options) > 40
    for option in options:
        name = option.split()[0].rstrip(",")
        text = re.sub(r"\s+", " ", re.sub(r"\((required, )?type: .*", "", option, flags=re.DOTALL))
        sentence = re.sub(r"^-\S+(,? -\S+)*( [A-Z_\[\],.{}a-z0-9]+)?( \.\.\.\]*)?", "", text)
        assert len(sentence.split()) >= 2, f"{name} has no help: {option}"
