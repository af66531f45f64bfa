"""Rows of hybrids: types of which some layers, or all, have a recurrent state."""

from pruning.families.table.hybrids.delta_nets import DELTA_NETS
from pruning.families.table.hybrids.falcon_h1 import FALCON_H1
from pruning.families.table.hybrids.nemotron_h import NEMOTRON_H

HYBRIDS = (*NEMOTRON_H, *FALCON_H1, *DELTA_NETS)
