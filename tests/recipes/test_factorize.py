import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.recipe import RECIPES
from compress_rec.recipes.factorize import Factorize
from tests.models import small_lessons, small_texts, small_variant


@pytest.fixture(scope="module")
def start():
    variant = small_variant(seed=3)
    return variant.towers.towers["both"], small_lessons(variant)["both"]


def cosine(tower, reference):
    return float((tower.encode(small_texts(), "item", 16) * reference.encode(small_texts(), "item", 16)).sum(-1).mean())


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("method", ["whitened", "fisher", "plain"])
def test_keeps_the_share_of_parameters(start, keep, method):
    tower, lesson = start
    forms = dict(Factorize(keep, method).apply(tower, lesson).encoder.forms())
    dense = {name: form.dense().numel() for name, form in tower.encoder.forms()}
    kept = sum(form.operations() for form in forms.values())
    assert keep - 0.1 < kept / sum(dense.values()) <= keep
    if method != "fisher":  # fisher deals the same total out unevenly
        assert all(form.operations() <= keep * dense[name] for name, form in forms.items())


def test_whitened_beats_plain_and_fisher_beats_both(start):
    tower, lesson = start
    found = {method: cosine(Factorize(0.5, method).apply(tower, lesson), tower) for method in ("plain", "whitened", "fisher")}
    assert found["plain"] + 0.05 < found["whitened"] < found["fisher"]


@pytest.mark.parametrize("part", ["query", "up", "down"])
def test_whitened_is_the_least_error_of_its_rank(start, part):
    """Eckart and Young: the error of the outputs about their mean is the sum of the squared singular values left out."""
    tower, lesson = start
    name = f"layers.1.{part}"
    form = Factorize(0.5).apply(tower, lesson).encoder.linear(name)
    seen, weight = lesson.moments(tower)[name], tower.encoder.linear(name).dense().detach().double()
    rest = weight - form.dense().detach().double()
    error = torch.trace(rest @ seen.covariance @ rest.T)
    values = torch.linalg.eigvalsh(weight @ seen.covariance @ weight.T).flip(0)
    rank = form.parts[0].shape[0]
    assert float(error) == pytest.approx(float(values[rank:].sum()), rel=1e-3)


def test_whitened_keeps_the_mean_output(start):
    tower, lesson = start
    name = "layers.0.down"
    before, after = tower.encoder.linear(name), Factorize(0.3).apply(tower, lesson).encoder.linear(name)
    mean = lesson.moments(tower)[name].mean.float()
    assert torch.allclose(before(mean), after(mean), atol=1e-4)


def test_plain_is_the_truncated_decomposition(start):
    tower, lesson = start
    form = Factorize(0.5, "plain").apply(tower, lesson).encoder.linear("layers.2.key")
    u, s, v = torch.linalg.svd(tower.encoder.linear("layers.2.key").dense().double())
    rank = form.parts[0].shape[0]
    assert rank == int(0.5 * 32 * 32 / 64)
    assert torch.allclose(form.dense().double(), u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank], atol=1e-5)


def test_parts(start):
    tower, lesson = start
    half = Factorize(parts="feed_forward").apply(tower, lesson).encoder.config
    assert {name.rpartition(".")[2] for name in half.formats} == {"up", "down"}
    both = Factorize(parts="attention").apply(Factorize(parts="feed_forward").apply(tower, lesson), lesson)
    assert len(both.encoder.config.formats) == 18


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.0, 1.5, float("nan")])
def test_refuses_shares_that_save_nothing(keep):
    with pytest.raises(CompressRecError, match="'keep' of 'factorize' is a share and must be above 0 and below 1"):
        Factorize(keep=keep)


def test_refuses_a_rank_above_break_even(start):
    """The smallest rank is 1; a matrix so thin that even that saves nothing is named."""
    with pytest.raises(CompressRecError, match=r"rank 1 of 'x' \(1×8\) saves nothing"):
        Factorize(0.5)._ranks({"x": torch.Size((1, 8))}, {"x": torch.ones(1)})


def test_unknown_method_is_refused():
    with pytest.raises(CompressRecError, match="method"):
        RECIPES.build("factorize[method=qr]")
