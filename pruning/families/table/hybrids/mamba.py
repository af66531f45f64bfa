"""Parts that rows with Mamba-2 mixers share."""

from collections.abc import Callable

from transformers import PretrainedConfig

from pruning.families.words import Axes, Recurrence

_PROJECTED = "ssm_inner+ssm_inner+ssm_states+ssm_states+ssm_heads"
MAMBA: dict[str, Axes] = {
    "in_proj.weight": (_PROJECTED, "hidden"),
    "in_proj.bias": (_PROJECTED,),
    "conv1d.weight": ("ssm_inner+ssm_states+ssm_states", "1", "conv_kernel"),
    "conv1d.bias": ("ssm_inner+ssm_states+ssm_states",),
    "A_log": ("ssm_heads",),
    "D": ("ssm_heads",),
    "dt_bias": ("ssm_heads",),
    "norm.weight": ("ssm_inner",),
    "out_proj.weight": ("hidden", "ssm_inner"),
    "out_proj.bias": ("hidden",),
}
"""A Mamba-2 mixer: gate, channels, B, C and time steps in one projection."""

GATED_FFN_WEIGHTS: dict[str, Axes] = {
    "gate_proj.weight": ("ffn", "hidden"),
    "up_proj.weight": ("ffn", "hidden"),
    "down_proj.weight": ("hidden", "ffn"),
}
GATED_FFN_BIASES: dict[str, Axes] = {
    "gate_proj.bias": ("ffn",),
    "up_proj.bias": ("ffn",),
    "down_proj.bias": ("hidden",),
}
MAMBA_FIELDS = {
    "ssm_heads": "mamba_n_heads",
    "ssm_head_dim": "mamba_d_head",
    "ssm_groups": "mamba_n_groups",
    "ssm_state": "mamba_d_state",
}
"""Fields of the configuration with its sizes, by the names that most types have for them."""


def within(module: str, tensors: dict[str, Axes]) -> dict[str, Axes]:
    """These tensors, in a module."""
    return {f"{module}.{name}": axes for name, axes in tensors.items()}


def mamba_recurrence(
    module: str,
    *,
    conv_kernel: str,
    norm_gated: Callable[[PretrainedConfig], bool] = lambda config: True,
) -> Recurrence:
    """Where the mixer `module` of a layer is observed."""
    return Recurrence(
        input=f"{module}.in_proj",
        channels=1,
        keys=2,
        queries=3,
        output=f"{module}.out_proj",
        conv_kernel=conv_kernel,
        norm=f"{module}.norm",
        norm_gated=norm_gated,
    )
