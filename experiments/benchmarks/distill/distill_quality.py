"""What each choice in distillation is worth: the ablations of the literature that fit a CPU.

    python experiments/benchmarks/distill/distill_quality.py

Students of the demo's teacher, cut by width to half and to 30 % of its parameters or by depth to
half, are distilled for the same tokens under one changed setting at a time, three orders of the
data each, and scored on the test split. Teacher correction is measured on text that the teacher was
not trained on: the C++ headers that come with torch. Can be stopped and started again; writes rows
as they come, then a table and a plot.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from common.files import read_rows
from common.log import plain_lines
from distill import Corpus, Distillation, SplitSizes, TargetFormat, Targets, TrainingData, evaluate
from distill.backend import load
from distill.data import CorpusFiles
from distill.loss import StateSettings
from distill.recipes import BlockAlignment, BlockMap, BlockwiseSettings, CorrectionSettings
from distill.train import LIVE, ResolvedTraining, TrainingSettings
from experiments.benchmarks import rows
from experiments.benchmarks.demo_setting import LIBRARY_FILES
from experiments.benchmarks.preparing import prepared, study_config, uniform_shrink
from pruning import ORDERING_FILE, Architecture, Ordering, architecture_of, parameter_count
from search.config import BudgetConfig
from search.inputs import Inputs
from search.workers import SearchAssets
from workspace.corpus_and_targets import SplitTargets, read_blocks
from workspace.sorted_teacher import SortedTeacher

WIDTH, NARROW, DEPTH = "width 50 %", "width 30 %", "depth 50 %"
BASE = "forward KL, top 64"


@dataclass(frozen=True)
class Arm:
    """One way to distil one student."""

    group: str
    name: str
    student: str = WIDTH
    training: tuple[tuple[str, Any], ...] = ()
    """Settings that differ from the default."""
    form: TargetFormat | None = None
    """How targets are stored; None: top 64, or nothing for a live teacher or text alone."""
    states: str | None = None
    """Distance of intermediate states."""
    warm_share: float = 0.0
    """Share of the tokens that go into block-wise distillation first."""
    corrected: bool | None = None
    """On foreign text, by a teacher that was fitted to it or not; None: on the library."""


def arms(vocabulary: int) -> Iterator[Arm]:
    yield Arm("loss", BASE)
    for name, settings in (
        ("cross-entropy alone", {"loss": "ce"}),
        ("forward KL + 0.5 CE", {"lm_weight": 0.5}),
        ("reverse KL", {"loss": "reverse-kl"}),
        ("Jensen-Shannon", {"loss": "jensen-shannon"}),
        ("MSE of logits", {"loss": "mse"}),
        ("forward KL, average of weights (0.98)", {"average": 0.98}),
        ("forward KL, wsd schedule", {"schedule": "wsd"}),
    ):
        yield Arm("loss", name, training=tuple(settings.items()))
    for heat in (2.0, 4.0):
        form = TargetFormat(vocabulary, 64, heat)
        yield Arm(
            "loss", f"forward KL, temperature {heat:g}", WIDTH, (("temperature", heat),), form
        )
    whole = TargetFormat.whole(vocabulary)
    yield Arm("loss", "MSE of logits, whole distribution", WIDTH, (("loss", "mse"),), whole)
    yield Arm("loss", "reverse KL, whole distribution", WIDTH, (("loss", "reverse-kl"),), whole)
    for k in (4, 16, 256):
        yield Arm("targets", f"top {k} and the rest", form=TargetFormat(vocabulary, k))
    yield Arm("targets", "whole distribution", form=whole)
    for draws in (12, 50, 200):
        yield Arm("targets", f"{draws} draws", form=TargetFormat.sampled(vocabulary, draws))
    for student in (DEPTH, WIDTH):
        live = (("targets", LIVE),)
        yield Arm("states", "logits alone", student, live)
        for distance in ("cosine", "mse"):
            yield Arm("states", f"with states, {distance}", student, live, states=distance)
    for student in (WIDTH, NARROW, DEPTH):
        yield Arm("warm start", "none", student)
        yield Arm("warm start", "a quarter of the tokens", student, warm_share=0.25)
    yield Arm("correction", "teacher as it is", corrected=False)
    yield Arm("correction", "teacher corrected first", corrected=True)


@dataclass(frozen=True)
class Setting:
    """What every process needs."""

    library: SearchAssets
    foreign: dict[bool, SearchAssets]
    """By whether the teacher is corrected."""
    shapes: dict[str, Architecture]
    targets: dict[TargetFormat, Path]
    tokens: int

    def assets(self, arm: Arm) -> SearchAssets:
        """What an arm reads."""
        return self.library if arm.corrected is None else self.foreign[arm.corrected]


def measure(setting: Setting, run_of: tuple[Arm, int]) -> dict[str, Any]:
    """The row of an arm and seed: KL to the teacher and cross-entropy to the text, on test text."""
    arm, seed = run_of
    torch.set_num_threads(1)
    disable_progress_bar()
    assets = setting.assets(arm)
    student: Any = SortedTeacher(assets.sorted_teacher).cut(setting.shapes[arm.student])
    started = time.monotonic()
    warm = int(setting.tokens * arm.warm_share)
    if warm:
        _warm(student, assets, setting.shapes[arm.student], warm, seed)
    run = _distillation(setting, arm, student=student, tokens=setting.tokens - warm, seed=seed)
    run.advance(run.total_steps)
    corpus = Corpus(assets.corpus)
    with run.averaged():
        found = evaluate(student, corpus.blocks("test"), targets=Targets(assets.test_targets))
    return {
        "group": arm.group,
        "name": arm.name,
        "student": arm.student,
        "seed": seed,
        "parameters": student.num_parameters(),
        "tokens": run.tokens + warm,
        "seconds": round(time.monotonic() - started, 1),
        **found.means(),
    }


def _distillation(
    setting: Setting, arm: Arm, *, student: Any, tokens: int, seed: int
) -> Distillation:
    assets = setting.assets(arm)
    training: ResolvedTraining = replace(assets.training, **dict(arm.training))
    states = None if arm.states is None else StateSettings(distance=arm.states)
    data = replace(assets.training_data(), shuffle=seed, hidden_states=states)
    if arm.form is not None:
        data = replace(data, targets=Targets(setting.targets[arm.form]))
    elif training.loss == "ce":
        data = replace(data, targets=None)
    elif training.targets == LIVE:
        data = replace(data, targets=assets.live_teacher())
    return Distillation(student, data, training=training, tokens=tokens)


def _warm(student: Any, assets: SearchAssets, shape: Architecture, tokens: int, seed: int) -> None:
    """Block-wise, against the sorted teacher, of which the student is a prefix."""
    ordering = Ordering.load(assets.sorted_teacher / ORDERING_FILE)
    mapping = BlockMap(tuple(ordering.kept_layers(shape.layers)), tuple(range(shape.hidden)))
    teacher = load(assets.sorted_teacher, torch.float32)
    data = TrainingData(Corpus(assets.corpus).blocks("train"), None, seed)
    settings = BlockwiseSettings(
        tokens, batch=assets.training.batch, precision=assets.training.precision
    )
    run = BlockAlignment(student, teacher, mapping=mapping, data=data, settings=settings)
    run.advance(run.total_steps)


def assets_of(
    options: argparse.Namespace, corpus: str, files: CorpusFiles, folder: str, correction: int
) -> tuple[Inputs, SearchAssets]:
    config = study_config(
        options,
        options.output / folder,
        teacher=str(options.teacher),
        corpus=corpus,
        training=TrainingSettings(batch=options.batch, targets="topk"),
        correction=CorrectionSettings(correction),
        calibration=options.calibration,
        splits=SplitSizes(selection_tokens=4_096, test_tokens=options.test_tokens),
        corpus_files=files,
    )
    inputs = Inputs.read(config)
    return inputs, prepared(inputs, config.workspace)


@plain_lines()
def prepare(options: argparse.Namespace) -> Setting:
    """Corpora, corrected teacher and targets in the output directory, found again next time."""
    inputs, library = assets_of(options, options.corpus, LIBRARY_FILES, "library", 0)
    headers = CorpusFiles(include=["*.h"], exclude=[".*"])
    foreign = {
        corrected: assets_of(options, options.foreign, headers, f"foreign-{tokens}", tokens)[1]
        for corrected, tokens in ((False, 0), (True, options.correction_tokens))
    }
    corpus = Corpus(library.corpus)
    blocks = read_blocks(corpus, options.tokens, batch=options.batch, seed=library.seed)
    targets = {}
    for form in {arm.form for arm in arms(library.vocabulary)} - {None}:
        assert form is not None
        name = "-".join(str(value) for value in asdict(form).values())
        targets[form] = options.output / "library" / f"forms-{name}"
        teacher = partial(inputs.teacher.load, inputs.device)
        wanted = SplitTargets(blocks, form, targets[form], split=form.describe_itself())
        wanted.stored(teacher)
    return Setting(library, foreign, shapes(inputs), targets, options.tokens)


def shapes(inputs: Inputs) -> dict[str, Architecture]:
    """Half and 30 % of the parameters by width, about half by depth."""
    config, whole = inputs.teacher.config, architecture_of(inputs.teacher.config)
    found = {}
    for name, share in ((WIDTH, 0.5), (NARROW, 0.3)):
        options = replace(inputs.config, budget=BudgetConfig(share), calibration=1)
        found[name] = uniform_shrink(Inputs.read(options))
    depths = [replace(whole, layers=count) for count in range(1, whole.layers + 1)]
    goal = 0.5 * int(parameter_count(config, whole))
    found[DEPTH] = min(depths, key=lambda shape: abs(int(parameter_count(config, shape)) - goal))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    torch_headers = Path(torch.__file__).parent / "include"
    rows.add_options(parser, ROOT / "runs" / "distill_quality")
    parser.add_argument("--foreign", default=str(torch_headers), help="text for the correction")
    parser.add_argument("--correction_tokens", type=int, default=262_144)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    setting = prepare(options)
    file = rows.file_of(options)
    done = {(row["group"], row["name"], row["student"], row["seed"]) for row in read_rows(file)}
    names = arms(setting.library.vocabulary)
    runs = [(arm, seed) for arm in names for seed in range(options.seeds)]
    rows.measure_missing(
        sorted(runs, key=lambda run: run[1]),
        partial(measure, setting),
        options=options,
        known=lambda run: (run[0].group, run[0].name, run[0].student, run[1]) in done,
        line=lambda row: (
            f"{row['student']} {row['group']}: {row['name']} seed {row['seed']}: KL "
            f"{row['kl']:.4f} CE {row['ce']:.4f} ({row['seconds']:.0f} s)"
        ),
    )
    from experiments.benchmarks.distill.distill_report import report

    report(file, options.output)


if __name__ == "__main__":
    main()
