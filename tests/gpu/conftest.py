"""What tests on a GPU share; where torch finds none, they skip themselves."""

import pytest
import torch

from tests.distill.conftest import make_blocks, make_model

__all__ = ["make_blocks", "make_model"]


@pytest.fixture(autouse=True)
def cuda() -> torch.device:
    """The GPU, with products of fp32 in fp32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device("cuda")
