"""Imported by the process that others are forked off: has it import what these need."""

from tests.processes import import_once

import_once()
