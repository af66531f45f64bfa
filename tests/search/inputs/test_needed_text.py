"""How much text a study reads, and that it stays what it was."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.errors import SearchError
from common.fingerprint import differences
from distill.recipes.settings import CorrectionSettings
from search.config.per_layer import PerLayerConfig
from search.config.space import SpaceConfig
from search.config.study import SearchConfig
from search.inputs.inputs import Inputs
from workspace.corpus import NEEDED
from workspace.settings import CALIBRATION_SEQUENCES


def needed(recorded: dict[str, Any] | None, **options: Any) -> int | None:
    config = SearchConfig(teacher="teacher", corpus="corpus", calibration=16, **options)
    return Inputs.needed_tokens(cast(Any, SimpleNamespace(config=config, block=64)), recorded)


def test_text_is_read_for_the_longest_of_the_runs() -> None:
    assert needed(None, short_tokens=100, full_tokens=5_000) == 5_000
    assert needed(None, short_tokens=100, full_tokens=500) == 16 * 64
    assert needed(None, short_tokens=100, full_tokens=5_000, scratch_tokens=9_000) == 9_000
    per_layer = {"space": SpaceConfig(per_layer=["ffn"]), "per_layer": PerLayerConfig(tokens=8_000)}
    assert needed(None, short_tokens=100, full_tokens=5_000, **per_layer) == 8_000
    correction = CorrectionSettings(tokens=7_000)
    assert needed(None, short_tokens=100, full_tokens=5_000, correction=correction) == 7_000


def test_a_study_that_goes_on_reads_what_it_began_with() -> None:
    assert needed({NEEDED: 5_000}, short_tokens=100, full_tokens=50_000) == 5_000
    assert needed({NEEDED: None}, short_tokens=100, full_tokens=50_000) is None


def test_a_study_that_goes_on_keeps_its_calibration_unless_another_is_asked_for() -> None:
    unused: Any = dict.fromkeys(("teacher", "text", "device"))
    common = unused | {"members": (), "precision": "fp32", "teacher_precision": "file"}

    def going_on(recorded: dict[str, Any] | None, calibration: int | None) -> int:
        config = SearchConfig(teacher="teacher", corpus="corpus", calibration=calibration)
        inputs = Inputs(config=config, spread=False, **common)
        return inputs.going_on(recorded).config.calibration_sequences

    assert going_on(None, None) == CALIBRATION_SEQUENCES
    assert going_on({"calibration": 1_024}, None) == 1_024  # what the last version began with
    assert going_on({"calibration": 1_024}, 64) == 64  # which the study then refuses


def test_what_an_earlier_version_began_is_refused_with_what_to_do() -> None:
    with pytest.raises(SearchError, match=r"earlier version.*go on with that version.*--study"):
        needed({"corpus": "0123"}, short_tokens=100, full_tokens=5_000)


def test_other_text_is_another_study() -> None:
    first, other = {"corpus": "one", NEEDED: 5_000}, {"corpus": "two", NEEDED: 5_000}
    assert differences(first, first) == []
    (told,) = differences(first, other)
    assert told.startswith("corpus (was one, is two: the packed tokens")
