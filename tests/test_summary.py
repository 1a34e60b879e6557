from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from compress_rec.errors import CompressRecError
from compress_rec.measure import Samples
from compress_rec.summary import LEVELS, bca_levels, percentiles, summarise, weighted_quantile


def users(count: int) -> dict[str, tuple[str, ...]]:
    return {"user": tuple(f"u{number:04d}" for number in range(count))}


def skewed(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """NDCG-like: four of five are 0. The mean is 0.2 · 0.5 = 0.1."""
    return (generator.random(shape) < 0.2) * generator.random(shape)


def test_mean_by_hand_leaves_undefined_values_out() -> None:
    found = summarise({"reference": Samples((1.0, None, 0.0, 0.5), users(4))})["reference"]
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.5)
    assert (found.count, found.undefined, found.units) == (3, 1, {"user": 3})
    assert found.paired is None


def test_nothing_defined_is_no_estimate() -> None:
    found = summarise({"reference": Samples((None, None), users(2)), "b": Samples((1.0, 1.0), users(2))})
    assert found["reference"].estimate is None
    assert found["reference"].undefined == 2
    assert found["b"].paired is None


def test_pairs_are_taken_over_shared_ids_only() -> None:
    reference = Samples((0.5, 0.5, 1.0, 1.0), {"user": ("a", "b", "c", "d")})
    variant = Samples((9.0, 1.0, 0.25, None), {"user": ("z", "a", "b", "c")})
    paired = summarise({"reference": reference, "v": variant})["v"].paired
    assert paired is not None
    assert paired.shared == 2
    assert paired.difference.value == pytest.approx((0.5 - 0.25) / 2)
    assert paired.ratio is not None
    assert paired.ratio.value == pytest.approx(1.25)


def test_medians_and_percentiles_by_hand() -> None:
    times = Samples(tuple(float(value) for value in range(1, 21)), {"repeat": tuple(map(str, range(20)))})
    assert percentiles(times) == {"p50": 10.5, "p95": 19.5}
    for summary, wanted in (("median", 10.5), ("p95", 19.5), ("p99", 20.0)):
        estimate = summarise({"reference": times}, summary, "lower")["reference"].estimate
        assert estimate is not None
        assert (estimate.value, estimate.method) == (wanted, "percentile")
    assert percentiles(Samples((None,))) == {}


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, {"p50"}), (19, {"p50"}), (20, {"p50", "p95"}), (99, {"p50", "p95"}), (100, {"p50", "p95", "p99"})]
)
def test_a_percentile_wants_a_value_above_it(count: int, wanted: set[str]) -> None:
    assert percentiles(Samples(tuple(map(float, range(count))), {"repeat": tuple(map(str, range(count)))})).keys() == wanted


def test_a_single_value_has_no_interval_but_a_ratio() -> None:
    paired = summarise({"reference": Samples((90.0,)), "v": Samples((30.0,))}, "only", "lower")["v"].paired
    assert paired is not None
    assert paired.ratio is not None
    assert (paired.difference.value, paired.ratio.value, paired.ratio.low, paired.margin) == (-60.0, pytest.approx(1 / 3), None, None)


def test_all_variants_share_the_draws() -> None:
    values = skewed(np.random.default_rng(1), 150)
    samples = {
        "reference": Samples(tuple(values), users(150)),
        "same": Samples(tuple(values), users(150)),
        "less": Samples(tuple(0.9 * values), users(150)),
    }
    found = summarise(samples)
    same, less = found["same"].paired, found["less"].paired
    assert same is not None
    assert less is not None
    assert less.ratio is not None
    assert (same.difference.value, same.difference.low, same.difference.high, same.margin) == (0.0, 0.0, 0.0, 0.0)
    # independent draws would give the ratio an interval of several tenths
    assert (less.ratio.low, less.ratio.value, less.ratio.high) == pytest.approx((0.9, 0.9, 0.9), abs=1e-12)


def test_the_order_of_samples_does_not_matter() -> None:
    generator = np.random.default_rng(2)
    values, ids = skewed(generator, 80), users(80)["user"]
    order = generator.permutation(80)
    one = summarise({"reference": Samples(tuple(values), {"user": ids})})
    other = summarise({"reference": Samples(tuple(values[order]), {"user": tuple(ids[place] for place in order)})})
    assert one == other


def test_samples_of_one_user_are_drawn_together() -> None:
    values, ids = skewed(np.random.default_rng(3), 60), users(60)["user"]
    once = summarise({"reference": Samples(tuple(values), {"user": ids})})["reference"].estimate
    fourfold = summarise({"reference": Samples(tuple(np.repeat(values, 4)), {"user": tuple(np.repeat(ids, 4).tolist())})})["reference"]
    assert once is not None
    assert fourfold.estimate is not None
    assert (fourfold.count, fourfold.units) == (240, {"user": 60})
    assert (fourfold.estimate.low, fourfold.estimate.high) == pytest.approx((once.low, once.high))


