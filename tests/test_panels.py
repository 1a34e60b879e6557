"""The panel layout, by hand and back."""

import pytest
import torch

from compress_rec.panels import packed, unpacked


def test_by_hand() -> None:
    panels = packed(torch.arange(34.0).reshape(17, 2))
    assert panels.shape == (2, 2, 16)
    assert panels[0, 0].tolist() == [float(2 * row) for row in range(16)]
    assert panels[1, 1].tolist() == [33.0, *[0.0] * 15]


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 33])
@pytest.mark.parametrize("columns", [0, 1, 7])
def test_there_and_back(rows: int, columns: int) -> None:
    matrix = torch.randn((rows, columns), generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpacked(packed(matrix), rows), matrix)
