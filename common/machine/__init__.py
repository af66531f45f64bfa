"""The machine: its processors, memory and control groups."""

from common.machine.cgroups import Cgroups
from common.machine.machine import Machine

__all__ = ["Cgroups", "Machine"]
