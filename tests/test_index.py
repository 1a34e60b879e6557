"""The frozen catalogue: what it accepts, what it refuses, and that a folder gives the same bits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.index import CosineIndex

ITEMS = torch.randn((60, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
QUERIES = torch.randn((5, 12), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def wanted(k: int) -> torch.Tensor:
    unit = torch.nn.functional.normalize
    return (unit(QUERIES) @ unit(ITEMS).T).topk(k).indices


@pytest.mark.parametrize("tier", op.tiers())
def test_finds_the_nearest(tier: str) -> None:
    with op.force(tier):
        scores, ids = CosineIndex(ITEMS).search(QUERIES, 7)
    assert torch.equal(ids, wanted(7))
    exact = torch.nn.functional.cosine_similarity(QUERIES[:, None], ITEMS[ids], dim=2)
    torch.testing.assert_close(scores, exact.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.float(),
        lambda x: x.numpy(),
        lambda x: x.numpy().astype(">f8"),
        lambda x: np.asfortranarray(x.numpy().astype(np.float32)),
        lambda x: x.flip(0).numpy()[::-1],
        lambda x: x.T.contiguous().T,
        lambda x: torch.stack([x, x], dim=2)[..., 0],
        lambda x: x * 1e200,
        lambda x: x * 1e-200,
        lambda x: x.clone().requires_grad_(),
    ],
    ids=["float32", "numpy", "big-endian", "fortran", "negative strides", "transposed", "strided", "huge", "tiny", "leaf"],
)
def test_takes_any_floats(convert) -> None:  # type: ignore[no-untyped-def]
    index = CosineIndex(convert(ITEMS))
    with torch.no_grad():
        assert torch.equal(index.search(convert(QUERIES), 7)[1], wanted(7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision(dtype: torch.dtype) -> None:
    """The search is that of the rounded values, in float32."""
    items, queries = ITEMS.to(dtype), QUERIES.to(dtype)
    assert torch.equal(CosineIndex(items).search(queries, 9)[1], CosineIndex(items.double()).search(queries.double(), 9)[1])


def test_read_only_and_later_changed_items_do_not_matter() -> None:
    array = ITEMS.numpy().copy()
    array.setflags(write=False)
    assert torch.equal(CosineIndex(array).search(QUERIES, 3)[1], wanted(3))
    items = ITEMS.float().clone()
    index = CosineIndex(items)
    items.zero_()
    assert torch.equal(index.search(QUERIES, 3)[1], wanted(3))


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, torch.tensor])
def test_excludes(kind) -> None:  # type: ignore[no-untyped-def]
    best = wanted(5).tolist()
    scores, ids = CosineIndex(ITEMS).search(QUERIES, 4, exclude=[kind(row[:1]) for row in best])
    assert ids.tolist() == [row[1:] for row in best]
    assert torch.isfinite(scores).all()


def test_excluding_nothing_and_nearly_everything() -> None:
    index = CosineIndex(ITEMS)
    assert torch.equal(index.search(QUERIES, 4, exclude=[[]] * 5)[1], wanted(4))
    scores, ids = index.search(QUERIES[:1], 3, exclude=[range(59)])
    assert ids.tolist() == [[59, -1, -1]]
    assert scores[0, 1:].tolist() == [-math.inf, -math.inf]


def test_facts() -> None:
    index = CosineIndex(ITEMS)
    assert (len(index), index.dimensions, index.format) == (60, 12, "float32")
    assert repr(index) == f"CosineIndex(items=60, dimensions=12, format='float32', backend='{op.backend('cosine_top_k')}')"
    torch.testing.assert_close(index.vectors.double().norm(dim=1), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-6)


def test_save_and_load_give_the_same_bits(tmp_path: Path) -> None:
    index = CosineIndex(ITEMS)
    index.save(tmp_path / "index")
    again = CosineIndex.load(tmp_path / "index")
    assert torch.equal(index.vectors, again.vectors)
    assert (len(again), again.dimensions, again.format) == (60, 12, "float32")
    one, two = index.search(QUERIES, 60), again.search(QUERIES, 60)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_saving_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    CosineIndex(ITEMS).save(tmp_path / "index")
    CosineIndex(ITEMS[:7]).save(tmp_path / "index")
    assert len(CosineIndex.load(tmp_path / "index")) == 7


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda i: CosineIndex(ITEMS, "float23"), "there is no index format called 'float23'; did you mean 'float32'? known are float32"),
        (
            lambda i: CosineIndex(ITEMS[:0]),
            "the index needs at least one item, but (0, …) came: give the catalogue's vectors, one a row",
        ),
        (
            lambda i: CosineIndex(ITEMS.index_fill(0, torch.tensor(4), math.nan)),
            "items must be finite, but row 4 holds NaN or infinity: drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES.index_fill(0, torch.tensor(2), math.inf), 1),
            "queries must be finite, but row 2 holds NaN or infinity: drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES.float().index_fill(0, torch.tensor(2), math.inf), 1),
            "cosine_top_k: queries must be finite, but inf in row 2 came; drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES[0], 1),
            "queries must be floating point (queries, dimensions), but float64 (12) came: one vector a row, also for one",
        ),
        (
            lambda i: i.search(QUERIES[:, :5], 1),
            "queries must have the index's 12 dimensions, but 5 came: encode both with the same recommender",
        ),
        (lambda i: i.search(QUERIES, 61), "k must be from 1 to the 60 items of the index, but 61 came: ask for fewer"),
        (lambda i: i.search(QUERIES, 0), "k must be from 1 to the 60 items of the index, but 0 came: ask for fewer"),
        (
            lambda i: i.search(QUERIES, 1, exclude=[[1]]),
            "exclude must hold one sequence of ids a query (5), but 1 came: give an empty one where nothing is excluded",
        ),
        (
            lambda i: i.search(QUERIES[:1], 1, exclude=[[0.5]]),
            "exclude must hold whole numbers, but float32 (1) came for query 0: give item ids",
        ),
        (
            lambda i: i.search(QUERIES[:1].float(), 1, exclude=[[60]]),
            "cosine_top_k: exclude must be item ids from 0 to 59, but id 60 came; leave unknown ids out",
        ),
        (
            lambda i: CosineIndex([[1.0]]),
            "items must be a torch tensor or numpy array (items, dimensions), but list came: convert it first",
        ),
        (
            lambda i: CosineIndex(np.ones((2, 2), int)),
            "items must be floating point, but a numpy array of int64 came: convert it with .astype",
        ),
        (
            lambda i: i.search(QUERIES.float().requires_grad_(), 1),
            "cosine_top_k: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
        (
            lambda i: i.search(QUERIES.clone().requires_grad_(), 1),
            "cosine_top_k: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    ],
)
@pytest.mark.parametrize("tier", op.tiers())
def test_refusals(call, sentence: str, tier: str) -> None:  # type: ignore[no-untyped-def]
    index = CosineIndex(ITEMS)
    with op.force(tier), pytest.raises(CompressRecError) as refused:
        call(index)
    assert str(refused.value) == sentence


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="does not hold a readable index"):
        CosineIndex.load(tmp_path / "nowhere")
    place = tmp_path / "index"
    CosineIndex(ITEMS).save(place)
    whole = (place / "index.safetensors").read_bytes()
    (place / "index.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CompressRecError, match="does not hold a readable index"):
        CosineIndex.load(place)
    (place / "index.safetensors").write_bytes(whole)
    facts = json.loads((place / "index.json").read_text())
    for change, sentence in (
        ({"items": 61}, r"must hold \(61, 12\) vectors, but \(60, 12\) came"),
        ({"version": 9}, "must have version 1, but 9 came"),
        ({"format": "int8"}, "no index format called 'int8'"),
    ):
        (place / "index.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(CompressRecError, match=sentence):
            CosineIndex.load(place)
    (place / "index.json").write_text("[]")
    with pytest.raises(CompressRecError, match="must have version 1"):
        CosineIndex.load(place)
