"""The most memory that a process has, from a moment on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.backend.peaks import PeakMemory

CPU = torch.device("cpu")
MB = 1_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone lets one forget")
def test_it_is_that_of_what_was_there_since_then() -> None:
    first = PeakMemory()
    large = torch.ones(100 * MB)
    with_it = first.bytes_on(CPU)
    del large
    peak = PeakMemory()
    without = peak.bytes_on(CPU)
    assert with_it - without > 300 * MB
    more = torch.ones(50 * MB)
    assert peak.bytes_on(CPU) - without > 150 * MB
    del more
    assert peak.bytes_on(CPU) - without > 150 * MB, "the most, not what is left"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells pages apart")
def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "targets.npy", np.ones(25 * MB, dtype=np.float32))
    peak = PeakMemory()
    before = peak.bytes_on(CPU)
    mapped = np.load(tmp_path / "targets.npy", mmap_mode="r")
    assert mapped.sum() == 25 * MB
    assert abs(peak.bytes_on(CPU) - before) < 30 * MB
