"""Names that the tensors of a text model have in the files of a multimodal checkpoint.

They end as they do in the files of the text model alone; what stands before differs from type to
type, and in what different versions of transformers wrote of one type.
"""

from collections.abc import Collection

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.table import family_of


def stored_names(config: PretrainedConfig, found: Collection[str]) -> dict[str, str]:
    """Tensor of the text model -> its name among those `found` in the multimodal files.

    The output head is among them where the files have one, also a tied one.

    Args:
        config: Of the text model.
        found: Names of all tensors of the files.

    Raises:
        PruningError: They do not have the text model, or more than one.
    """
    family = family_of(config)
    head = family.output_head[0]
    bare = {
        tensor.name: tensor.name.removeprefix(family.base_prefix)
        for tensor in family.tensors(config)
        if tensor.name != head
    }
    prefix = _prefix(config.model_type, list(bare.values()), found)
    names = {name: prefix + inside for name, inside in bare.items()}
    heads = [name for name in found if _ends(name, head)]
    if len(heads) > 1:
        raise PruningError(f"its files have several output heads: {', '.join(sorted(heads))}")
    return names | dict.fromkeys([head], *heads) if heads else names


def _prefix(model_type: str, wanted: list[str], found: Collection[str]) -> str:
    """What stands before all of the `wanted` names among those that were `found`."""
    embedding = wanted[0]
    prefixes = sorted(name.removesuffix(embedding) for name in found if _ends(name, embedding))
    lacking = {p: next((n for n in wanted if p + n not in found), None) for p in prefixes}
    whole = [prefix for prefix, name in lacking.items() if name is None]
    if len(whole) > 1:
        raise PruningError(f"its files have several text models: {', '.join(whole)}")
    if whole:
        return whole[0]
    missing = next(iter(f"{p}{name}" for p, name in lacking.items()), embedding)
    raise PruningError(
        f"its files do not have the tensors of its text model as {model_type} has them: there is "
        f"no {missing}"
    )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
