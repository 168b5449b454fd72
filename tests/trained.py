"""Two trainings side by side: what happened in them, and what came out."""

import pytest
import torch


def assert_same(plain, quick):
    """Compare (model, history) of two trainings, number by number."""
    for row, other in zip(plain[1].rows, quick[1].rows, strict=True):
        assert other == pytest.approx(row, rel=1e-9)
    for name, value in plain[0].state_dict().items():
        torch.testing.assert_close(quick[0].state_dict()[name], value, rtol=1e-9, atol=1e-9)