def test_crossed_units_are_both_drawn() -> None:
    items = np.repeat(np.random.default_rng(4).normal(size=12), 50)
    names = {"item": tuple(f"i{place // 50}" for place in range(600)), "user": users(50)["user"] * 12}
    crossed = summarise({"reference": Samples(tuple(items), names)})["reference"].estimate
    alone = summarise({"reference": Samples(tuple(items), {"user": names["user"]})})["reference"].estimate
    assert crossed is not None
    assert alone is not None
    # all spread lies between items: drawing users alone sees none of it
    assert alone.high - alone.low == pytest.approx(0.0, abs=1e-9)  # type: ignore[operator]
    error = items[::50].std() / np.sqrt(12)
    assert crossed.high - crossed.low == pytest.approx(2 * 1.96 * error, rel=0.15)  # type: ignore[operator]


def test_bca_equals_scipy_on_the_same_draws() -> None:
    generator = np.random.default_rng(5)
    values = skewed(generator, 90)
    draws = values[generator.integers(0, 90, (4000, 90))].mean(axis=1)
    left_out = (values.sum() - values) / 89
    levels = bca_levels(float(values.mean()), draws, left_out)
    assert levels is not None
    peer = stats.bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=SimpleNamespace(bootstrap_distribution=draws), method="BCa")
    ours = np.quantile(draws, levels)
    assert (ours[0], ours[-1]) == pytest.approx((peer.confidence_interval.low, peer.confidence_interval.high), rel=1e-12)
    assert not np.allclose(levels, LEVELS, atol=1e-3)


def test_rounding_does_not_decide_what_a_tie_is() -> None:
    values = np.round(np.random.default_rng(8).normal(0.9, 0.1, 200), 1)
    draws = values[np.random.default_rng(9).integers(0, 200, (4000, 200))].mean(axis=1)
    left_out = (values.sum() - values) / 199
    exact = bca_levels(round(float(values.mean()), 10), np.round(draws, 10), left_out)
    noisy = bca_levels(float(values.mean()), draws * (1 + 1e-15 * np.random.default_rng(10).choice([-1, 1], 4000)), left_out)
    assert exact == pytest.approx(noisy, abs=1e-12)


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=12).filter(
        lambda pairs: any(weight for _, weight in pairs)
    ),
    st.sampled_from([0.5, 0.95, 0.99, 0.25]),
)
def test_a_weighted_quantile_is_that_of_the_repeated_values(pairs: list[tuple[int, int]], level: float) -> None:
    values, weights = np.array([float(value) for value, _ in pairs]), np.array([weight for _, weight in pairs])
    wanted = np.quantile(np.repeat(values, weights), level, method="averaged_inverted_cdf")
    assert weighted_quantile(values, weights[None], level)[0] == pytest.approx(wanted)


def test_intervals_cover_what_they_promise() -> None:
    """95 % intervals of skewed per-user values hold the truth in 93 to 97 of 100 studies, one-sided bounds too."""
    generator = np.random.default_rng(6)
    studies, count = 700, 250
    hits = {"mean": 0, "difference": 0, "ratio": 0, "bound": 0}
    for _ in range(studies):
        before = skewed(generator, count)
        after = before * generator.uniform(0.5, 1.3, count)
        samples = {"reference": Samples(tuple(before), users(count)), "v": Samples(tuple(after), users(count))}
        found = summarise(samples, resamples=1000)
        alone, paired = found["reference"].estimate, found["v"].paired
        assert alone is not None
        assert paired is not None
        assert paired.ratio is not None
        for key, estimate, truth in (("mean", alone, 0.1), ("difference", paired.difference, -0.01), ("ratio", paired.ratio, 0.9)):
            assert estimate.method == "bca"
            hits[key] += estimate.low <= truth <= estimate.high  # type: ignore[operator]
        hits["bound"] += paired.ratio.at_least <= 0.9  # type: ignore[operator]
    for key, count_of in hits.items():
        assert 0.93 <= count_of / studies <= 0.97, (key, count_of / studies)


def test_the_smallest_loss_shrinks_with_the_root_of_the_users() -> None:
    generator = np.random.default_rng(7)
    margins = []
    for count in (400, 1600):
        before = skewed(generator, count)
        samples = {
            "reference": Samples(tuple(before), users(count)),
            "v": Samples(tuple(before + generator.normal(0, 0.1, count)), users(count)),
        }
        paired = summarise(samples)["v"].paired
        assert paired is not None
        margins.append(paired.margin)
        assert paired.margin == pytest.approx(1.645 * 0.1 / np.sqrt(count), rel=0.12)
    assert margins[0] > 1.7 * margins[1]  # type: ignore[operator]


def test_a_reference_of_zero_has_no_ratio() -> None:
    paired = summarise({"reference": Samples((0.0,) * 20, users(20)), "v": Samples((0.5,) * 20, users(20))})["v"].paired
    assert paired is not None
    assert paired.ratio is None
    assert paired.relative_margin is None


def test_an_unknown_summary_is_refused() -> None:
    with pytest.raises(CompressRecError, match="condensed by 'mode', which is not known: use mean, median"):
        summarise({"reference": Samples((1.0,))}, "mode")
