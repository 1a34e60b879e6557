"""low_rank_feed_forward: that it is two low-rank layers with a GELU between them, and the dense block of its products."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from compress_rec.ops.low_rank_feed_forward import low_rank_feed_forward
from compress_rec.ops.low_rank_linear import low_rank_linear
from tests.ops.tried import rand


def test_is_two_low_rank_layers() -> None:
    x, a, b, c, d = rand(5, 12), rand(3, 12, seed=1), rand(20, 3, seed=2), rand(4, 20, seed=3), rand(12, 4, seed=4)
    bias, bias_out = rand(20, seed=5), rand(12, seed=6)
    wanted = low_rank_linear(F.gelu(low_rank_linear(x, a, b, bias)), c, d, bias_out)
    torch.testing.assert_close(low_rank_feed_forward(x, a, b, c, d, bias, bias_out), wanted)


def test_is_the_dense_block_of_its_products() -> None:
    x, a, b, c, d = (t.double() for t in (rand(5, 12), rand(3, 12, seed=1), rand(20, 3, seed=2), rand(4, 20, seed=3), rand(9, 4, seed=4)))
    torch.testing.assert_close(low_rank_feed_forward(x, a, b, c, d), F.linear(F.gelu(F.linear(x, b @ a)), d @ c))
