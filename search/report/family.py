"""family.json and the page of a family: its members side by side, and the cost of all together."""

import logging
from dataclasses import dataclass
from pathlib import Path

import optuna

from common.files import write_file_atomically
from common.intervals import Interval
from search.config.names import EVIDENCE_NONE
from search.database.storage import database_url
from search.page import FamilyPage, Place, StudyFacts, study_page
from search.report.outcome import Outcome
from search.results.cards import shown_interval
from search.results.ledger import TOTAL, Cost
from search.results.results import Results
from search.results.results_file import to_json
from search.results.scratch_comparison import ScratchComparison
from search.results.stored import StoredArchitecture
from search.space.anchors import UNIFORM
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberResult:
    """The best student of a member."""

    name: str | None
    """In the family."""
    architecture: StoredArchitecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    tokens: int
    """Trained on."""
    cut_from: str
    """The teacher, or a larger member."""
    kl: Interval
    """Test KL to the teacher."""
    ce: Interval
    """Test cross-entropy."""
    uniform_kl: str
    """Of the uniform shrink, in words."""
    scratch: ScratchComparison | None
    """Against its own shape from random weights."""
    ledger: dict[str, Cost]
    """Its own runs and its share of the search, by stage."""

    @classmethod
    def of(cls, results: Results) -> "MemberResult":
        """Of a finished member."""
        best = results.winners[0]
        return cls(
            name=results.member,
            architecture=best.architecture,
            parameters=best.parameters,
            tokens=best.tokens,
            cut_from=best.cut_from,
            kl=best.test.kl,
            ce=best.test.ce,
            uniform_kl=_uniform_kl(results),
            scratch=results.scratch,
            ledger=results.winner_ledgers[0],
        )


@dataclass(frozen=True)
class FamilyResult:
    """The content of family.json."""

    members: list[MemberResult]
    """The largest first."""
    total: Cost
    """Of all searches together."""


def write_family(root: Path, outcomes: list[Outcome]) -> None:
    """Write family.json into `root` and say what is in it."""
    members = [MemberResult.of(outcome.results) for outcome in outcomes]
    total = Cost.sum(outcome.results.ledger[TOTAL] for outcome in outcomes)
    write_file_atomically(root / "family.json", to_json(FamilyResult(members, total)))
    LOGGER.info(f"family of {len(members)}, each in {root / 'family'}:")
    for member in members:
        LOGGER.info(
            f"  {member.name}: {member.architecture}, {member.parameters:,} parameters, test KL "
            f"{shown_interval(member.kl)}, uniform shrink {member.uniform_kl}, cut from "
            f"{member.cut_from}"
        )
    LOGGER.info(f"family cost: {total}")


def write_family_page(study: optuna.Study, workspace: Workspace, outcomes: list[Outcome]) -> None:
    """Write the page of all members; each has its own beside it."""
    database = database_url(study)
    pages = []
    for outcome in outcomes:
        place = Place(database, outcome.workspace, workspace.root)
        facts = StudyFacts(study, outcome.results.member)
        pages.append(study_page(facts, place, outcome.results))
    FamilyPage(study.study_name, pages).write(workspace)
    LOGGER.info(f"report of the family: {workspace.report}")


def _uniform_kl(results: Results) -> str:
    """After a full run, or else after a short one, which says so."""
    if UNIFORM in results.baselines:
        return shown_interval(results.baselines[UNIFORM].test.kl)
    if results.short is None or UNIFORM not in results.short.selection_kl:
        return "not run" if results.evidence == EVIDENCE_NONE else "diverged"
    kl = results.short.selection_kl[UNIFORM].mean
    return f"{kl:.4f} (selection split, after {results.short.tokens:,} tokens)"
