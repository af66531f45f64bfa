"""The report of a study: readable without script, network or eyes, and small."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from distill.recipes.reports import CurvePoint
from search.config import sampler
from search.page.page import StudyPage
from search.page.sections import settings_table
from search.page.study_facts import StudyFacts
from search.page.tables import duration
from search.results.facts import Completion, RunFacts
from search.results.results import Front, FrontPoint, Results
from search.results.statements import BAD, GOOD, Statement
from search.statistics.rank_correlation import Correlation, RankCorrelation
from tests.search.finished import NASTY, RESULTS, STUDENT, interval
from tests.search.page.made_up import TEACHER, made_up_study, shape_of
from tests.search.page.structure import Structure
from workspace.layout import Workspace

MOST_BYTES = 300_000
CURVE = [CurvePoint(tokens, 1.0, 50.0 / tokens, 2.0, 0.5) for tokens in (100, 200, 400)]
WINNER = replace(STUDENT, architecture=shape_of(9), curve=CURVE)
RANKED = Correlation(0.9, 0.5, 1.0)
WHOLE = replace(
    RESULTS,
    teacher=replace(RESULTS.teacher, architecture=TEACHER),
    winners=[WINNER, replace(WINNER, architecture=shape_of(10))],
    baselines={
        "uniform shrink": replace(WINNER, architecture=shape_of(0)),
        "random initialisation": replace(WINNER, cut_from="nothing: random weights"),
    },
    verdicts=[Statement(GOOD, "Take it."), Statement(BAD, f"{NASTY} is better.")],
    completions=[Completion(NASTY, {"teacher": "told", "winner": NASTY})],
    run=RunFacts(
        "2026-01-01T12:00:00+00:00", f"espalier {NASTY}", "cpu", "two cores", {"torch": "2"}
    ),
    fidelity=[RankCorrelation("zero-shot", "short score", RANKED, RANKED, 9, 2, 0.1)],
    fidelity_rows=[["zero-shot", "short score", "0.90 [0.50, 1.00]", "0.9", "0.10", "9", "2"]],
)


def page_of(results: Results | None = WHOLE, trials: int = 24) -> StudyPage:
    kept = {shape_of(0): [0, 5], shape_of(9): [0, 1, 2, 3, 4, 5], shape_of(10): [1, 4]}
    files = [("results", "results.json")]
    return StudyPage(StudyFacts(made_up_study(trials)), results, kept, files)


@pytest.fixture(scope="module")
def html() -> str:
    return page_of().html()


@pytest.fixture(scope="module")
def found(html: str) -> Structure:
    return Structure(html)


def test_it_is_small_and_loads_nothing(html: str, found: Structure) -> None:
    assert len(html.encode()) < MOST_BYTES
    assert not found.loaded
    assert not {"link", "img", "iframe", "object"} & set(found.tags)
    assert found.tags.count("script") == 1
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|url\((?!#)", html)
    assert {link.partition("/")[0] for link in found.links if link[0] != "#"} == {"report"}


def test_what_others_wrote_is_text(found: Structure) -> None:
    assert "b" not in found.tags
    assert NASTY in "".join(found.text)


def test_every_table_says_what_it_is_of(found: Structure) -> None:
    assert len(found.tables) > 8
    for table in found.tables:
        assert table.caption.strip()
        scopes = [header.get("scope") for header in table.headers]
        assert {"col", "row"} <= set(scopes) <= {"col", "row", "rowgroup"}


def test_every_figure_has_title_and_sentence(found: Structure) -> None:
    assert len(found.pictures) == 5
    assert found.tags.count("figcaption") == found.tags.count("figure") == 5
    for picture in found.pictures:
        assert picture["role"] == "img"
        assert "width" not in picture, "it is as wide as the page lets it be"
    assert len({picture["aria-labelledby"] for picture in found.pictures}) == 5


def test_what_is_referred_to_is_there_once(html: str, found: Structure) -> None:
    assert len(found.ids) == len(set(found.ids))
    inside = {link.removeprefix("#") for link in found.links if link.startswith("#")}
    drawn = set(re.findall(r"(?:url\(#|href=\"#)([\w.-]+)", html))
    assert {*inside, *drawn, *found.wanted} <= set(found.ids)


def test_landmarks_and_language(found: Structure) -> None:
    assert found.attributes["html"]["lang"] == "en"
    assert {"header", "main", "footer", "nav"} <= set(found.tags)
    assert found.tags.count("h1") == 1
    assert "width=device-width" in found.metas


def test_dark_pages_and_paper_have_colours_of_their_own(html: str) -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert "@media print" in html
    pictures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--accent)" in pictures
    assert not re.search(r"#[0-9a-f]{6}", pictures), "a colour that stays as it is in the dark"


def test_what_speaks_against_the_winner_is_a_warning_in_words(html: str) -> None:
    assert '<p class="good headline">Take it.</p>' in html
    assert '<p class="bad"><strong>Warning:</strong>' in html


def test_the_map_shows_which_layers_were_kept(found: Structure) -> None:
    (table,) = [one for one in found.tables if one.caption.startswith("Sizes in each layer")]
    assert table.cells[:9] == ["model", "part", *"012345", "teacher"]
    place = table.cells.index("uniform shrink")
    assert table.cells[place + 2 : place + 8] == ["2/2", "–", "–", "–", "–", "2/2"]


def test_a_page_of_the_database_alone_says_what_is_missing() -> None:
    page = replace(page_of(None), missing=["No results."])
    html = page.html()
    text = "".join(Structure(html).text)
    assert "Students of T" in text
    assert "Not decided yet" in text
    assert "best so far (trial 16)" in text
    assert "The uniform shrink, which it has to beat, is trial 0" in text
    assert "No results." in text
    assert "Quality on the test split" not in text


def test_a_study_that_has_hardly_begun_has_a_page() -> None:
    text = "".join(Structure(page_of(None, trials=0).html()).text)
    assert "No trial has finished yet" in text


@pytest.mark.parametrize(
    ("trials", "objectives", "shown"),
    [
        (0, ("kl",), "name auto;"),
        (12, ("kl",), "name auto (surrogate);"),
        (14, ("kl", "flops"), "name auto (surrogate, then nsga2);"),
    ],
)
def test_the_sampler_behind_auto_is_named(
    trials: int, objectives: tuple[str, ...], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "LARGEST_FIT", 12)
    study = made_up_study(trials, objectives=objectives)
    study.set_user_attr("fingerprint", {"sampler": {"name": "auto", "startup": 4}})
    assert ["sampler", f"{shown} startup 4"] in settings_table(StudyFacts(study)).rows


def test_trade_offs_show_what_is_dominated(tmp_path: Path) -> None:
    facts = StudyFacts(made_up_study(12, objectives=("kl", "flops")))
    point = FrontPoint(9, shape_of(9), {"kl": 0.5, "flops": 1.0})
    front = Front(["kl", "flops"], [point], point, [1.0, 2.0], [1.0, 2.0])
    page = StudyPage(facts, replace(WHOLE, front=front))
    (plot,) = [one for one in page.score_plots if one.name == "trade-off-flops"]
    complete = [trial for trial in facts.trials if trial.complete]
    assert len(plot.data) == len(complete)
    ahead = plot.data[plot.data["on the front"]]
    assert 0 < len(ahead) < len(complete)
    for row in plot.data[~plot.data["on the front"]].itertuples():
        assert ((ahead.kl <= row.kl) & (ahead.flops <= row.flops)).any()


def test_figures_and_tables_lie_beside_it(tmp_path: Path) -> None:
    page_of().write(Workspace(tmp_path))
    links = [
        link for link in Structure((tmp_path / "report.html").read_text()).links if "/" in link
    ]
    assert links
    assert all((tmp_path / link).is_file() for link in links)
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 24
    models = pd.read_csv(tmp_path / "report" / "models.csv", index_col=0)
    assert list(models.loc["parameters"])[:2] == ["5,678", "1,234"]


def test_a_score_of_several_seeds_has_no_mark(found: Structure) -> None:
    scores = replace(WINNER.test, kl=interval(0.25, seeds=1))
    one = replace(WHOLE, winners=[replace(WINNER, test=scores)])
    shown = "".join(Structure(page_of(one).html()).text)
    assert "[0.1500, 0.3500] *" in shown
    assert "[0.1500, 0.3500] *" not in "".join(found.text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (599.4, "9 min 59 s"),
        (599.6, "10 min"),
        (774, "13 min"),
        (3569, "59 min"),
        (3570.5, "1 h 00 min"),
        (7169, "1 h 59 min"),
    ],
)
def test_times_are_rounded_to_the_nearest(seconds: float, words: str) -> None:
    assert duration(seconds) == words
