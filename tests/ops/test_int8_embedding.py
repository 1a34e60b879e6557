"""int8_embedding by hand; what every op owes is asked of it in the contract."""

import torch

from compress_rec import op
from compress_rec.ops.int8_embedding import int8_embedding

CODES = torch.tensor([[1, -2, 127], [0, 4, -127], [3, 3, 3]], dtype=torch.int8)
SCALES = torch.tensor([0.5, 0.25, 0.0])


def test_hand_worked_rows():
    found = int8_embedding(torch.tensor([[1, 0], [0, 2]]), CODES, SCALES)
    wanted = [[[0.0, 1.0, -31.75], [0.5, -1.0, 63.5]], [[0.5, -1.0, 63.5], [0.0, 0.0, 0.0]]]
    assert found.dtype == torch.float32
    assert found.tolist() == wanted
    assert op.find("int8_embedding")(torch.tensor([[1, 0], [0, 2]]), CODES, SCALES).tolist() == wanted


def test_no_ids_give_no_rows():
    assert int8_embedding(torch.empty(0, dtype=torch.int64), CODES, SCALES).shape == (0, 3)


def test_it_equals_torchs_embedding_of_the_whole_table():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (40, 17), dtype=torch.int8, generator=generator)
    scales = torch.rand(40, generator=generator)
    ids = torch.randint(0, 40, (5, 9), generator=generator)
    assert torch.equal(int8_embedding(ids.int(), codes, scales), torch.nn.functional.embedding(ids, codes.float() * scales[:, None]))


def test_many_rows_are_the_same_however_many_threads_share_them():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(-127, 128, (500, 83), dtype=torch.int8, generator=generator)
    scales = torch.rand(500, generator=generator)
    ids = torch.randint(0, 500, (3000,), generator=generator)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(int8_embedding(ids, codes, scales), int8_embedding.reference(ids, codes, scales))
    finally:
        torch.set_num_threads(threads)
