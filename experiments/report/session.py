"""Make the report of a study from its database, with what its workspace has where that is here."""

import logging
import os
import re
from pathlib import Path

import optuna

from common.errors import SearchError
from common.log import timed_lines
from experiments.report.config import ReportConfig
from search.database import STORAGE_VARIABLE, database_url, open_storage, take_storage_url
from search.page import FamilyPage, Place, StudyFacts, StudyPage, members_of, study_page
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


@timed_lines()
def run_report(config: ReportConfig) -> Path:
    """Write the report and return the path of its page.

    Raises SearchError for a database or a study that is not there.
    """
    root = None if config.workspace is None else config.workspace.expanduser().absolute()
    study = _study(config, root)
    outputs = Workspace(_output(config, root, name=study.study_name))
    outputs.make()
    members = members_of(study)
    pages = [_written(StudyFacts(study, member), root, outputs=outputs) for member in members]
    if members != [None]:
        FamilyPage(study.study_name, pages).write(outputs)
    for sentence in dict.fromkeys(sentence for page in pages for sentence in page.missing):
        LOGGER.info(sentence)
    LOGGER.info(f"report: {outputs.report}")
    return outputs.report


def _study(config: ReportConfig, root: Path | None) -> optuna.Study:
    """The study that is meant."""
    if root is not None and not root.is_dir():
        raise SearchError(f"--workspace is {root}, which is no directory; give that of a study")
    if config.storage is None and root is None and not os.environ.get(STORAGE_VARIABLE):
        raise SearchError(
            "nothing says where the study is; give --storage URL (or ESPALIER_STORAGE), or "
            "--workspace DIR"
        )
    storage = open_storage(take_storage_url(config.storage, root or Path()), existing=True)
    names = optuna.get_all_study_names(storage)
    if config.study is None and len(names) == 1:
        return optuna.load_study(study_name=names[0], storage=storage)
    known = ", ".join(sorted(names)) or "none"
    if config.study is None:
        raise SearchError(f"the database has the studies {known}; say which by --study NAME")
    if config.study not in names:
        raise SearchError(f"--study is {config.study}, but the database has the studies {known}")
    return optuna.load_study(study_name=config.study, storage=storage)


def _output(config: ReportConfig, root: Path | None, *, name: str) -> Path:
    """Where the report goes."""
    if config.output is not None:
        return config.output.expanduser().absolute()
    return root or Path(re.sub(r"[^\w.-]+", "-", f"{name}-report")).absolute()


def _written(facts: StudyFacts, root: Path | None, *, outputs: Workspace) -> StudyPage:
    """The page of one member, or of the only student, once it is written."""
    own = outputs if facts.member is None else outputs.member(facts.member)
    own.make()
    page = study_page(facts, Place(database_url(facts.study), own, root))
    page.write(own)
    return page
