"""Compress BERT recommenders and measure what each compression costs."""

from compress_rec.errors import CompressRecError

__version__ = "0.1.0"

from compress_rec.index import CosineIndex
from compress_rec.int8_layer import Int8Linear
from compress_rec.low_rank_layer import LowRankLinear
from compress_rec.op import backend
from compress_rec.variant import Variant, compress, load

__all__ = ["CompressRecError", "CosineIndex", "Int8Linear", "LowRankLinear", "Variant", "backend", "compress", "load"]
