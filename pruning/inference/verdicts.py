"""Verdicts: of a model type in short, whether it has a row and which of its axes are proven."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import CONFIG_MAPPING, PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.families.architecture import AXES
from pruning.families.table import family_of
from pruning.inference.proofs.family_proof import FamilyProof
from pruning.inference.proofs.search import Finding
from pruning.inference.rows.family import InferredFamily
from pruning.inference.tiny.building import random_model, stored_tensors
from pruning.inference.tiny.growth import Growth
from pruning.multimodal.configuration import is_multimodal, multimodal_class, text_config_of

WRITTEN, INFERRED, REFUSED = "written", "inferred", "refused"


@dataclass(frozen=True)
class TypeVerdict:
    """What is known of one model type."""

    row: str
    """Where its row comes from: `WRITTEN`, `INFERRED`, or `REFUSED` where it has none."""
    proven: tuple[str, ...] = ()
    """Axes that are proven on a tiny random model."""
    whole: Mapping[str, str] = field(default_factory=dict)
    """Axis that students have in full -> the reason; none of a written row."""
    untried: tuple[str, ...] = ()
    """Axes of a written row that are not proven here, but by the tests of the table alone."""
    reason: str = ""
    """Why it is refused."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "TypeVerdict":
        """Of the type of a configuration."""
        try:
            family = family_of(config)
        except PruningError as problem:
            return cls(REFUSED, reason=_text_model_inside(config) or str(problem))
        if isinstance(family, InferredFamily):
            return cls(INFERRED, *_split(family.findings))
        findings = {finding.axis: finding for finding in tiny_findings(config)}
        proven, _ = _split(findings)
        untried = [axis for axis in AXES if axis in family.fields and axis not in proven]
        return cls(WRITTEN, proven, untried=tuple(untried))


def tiny_findings(config: PretrainedConfig) -> list[Finding]:
    """Proofs of the row of a type on a tiny random model of it; none where none can be built."""
    try:
        model = random_model(Growth.of(config).tiny.config())
        return list(FamilyProof(model.config, stored_tensors(model)).findings())
    except Exception:  # models break in their own ways
        return []


def default_config(model_type: str) -> PretrainedConfig:
    """The configuration of a type as its class has it by default, as a decoder where it can be
    both. Raises PruningError where it has none."""
    try:
        config: PretrainedConfig = CONFIG_MAPPING[model_type]()
    except Exception as problem:  # configurations break in as many ways as there are models
        raise PruningError(
            f"the type {model_type} has no configuration of its own ({reason_of(problem)}); give "
            "the folder of a model"
        ) from problem
    if getattr(config, "is_decoder", None) is False:
        config.is_decoder = True
    return config


def _text_model_inside(config: PretrainedConfig) -> str:
    """What is cut of a multimodal type; "" of any other, or where its text model cannot be."""
    try:
        if not is_multimodal(config):
            return ""
        multimodal_class(config)
        text = text_config_of(config)
        family_of(text)
    except PruningError:
        return ""
    return f"multimodal: given as a teacher, its text model is cut, a {text.model_type}"


def _split(findings: Mapping[str, Finding]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(axes that are proven, those that are not with the reasons)."""
    whole = {axis: finding.reason for axis, finding in findings.items() if finding.reason}
    return tuple(axis for axis in findings if axis not in whole), whole
