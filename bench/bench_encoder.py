"""Whole encoders on ragged batches against the runtimes that serve them otherwise: one item a batch, all sides interleaved.

Unit: milliseconds of processor time on one thread, from token ids; ours end in unit vectors, the peers in hidden states. The ratio is
the best peer's median divided by ours, of the float peers for floats, of all for int8. ``--quick`` runs two small batches on a model of
random weights, so that it needs no data. ``--results=FILE`` keeps every sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import real
from bench.encoder import Batch, Encoders, accuracies, batches, random_model, texts
from compress_rec.known_sets import KNOWN_SETS, data_folder, first_wrong
from compress_rec.op import tiers

pytestmark = pytest.mark.skipif("avx2" not in tiers(), reason="no compiled kernel runs here")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" in metafunc.fixturenames:
        listed = batches(metafunc.config.getoption("--quick"))
        metafunc.parametrize("batch", listed, ids=[one.name.replace(" ", "") for one in listed])


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    quick = request.config.getoption("--quick")
    folder = data_folder() / "minilm-l6"
    if quick:
        folder = random_model(tmp_path_factory.mktemp("model"))
    elif first_wrong(folder, KNOWN_SETS["minilm-l6"]) is not None:
        pytest.skip("the model is not there: fetch it with compress-rec data minilm-l6")
    return Encoders(Path(folder), tmp_path_factory.mktemp("peers"), compiled=not quick)


def test_encoder(batch: Batch, encoders: Encoders, run: Any) -> None:
    try:
        case = encoders.case(batch)
    except real.NotThere as reason:
        pytest.skip(str(reason))
    run(case, batch.rounds)


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--quick"):
        pytest.skip("--quick needs no data, and this is about real texts")


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("kind", ["ml-1m", "histories"])
def test_text_to_vector(kind: str, encoders: Encoders, run: Any) -> None:
    try:
        case = encoders.text_case(kind)
    except real.NotThere as reason:
        pytest.skip(str(reason))
    run(case, 9)


@pytest.mark.usefixtures("whole")
def test_accuracy(encoders: Encoders, book: Any, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        chosen = [text for some in texts().values() for text in some]
    except real.NotThere as reason:
        pytest.skip(str(reason))
    found = accuracies(encoders, chosen)
    book.add(
        {
            "op": "encoder accuracy",
            "backend": "compiled",
            "texts": len(chosen),
            "accuracies": {name: one._asdict() for name, one in found.items()},
        }
    )
    with capsys.disabled():
        print(f"\nagainst the modules in float32, {len(chosen)} real texts: mean and least cosine, share of the ten nearest kept")
        for name, one in found.items():
            print(f"    {name}: {one.mean:.5f}, {one.least:.4f}, {one.overlap:.4f}")
