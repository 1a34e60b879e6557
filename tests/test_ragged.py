from __future__ import annotations

import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.ragged import arrays, check, flat


def whole(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def test_flat():
    ids, offsets = flat([[2, 5, 3], [2, 3]])
    assert ids.tolist() == [2, 5, 3, 2, 3]
    assert offsets.tolist() == [0, 3, 5]
    assert [part.tolist() for part in flat([])] == [[], [0]]


def test_what_fits_comes_back():
    ids, offsets = arrays(whole(2, 5, 3, 2, 3), whole(0, 3, 5))
    check(ids, offsets, 6, 3)
    assert ids.tolist() == [2, 5, 3, 2, 3]
    assert offsets.tolist() == [0, 3, 5]
    many = arrays(whole(*[1] * 40), whole(0, 40))
    check(*many, 2, 0)
    assert many[0].shape == (40,)


REFUSED = {
    "offsets must hold at least a 0, but none came": (whole(1), whole()),
    "offsets must begin with 0, but 1 came": (whole(1, 1), whole(1, 2)),
    "offsets must ascend, but 1 came behind 2": (whole(1, 1), whole(0, 2, 1)),
    "offsets must ascend, but -9223372036854775808 came behind 9223372036854775807": (
        whole(2, 5, 3),
        whole(0, 2**63 - 1, -(2**63), -1, 3),
    ),
    "text 1 must have a token, but it is empty; the tokenizer writes two for an empty text": (whole(1, 1), whole(0, 2, 2)),
    "text 0 must have at most 3 tokens, as many as the encoder has positions, but 4 came; cut it": (whole(1, 1, 1, 1), whole(0, 4)),
    "offsets must end with the number of ids, 3, but 2 came": (whole(1, 1, 1), whole(0, 2)),
    "ids must be from 0 to 5, but 6 came at place 1; use the model's own tokenizer": (whole(1, 6), whole(0, 2)),
    "ids must be from 0 to 5, but -1 came at place 0": (whole(-1), whole(0, 1)),
    r"ids must be int64 (tokens,), but int32 (1) came": (whole(1).int(), whole(0, 1)),
    r"offsets must be int64 (texts + 1,), but int64 (1, 2) came": (whole(1), whole(0, 1)[None]),
    r"offsets must be int64 (texts + 1,), but list came": (whole(1), [0, 1]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refusals(sentence):
    with pytest.raises(CompressRecError) as refusal:
        check(*arrays(*REFUSED[sentence]), vocabulary=6, positions=3)
    assert str(refusal.value).startswith(f"encode_ids: {sentence}")
