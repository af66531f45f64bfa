"""Student sources: the checkpoint, or the trial of a search, that a run begins with."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from common.errors import SearchError
from common.files import write_directory_atomically
from common.fingerprint import fingerprint
from common.given_paths import trial_of
from distill.recipes import BlockMap
from distill.train import gathered_weights, write_model
from pruning import Architecture, Checkpoint
from pruning.families import raw_config, write_config
from workspace.layout import Workspace
from workspace.models.cut_facts import CUT_FACTS, facts_of_cut, write_cut_facts
from workspace.models.model_source import ModelSource
from workspace.sorted_teacher import SortedTeacher


def student_named(name: str, workspace: Workspace) -> ModelSource:
    """The student `name`; that of a trial is cut into `workspace` first.

    Raises SearchError or PruningError where there is no such student.
    """
    trial = trial_of(name)
    if trial is not None:
        study, number = trial
        return ModelSource(_cut_trial(Workspace(study), number, workspace=workspace))
    return ModelSource.located(name, role="student")


def own_tokenizer(student: ModelSource) -> PreTrainedTokenizerBase | None:
    """The tokenizer that lies beside the student's weights, if one does."""
    if not (student.directory / "tokenizer_config.json").exists():
        return None
    return student.tokenizer


def block_map(student: ModelSource) -> BlockMap:
    """Which parts of the teacher a student was cut from.

    Raises SearchError where it does not say.
    """
    try:
        facts = facts_of_cut(student.directory)
        return BlockMap(tuple(facts["kept_layers"]), tuple(facts["kept_channels"]))
    except (TypeError, KeyError) as problem:
        raise SearchError(
            f"{student.directory} does not say what it was cut from ({CUT_FACTS}), which "
            "--warm_start.tokens needs; give a student that run_prune.py wrote, or a trial, or "
            "leave the warm start out"
        ) from problem


def _cut_trial(study: Workspace, number: int, *, workspace: Workspace) -> Path:
    """Cut the student of a trial of `study` into `workspace`, as it was before its first step."""
    if not study.trials_table.exists():
        raise SearchError(
            f"{study.root} has no {study.trials_table.name}; give the workspace of a search"
        )
    import pandas as pd  # here, since workers begin with this module and read no table

    table = pd.read_csv(study.trials_table)
    rows = table[table.number == number]
    if rows.empty or pd.isna(rows.iloc[0].layers):
        known = ", ".join(str(n) for n in table[table.layers.notna()].number)
        raise SearchError(f"{study.root} has no trial {number}; it has {known}")
    shape = Architecture.from_dict(rows.iloc[0].dropna().to_dict())
    source = _sorted_teacher(study)
    made_of = [source.directory.name, shape.to_dict()]
    if shape.per_layer and source.library is not None:
        made_of.append(source.library.name)
    name = fingerprint(*made_of)
    directory = workspace.trial_student(number, name)
    if directory.exists():
        return directory
    workspace.make()
    student, dtype = source.cut(shape), Checkpoint(source.directory).dtype
    facts = {
        "architecture": shape.to_dict(),
        "kept_layers": source.kept_layers(shape),
        "kept_channels": source.ordering.hidden[: shape.hidden].tolist(),
    }

    def fill(aside: Path) -> None:
        write_model(student, gathered_weights(student, dtype), aside)
        write_config(aside, raw_config(source.directory), Checkpoint(aside).config)
        write_cut_facts(aside, facts)

    write_directory_atomically(directory, fill)
    return directory


def _sorted_teacher(study: Workspace) -> SortedTeacher:
    """The one that the trials of a study were cut out of."""
    family = study.root.parent.name == "family"  # a member's trials are cut from the teacher too
    root = study.root.parents[1] if family else study.root
    directories = sorted(root.glob("sorted-*"))
    if len(directories) > 1 and study.results.exists():
        named = root / json.loads(study.results.read_text())["sorted_teacher"]
        directories = [directory for directory in directories if directory == named]
    if len(directories) != 1:
        count = "no sorted teacher" if not directories else f"{len(directories)} sorted teachers"
        raise SearchError(
            f"{study.root} has {count}, so that a trial's student cannot be cut again; give a "
            "student's directory"
        )
    return SortedTeacher(directories[0], _library(study))


def _library(study: Workspace) -> Path | None:
    """The trained blocks of a study whose students may have layers that differ; None where it has
    none."""
    found = [path.parent for path in study.root.glob("library-*/library.json")]
    if len(found) > 1 and study.results.exists():
        layered = json.loads(study.results.read_text()).get("per_layer") or {}
        found = [path for path in found if path.name == layered.get("library")]
    if len(found) > 1:
        raise SearchError(
            f"{study.root} has {len(found)} block libraries, so that a trial's student cannot be "
            "cut again; give a student's directory"
        )
    return found[0] if found else None
