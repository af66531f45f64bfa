"""Files of the winners as artifacts of the study, which optuna-dashboard shows and gives away."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from common.errors import reason_of
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)
KEPT = ("README.md", "espalier.json")
"""Of a winner's folder: its card, and its figures with where it comes from."""


def keep_artifacts(
    study: optuna.Study, store: Path, outputs: Workspace, *, winners: int, member: str | None = None
) -> None:
    """Put the report, the table of trials, and card and figures of so many winners into `store`.

    Optuna takes artifacts of trials only while they run, so that they are the study's. A file of
    the same name takes the place of the one before. A failing disk is said, and ends nothing.
    """
    begins = f"{member}-" if member else ""
    files = {f"{begins}{path.name}": path for path in (outputs.report, outputs.trials_table)}
    for rank, folder in enumerate(outputs.winner_folders(winners), 1):
        files |= {f"{begins}winner-{rank}-{name}": folder / name for name in KEPT}
    try:
        _keep(study, store, {name: path for name, path in files.items() if path.is_file()})
    except OSError as problem:
        LOGGER.info(f"warning: optuna-dashboard gets no artifacts: {reason_of(problem)}")


def _keep(study: optuna.Study, directory: Path, files: Mapping[str, Path]) -> None:
    """Keep files under these names."""
    directory.mkdir(parents=True, exist_ok=True)
    store = FileSystemArtifactStore(str(directory))
    before = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        for name, path in files.items():
            if name in before:
                with path.open("rb") as body:
                    store.write(before[name], body)
                continue
            named = Path(shutil.copyfile(path, Path(scratch) / name))
            upload_artifact(artifact_store=store, file_path=str(named), study_or_trial=study)
