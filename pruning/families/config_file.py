"""config.json of a student: the teacher's own, changed where the student differs.

transformers 5 writes fewer keys than it reads: `rope_theta`, `rope_scaling`, `num_experts` and
others that transformers 4 and most other software look for are gone from what it saves, and readers
that do not find them take defaults without a word. A student has the keys of both.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig

from pruning.families.spec import Family
from pruning.families.table import FAMILIES

CONFIG_FILE = "config.json"
LEFT_OUT = {
    "auto_map",
    "compression_config",
    "name_or_path",
    "quantization",
    "quantization_config",
    "transformers_weights",
}
"""Keys that are true of the teacher's folder only: its code, its quantisation, where it came from.
Those that begin with an underscore are private to who wrote them."""
OLDER_LAYER_TYPES = {"linear_attention": "mamba", "full_attention": "attention"}
"""Types of layers in the words of older files of hybrids, which much software takes alone;
transformers 5 reads them and writes its own."""
DERIVED_ROPE = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
"""Rotary parameters that older configurations hold elsewhere than in `rope_scaling`."""


def raw_config(directory: Path) -> dict[str, Any]:
    """The content of config.json as it stands, with what transformers does not know."""
    values: dict[str, Any] = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    return values


def write_config(directory: Path, raw: Mapping[str, Any], student: PretrainedConfig) -> None:
    """Write config.json of `student`, which was cut out of a model with the configuration `raw`."""
    student.save_pretrained(directory)  # checks it too
    text = json.dumps(student_values(raw, student), indent=2, sort_keys=True)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def student_values(raw: Mapping[str, Any], student: PretrainedConfig) -> dict[str, Any]:
    """What config.json of `student` says.

    A key of the teacher's `raw` configuration keeps its value unless the student's differs from
    what transformers reads there; what transformers 5 writes is added, and the names that
    transformers 4 has for it. Types without a row in the table of families keep their keys and get
    no older names.
    """
    before = _as_written(type(student).from_dict(_with_floats(deepcopy(dict(raw)))))
    after = _as_written(student)
    values = dict(raw) | {
        name: value
        for name, value in after.items()
        if name not in raw or name not in before or before[name] != value
    }
    values |= _aliases(raw, student, after=after)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(student), None)
    if kind is not None:
        values["architectures"] = [kind.__name__]
    values["transformers_version"] = after["transformers_version"]
    if after.get("dtype") is not None:
        values |= {"dtype": after["dtype"], "torch_dtype": after["dtype"]}
    family = FAMILIES.get(student.model_type)
    if family is not None:
        values |= _older_names(family, student, after=after, raw=raw)
        values |= _older_layer_types(family, values, raw=raw)
        values = {name: value for name, value in values.items() if _true(family, values, name=name)}
    return {name: value for name, value in values.items() if not _left_out(name)}


def _as_written(config: PretrainedConfig) -> dict[str, Any]:
    """What transformers writes of a configuration."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return values


def _with_floats(values: Any) -> Any:
    """The same with the floats that JSON has no word for, which transformers writes as objects."""
    if isinstance(values, list):
        return [_with_floats(value) for value in values]
    if not isinstance(values, dict):
        return values
    if set(values) == {"__float__"}:
        return float(values["__float__"])
    return {name: _with_floats(value) for name, value in values.items()}


def _left_out(name: str) -> bool:
    return name in LEFT_OUT or (name.startswith("_") and name != "_sliding_window_pattern")


def _aliases(
    raw: Mapping[str, Any], student: PretrainedConfig, *, after: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of the keys of `raw` that transformers keeps under another name."""
    names = type(student).attribute_map
    return {alias: after[names[alias]] for alias in raw.keys() & names if names[alias] in after}


def _older_names(
    family: Family, student: PretrainedConfig, *, after: Mapping[str, Any], raw: Mapping[str, Any]
) -> dict[str, Any]:
    """What transformers 4 looks for and transformers 5 does not write."""
    old = family.older_names
    values = {
        name: after[now] for name, now in old.copies.items() if now in after and name not in raw
    }
    values |= {name: getattr(student, name) for name in old.follow if name in raw}
    values |= {name: value for name, value in old.of_layers(student).items() if name in raw}
    values |= {key: getattr(student, now) for key, now in old.overriding.items() if key in raw}
    rope = getattr(student, "rope_parameters", None) or {}
    if "full_attention" in rope:  # two sorts of layers, each with a rotary embedding of its own
        local = rope.get("sliding_attention") or {}
        if old.local_rope_theta and "rope_theta" in local:
            values[old.local_rope_theta] = local["rope_theta"]
        rope = rope["full_attention"] or {}
    for name, older in old.rope.items():
        if rope.get(name) is not None:
            values[older] = rope[name]
    scaled = rope.get("rope_type", "default") != "default"
    if old.rope and scaled and not raw.get("rope_scaling"):
        values["rope_scaling"] = _rope_scaling(rope, after, only=old.rope_scaling)
    return values


def _older_layer_types(
    family: Family, values: Mapping[str, Any], *, raw: Mapping[str, Any]
) -> dict[str, Any]:
    """Lists with the types of layers, in the words of the teacher's file where these are older."""
    lists = [name for name in family.per_layer_fields if isinstance(raw.get(name), list)]
    older = [name for name in lists if not {*OLDER_LAYER_TYPES.values()}.isdisjoint(raw[name])]
    return {
        name: [OLDER_LAYER_TYPES.get(kind, kind) for kind in values[name]]
        for name in older
        if name in values
    }


def _rope_scaling(
    rope: Mapping[str, Any], after: Mapping[str, Any], *, only: tuple[str, ...]
) -> dict[str, Any]:
    """Rotary parameters as transformers 4 has them.

    Where a type of model takes `only` certain keys and these say it all, those are written; else
    all, which transformers 4 refuses for such a type rather than compute something else.
    """
    kind = rope["rope_type"]
    every = {name: value for name, value in rope.items() if name not in DERIVED_ROPE}
    told = {name for name, value in every.items() if after.get(name) != value}
    every |= {"rope_type": kind, "type": kind}
    return {name: every[name] for name in only} if {"type", *told} == set(only) else every


def _true(family: Family, values: Mapping[str, Any], *, name: str) -> bool:
    """Whether a period that `name` holds is that of the layers that were kept."""
    if name not in family.periods:
        return True
    layers, marked = family.periods[name]
    period, found = values[name], values.get(layers)
    if not found or not period:
        return True
    if isinstance(period, str):  # EXAONE's letters: L for a window, G for none, the last layer too
        letters = [period[place % len(period)] for place in range(len(found) - 1)] + ["G"]
        return all(
            (kind == marked) == (letter == "G") for kind, letter in zip(found, letters, strict=True)
        )
    return all((kind == marked) == (place % period == 0) for place, kind in enumerate(found, 1))
