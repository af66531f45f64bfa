"""Rows of hybrids: types of which some layers, or all, have a recurrent state."""

from pruning.families.table.hybrids.delta_nets import DELTA_NETS
from pruning.families.table.hybrids.expanded import EXPANDED_MAMBA
from pruning.families.table.hybrids.falcon_h1 import FALCON_H1
from pruning.families.table.hybrids.nemotron_h import NEMOTRON_H
from pruning.families.table.hybrids.short_convolutions import SHORT_CONVOLUTIONS

HYBRIDS = (*NEMOTRON_H, *FALCON_H1, *EXPANDED_MAMBA, *DELTA_NETS, *SHORT_CONVOLUTIONS)
