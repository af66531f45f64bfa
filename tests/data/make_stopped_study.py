"""Make a study and a distillation that are stopped in the middle, and what comes of them.

    python -m tests.data.make_stopped_study                       # anew, in stopped_study/
    python -m tests.data.make_stopped_study --finish DIRECTORY    # copies, finished there

It is made with the version that the README there names, and never with a later one: it is there to
show that later ones go on with it.
"""

import argparse
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import optuna
import psutil
import torch
from optuna.trial import FrozenTrial
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.byte_llama import byte_tokenizer
from tests.driver import ENVIRONMENT, PATIENCE, ROOT

DATA = Path(__file__).with_name("stopped_study")
STEPS = 64
INTERRUPTED = "trial-0004"
LEFT_OUT = ("corpus-*", "targets-*", "full", "ray", "tensorboard", ".lock", "*.log")
"""Of a workspace: what is computed again, and what is nobody's."""


def search_arguments(workspace: Path, data: Path = DATA) -> list[str]:
    """Options of run_search.py."""
    return [f"--config={data / 'search.yaml'}", *_given(data), f"--workspace={workspace}"]


def distill_arguments(output: Path, data: Path = DATA) -> list[str]:
    """Options of run_distill.py."""
    student = f"--student={data / 'student'}"
    return [f"--config={data / 'distill.yaml'}", *_given(data), student, f"--output={output}"]


def _given(data: Path) -> list[str]:
    return [f"--teacher={data / 'teacher'}", f"--corpus={data / 'texts.jsonl'}"]


def trials_of(workspace: Path) -> list[FrozenTrial]:
    """Every trial of the study, in order."""
    storage = f"sqlite:///{workspace / 'study.db'}"
    return optuna.load_study(study_name="stopped", storage=storage).get_trials()


def prepared(directory: Path) -> list[str]:
    """Names of what is computed before training and depends on content alone."""
    patterns = ("importance-*", "sorted-*", "targets-*")
    return sorted(path.name for pattern in patterns for path in directory.glob(pattern))


def write_models() -> None:
    """Write a teacher with a byte-level tokenizer, a student of its own weights, and a text."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    for name, hidden, ffn, layers in (("teacher", 24, 40, 4), ("student", 16, 24, 2)):
        config = LlamaConfig(
            vocab_size=257,
            hidden_size=hidden,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            max_position_embeddings=32,
            initializer_range=0.2,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
        model = LlamaForCausalLM(config)
        with torch.no_grad():  # the second layer does little, so that it is the first to go
            model.model.layers[1].self_attn.o_proj.weight *= 0.3
            model.model.layers[1].mlp.down_proj.weight *= 0.3
        model.save_pretrained(DATA / name)
        tokenizer.save_pretrained(DATA / name)
    words = ["root", "stem", "leaf", "bud", "branch", "graft", "frame", "wall"]
    words += ["sun", "rain", "spring", "fruit"]
    random = Random(0)
    texts = [" ".join(random.choices(words, k=9)) + "." for _ in range(320)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (DATA / "texts.jsonl").write_text("".join(lines), encoding="utf-8")


def killed_in_the_middle(script: str, arguments: list[str], reached: Callable[[], int]) -> None:
    """Run a command until `reached` says a step in the middle, and kill it with its processes."""
    command = [sys.executable, str(ROOT / "experiments" / script), *arguments]
    process = subprocess.Popen(
        [*command, "--checkpoint_seconds=0"], env=ENVIRONMENT, cwd=ROOT, start_new_session=True
    )
    end = time.monotonic() + PATIENCE
    while not STEPS // 2 < reached() < STEPS - 8:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:  # at once: a worker may be in the middle of writing
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family[1:])


def step_of(checkpoint: Path) -> int:
    try:
        return int(json.loads((checkpoint / "meta.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


def strip(directory: Path) -> None:
    """Leave out what is computed again and the name of the machine, whose driver is long dead."""
    for pattern in LEFT_OUT:
        for path in directory.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    database = directory / "study.db"
    if not database.exists():
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        where = "WHERE key LIKE 'driver:%' AND value_json != 'null'"
        table = "study_user_attributes"
        for row, text in connection.execute(
            f"SELECT study_user_attribute_id, value_json FROM {table} {where}"
        ).fetchall():
            lease = json.loads(text) | {"host": "elsewhere", "boot_id": "", "renewed": 0.0}
            connection.execute(
                f"UPDATE {table} SET value_json = ? WHERE study_user_attribute_id = ?",
                (json.dumps(lease), row),
            )
        connection.execute("VACUUM")


def finish(root: Path) -> tuple[Path, Path]:
    """Finish copies of both in `root` with this checkout; returns study and run."""
    from experiments.run_distill import main as run_distill
    from experiments.run_search import main as run_search

    study, run = root / "study", root / "run"
    shutil.copytree(DATA / "study", study)
    shutil.copytree(DATA / "run", run)
    torch.set_num_threads(1)
    assert run_search(search_arguments(study)) == 0
    assert run_distill(distill_arguments(run)) == 0
    return study, run


def record(study: Path, run: Path) -> None:
    """Keep what came of both."""
    for name, weights in (("study", study / "best"), ("run", run / "student")):
        save_file(load_file(weights / "model.safetensors"), DATA / f"{name}.safetensors")
    (winner,) = json.loads((study / "results.json").read_text())["winners"]
    distilled = json.loads((run / "distill.json").read_text())
    facts = {
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name,
                "architecture": trial.user_attrs["architecture"],
                "curve": trial.user_attrs["progress"]["curve"],
                "attributes": sorted(trial.user_attrs),
            }
            for trial in trials_of(study)
        ],
        "winner": winner["architecture"],
        "winner_test_kl": winner["test"]["kl"]["mean"],
        "distilled_test_kl": distilled["after"]["kl"]["mean"],
        "prepared": {"study": prepared(study), "run": prepared(run)},
    }
    (DATA / "finished.json").write_text(json.dumps(facts, indent=2) + "\n")


def make() -> None:
    """Write models and text where there are none, stop both, and record how they end."""
    if not (DATA / "teacher").exists():
        write_models()
    study, run = DATA / "study", DATA / "run"
    for directory in (study, run):
        shutil.rmtree(directory, ignore_errors=True)
    killed_in_the_middle(
        "run_search.py",
        search_arguments(study),
        lambda: max([0, *map(step_of, study.glob(f"checkpoints/*/{INTERRUPTED}"))]),
    )
    strip(study)
    killed_in_the_middle(
        "run_distill.py", distill_arguments(run), lambda: step_of(run / "checkpoint")
    )
    strip(run)
    with tempfile.TemporaryDirectory() as scratch:
        record(*finish(Path(scratch)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--finish", type=Path, metavar="DIRECTORY", help="new directory")
    finished = parser.parse_args().finish
    if finished is None:
        make()
    else:
        finish(finished)


if __name__ == "__main__":
    main()
