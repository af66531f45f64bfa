"""What the project promises of a study that runs to its end, on the demo's real teacher."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

import search.run.study as study
from experiments.run_search import main
from pruning import Architecture, Checkpoint, architecture_of
from search.database.trial_facts import origin_of
from tests.driver import ARCHITECTURES, TEACHER, Driver, progress_within
from tests.surface import files_of, require_recorded

pytestmark = pytest.mark.process

COLUMNS = (
    "number,state,layers,hidden,heads,kv_heads,ffn,parameters,tokens,kl,ce,top1_agreement,seconds,"
    "error"
)


def test_winner_is_a_stock_checkpoint_inside_the_band(undisturbed: Driver) -> None:
    best = undisturbed.workspace / "best"
    model: Any = AutoModelForCausalLM.from_pretrained(best)
    teacher = AutoModelForCausalLM.from_pretrained(TEACHER)
    limit = teacher.num_parameters() // 2
    assert 0.95 * limit <= model.num_parameters() <= limit
    tokenizer = AutoTokenizer.from_pretrained(best)
    prompt = tokenizer("def main():\n", return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert output.shape[1] > prompt.input_ids.shape[1]
    assert (best / "README.md").read_text().count("|") > 20
    facts = json.loads((best / "espalier.json").read_text())
    assert Architecture.from_dict(facts["architecture"]) == architecture_of(model.config)
    assert facts["parameters"] == model.num_parameters()
    assert model.dtype == Checkpoint(TEACHER).config.dtype == torch.bfloat16


def test_every_trial_is_in_the_study_and_in_the_table(undisturbed: Driver) -> None:
    trials = undisturbed.trials()
    table = pd.read_csv(undisturbed.workspace / "trials.csv")
    assert (undisturbed.workspace / "trials.csv").read_text().splitlines()[0] == COLUMNS
    assert list(table.number) == [trial.number for trial in trials] == [0, 1, 2]
    for trial, row in zip(trials, table.itertuples(), strict=True):
        attributes = trial.user_attrs
        assert attributes.keys() >= {"architecture", "parameters", "tokens", "kl", "progress"}
        assert origin_of(trial) == trial.number
        assert progress_within(trial).resumed_tokens == 0
        assert row.tokens == attributes["tokens"] == trial.last_step
        assert trial.last_step is not None
        assert abs(row.kl - trial.intermediate_values[trial.last_step]) < 1e-12
    shapes = {str(trial.user_attrs["architecture"]) for trial in trials}
    assert len(shapes) == len(trials)
    assert len(undisturbed.finished_trials()) == 3


def test_results_hold_the_winner_against_its_baselines(undisturbed: Driver) -> None:
    results = json.loads((undisturbed.workspace / "results.json").read_text())
    winner = results["winners"][0]
    scratch = results["baselines"]["random initialisation"]
    assert scratch["architecture"] == winner["architecture"]
    assert scratch["tokens"] == winner["tokens"] == 4096
    assert winner["test"]["kl"]["high"] < scratch["test"]["kl"]["low"]
    assert results["differences"]["random initialisation"]["high"] < 0
    assert winner["test"]["kl"]["seed_noise_included"] is False
    assert winner["test"]["ce"]["mean"] > results["teacher"]["test"]["ce"]["mean"]
    page = (undisturbed.workspace / "report.html").read_text()
    assert "seed noise not included" in page
    uniform = Architecture.from_dict(results["baselines"]["uniform shrink"]["architecture"])
    drawn = Architecture.from_dict(results["baselines"]["random architecture"]["architecture"])
    assert len({drawn, uniform, Architecture.from_dict(winner["architecture"])}) >= 2
    assert drawn not in {uniform, Architecture.from_dict(winner["architecture"])}
    said = [verdict["text"] for verdict in results["verdicts"]]
    for name in ("uniform shrink", "random architecture", "random initialisation"):
        assert any(name in line for line in said)
    assert any(f"has {ARCHITECTURES} architectures" in line for line in said)
    assert f"result: {said[0]}" in undisturbed.output()
    assert said[0].startswith(str(Architecture.from_dict(winner["architecture"])))
    students = [*results["winners"], *results["baselines"].values()]
    cut = [each for each in students if each["role"] != "random initialisation"]
    assert all(each["zero_shot_kl"] > each["selection_kl"] for each in cut)
    assert scratch["zero_shot_kl"] is None and winner["folder"] == "best"
    assert winner["test"]["bits_per_byte"]["mean"] < 8 * winner["test"]["perplexity"]["mean"]
    (written, *_) = [sample["written"] for sample in results["completions"]]
    assert list(written)[:2] == ["teacher", "winner"] and all(written.values())
    assert results["run"]["command"].startswith("run_search.py --")


def test_what_will_run_is_said_before_the_first_trial(undisturbed: Driver) -> None:
    before, _, after = undisturbed.output().partition("trials: 0 of 3")
    whole, *stages, passes = [line for line in before.splitlines() if "plan: " in line][:6]
    assert "plan: 4 stages, about " in whole and "training tokens are packed" in passes
    assert "12,288 tokens in all" in stages[1] and "evidence short: " in stages[2]
    assert "teacher: perplexity " in before, "beside that of a guess"
    plan = [line for line in before.splitlines() if "plan: " in line][6:]
    assert "3 trials of 4,096 tokens, " in plan[0] and "12,288 in all" in plan[0]
    assert " tokens in all, about " in plan[-1]
    assert "(by the trials)" in after


def test_the_last_lines_say_what_to_do_next(undisturbed: Driver) -> None:
    *_, load, report, more = undisturbed.output().splitlines()
    assert "next: load it by AutoModelForCausalLM.from_pretrained(" in load
    assert f"next: open {undisturbed.workspace / 'report.html'}" in report
    assert "next: the same command with more --trials (now 3) searches on" in more


def test_a_full_run_that_was_a_trial_is_taken_over(undisturbed: Driver) -> None:
    """`test_lost_workspace_is_computed_again` trains it instead: the weights are the same."""
    assert "would repeat a trial step by step" in undisturbed.output()
    full = {
        path.parent.name: json.loads(path.read_text())
        for path in (undisturbed.workspace / "full").glob("*/*-cut-*/done.json")
    }
    results = json.loads((undisturbed.workspace / "results.json").read_text())
    students = [*results["winners"], *results["baselines"].values()]
    shapes = [str(Architecture.from_dict(each["architecture"])) for each in students]
    known = {f"{shape.replace(' ', '-').replace('/', '-')}-cut-seed0-4096" for shape in shapes}
    assert full.keys() <= known, "what no full run would be is deleted"
    first = f"{shapes[0].replace(' ', '-').replace('/', '-')}-cut-seed0-4096"
    assert full[first]["from_trial"] is True
    trained = results["ledger"]["full distillation"]["tokens"]
    assert trained <= 2 * 4096, "the random architecture and random weights, and no trial again"


def test_distillation_lowered_the_kl_of_every_trial(undisturbed: Driver) -> None:
    for trial in undisturbed.trials():
        curve = progress_within(trial).curve
        if len(curve) > 1:
            assert curve[-1].kl < curve[0].kl


def test_checkpoints_of_finished_trials_are_deleted(undisturbed: Driver) -> None:
    assert not list((undisturbed.workspace / "checkpoints").glob("*/*"))


def test_finished_study_is_printed_and_nothing_is_trained(
    undisturbed: Driver,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uploaded: list[tuple[Path, str]] = []
    monkeypatch.setattr(study, "check_target", lambda repo, option: None)
    monkeypatch.setattr(study, "publish", lambda folder, repo: uploaded.append((folder, repo)))
    driver = Driver(tmp_path / "study", undisturbed.corpus)
    shutil.copytree(undisturbed.workspace, driver.workspace)
    before = (driver.workspace / "best" / "model.safetensors").stat().st_mtime_ns
    options = {"resources__concurrent": 2, "evidence": "none", "push_to_hub": "user/name"}
    assert main(driver.arguments(**options)) == 0  # it has more evidence
    assert uploaded == [(driver.workspace / "best", "user/name")]
    said = capfd.readouterr().out
    assert "nothing is trained again" in said
    assert "result: L" in said
    assert "tokens/s" not in said
    assert (driver.workspace / "best" / "model.safetensors").stat().st_mtime_ns == before
    assert len(driver.trials()) == 3


def test_finished_study_goes_on_with_more_trials(extended: Driver, undisturbed: Driver) -> None:
    before, after = undisturbed.trials(), extended.trials()
    assert len(after) == len(extended.finished_trials()) > len(before)
    for old, new in zip(before, after, strict=False):
        assert (old.state, old.user_attrs) == (new.state, new.user_attrs)
    shapes = {str(trial.user_attrs["architecture"]) for trial in after}
    assert len(shapes) == len(after)
    assert "targets: train found" in extended.output()


def test_exhausted_space_is_said_and_is_no_failure(
    extended: Driver, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "the space is exhausted" in extended.output()
    assert json.loads((extended.workspace / "results.json").read_text())["exhausted"]
    assert len(extended.finished_trials()) == ARCHITECTURES < 9
    assert main(extended.arguments(trials=9)) == 0  # full evidence holds the short one
    assert "nothing is trained again" in capfd.readouterr().out


def test_the_second_winners_folder_is_as_complete_as_the_firsts(extended: Driver) -> None:
    best, second = extended.workspace / "best", extended.workspace / "winners" / "2"
    assert {path.name for path in second.iterdir()} == {path.name for path in best.iterdir()}
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (second / name).read_bytes() == (TEACHER / name).read_bytes()
    report = (extended.workspace / "report.html").stat().st_mode
    for path in extended.workspace.rglob("*"):
        assert not path.is_file() or path.stat().st_mode == report, path
    results = json.loads((extended.workspace / "results.json").read_text())
    figures = ModelCard.load(second / "README.md").data.eval_results
    assert figures[0].metric_value == round(results["winners"][1]["checkpoint"]["kl"], 4)
    config = json.loads((second / "config.json").read_text())
    assert config["rope_theta"] == 10000.0 and config["torch_dtype"] == "bfloat16"


def test_a_workspace_has_the_files_that_it_had(extended: Driver) -> None:
    require_recorded("extended", files_of(extended.workspace, 1))
