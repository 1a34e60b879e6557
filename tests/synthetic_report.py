"""A report of invented figures, seeded: it exercises every part of the report and says nothing about any model."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress_rec.measure import Samples
from compress_rec.report import BUILD, Report, Row

USERS = tuple(f"u{number:03d}" for number in range(240))
REPEATS = tuple(str(number) for number in range(60))
# name -> (steps, how much of the reference's accuracy is kept, time against it, bytes)
VARIANTS: dict[str, tuple[tuple[Any, ...], float, float, int]] = {
    "reference": ((), 1.0, 1.0, 90_900_000),
    "int8": (("quantize_int8",), 0.98, 0.53, 23_100_000),
    "svd-half": (({"recipe": "factorize", "kept": 0.5},), 0.93, 0.74, 58_300_000),
    "short-int8": (({"recipe": "drop_layers", "keep": 3}, "quantize_int8"), 0.86, 0.29, 17_800_000),
}
BASELINES = {
    "popularity": (0.45, 0.0),
    "id lookup": (1.05, 0.02),
    "attribute ridge": (0.5, 0.42),
    "zero-shot": (0.3, 0.4),
    "static average": (0.99, 0.45),
}
KINDS: tuple[tuple[str, str, str, str], ...] = (
    ("ndcg@10", "", "higher", "mean"),
    ("recall@10", "", "higher", "mean"),
    ("cold_recall@10", "", "higher", "mean"),
    ("overlap@10", "", "higher", "mean"),
    ("latency[role=text,batch=1]", "ms", "lower", "median"),
    ("latency[role=item,batch=32]", "ms", "lower", "median"),
    ("throughput[role=text,batch=32]", "texts/s", "higher", "median"),
    ("disk_bytes", "bytes", "lower", "only"),
    ("parameters", "", "lower", "only"),
    ("faithfulness", "", "higher", "mean"),
    ("attribution_agreement", "", "higher", "mean"),
    ("exposure_lift", "×", "neither", "mean"),
    ("unheard_of", "furlongs", "neither", "mean"),
)


def synthetic_report(seed: int = 0) -> Report:
    """Build the report: one failed measure, one variant that could not be made, undefined values, measures that do not apply."""
    generator = np.random.default_rng(seed)
    taste = (generator.random(len(USERS)) < 0.35) * generator.random(len(USERS))
    cold = (generator.random(len(USERS)) < 0.4).astype(float)
    drift = generator.lognormal(0, 0.05, len(REPEATS))
    rows: list[Row] = []
    for measure, unit, better, summary in KINDS:
        for name, (steps, kept, pace, size) in VARIANTS.items():
            if (name, measure) == ("short-int8", "faithfulness"):
                rows.append(Row(name, steps, measure, unit, better, None, "the history of <every> user was empty", summary=summary))
                continue
            samples = _samples(generator, measure, kept, pace, size, taste, cold, drift)
            rows.append(Row(name, steps, measure, unit, better, samples, summary=summary))
        for name, (kept, cold_kept) in BASELINES.items():
            if measure in ("ndcg@10", "recall@10"):
                samples = _samples(generator, measure, kept, 1, 1, taste, cold, drift)
            elif measure == "cold_recall@10":
                samples = _samples(generator, measure, cold_kept, 1, 1, taste, cold, drift)
            else:
                rows.append(
                    Row(name, (), measure, unit, better, None, kind="baseline", summary=summary, not_applicable="a baseline has no tower")
                )
                continue
            rows.append(Row(name, (), measure, unit, better, samples, kind="baseline", summary=summary))
    broken = "'tucker' cannot follow 'quantize_int8': put it before"
    rows.append(Row("int8-tucker", ("quantize_int8", "tucker"), BUILD, "", "neither", None, broken))
    return Report(_environment(), tuple(rows), _extras(generator))


def _samples(
    generator: np.random.Generator,
    measure: str,
    kept: float,
    pace: float,
    size: int,
    taste: np.ndarray,
    cold: np.ndarray,
    drift: np.ndarray,
) -> Samples:
    users = {"user": USERS}
    if measure.startswith(("ndcg", "recall")):
        values = taste * kept + (kept != 1) * generator.normal(0, 0.05, len(USERS)) * (taste > 0)
        return Samples(tuple(np.clip(values, 0, 1).tolist()), users)
    if measure.startswith("cold_recall"):
        held = cold * (generator.random(len(USERS)) < kept)
        return Samples(tuple(None if place % 10 == 0 else float(value) for place, value in enumerate(held)), users)
    if measure.startswith("overlap"):
        return Samples(
            tuple(
                (np.round(10 * np.clip(generator.normal(kept**3, 0.1, len(USERS)), 0, 1)) / 10).tolist()
                if kept != 1
                else [1.0] * len(USERS)
            ),
            users,
        )
    if measure.startswith(("latency", "throughput")):
        batch = 14.0 if "item" in measure else 1.0
        times = 8.2 * batch * pace * drift * generator.lognormal(0, 0.03, len(drift))
        notes = {"threads": 1, "kernel": "avx2" if pace != 1 else "reference"}
        return Samples(tuple((32_000 / times if measure.startswith("through") else times).tolist()), {"repeat": REPEATS}, notes=notes)
    if measure in ("disk_bytes", "parameters"):
        return Samples((float(size if measure == "disk_bytes" else size // 4),))
    if measure == "exposure_lift":
        items = tuple(f"i{number}" for number in range(6) for _ in range(20))
        return Samples(tuple(generator.normal(1.4 / kept, 0.2, 120).tolist()), {"item": items, "user": USERS[:20] * 6})
    level = {"faithfulness": 0.8, "attribution_agreement": 0.9 * kept}.get(measure, 3.0)
    return Samples(tuple(generator.normal(level, 0.1, 60).tolist()), {"user": USERS[:60]})


def _environment() -> dict[str, Any]:
    versions = {"compress_rec": "0.1.0", "torch": "2.13.0", "python": "3.11.7"}
    ops = {"cosine_top_k": {"backend": "avx2", "fallback": None}, "int8_linear": {"backend": "reference", "fallback": "no compiled kernel"}}
    return {
        "cpu": "an invented CPU",
        "tier": "avx2",
        "memory": 8_000_000_000,
        "threads": 1,
        "commit": "0123abc",
        "versions": versions,
        "ops": ops,
    }


def _extras(generator: np.random.Generator) -> dict[str, Any]:
    titles = [
        "Star <Trek> III (1984)",
        "Alien (1979)",
        "Amadeus (1984)",
        "Fargo (1996)",
        "Dune (1984)",
        "Heat (1995)",
        "Ran (1985)",
        "Brazil (1985)",
    ]
    shown = []
    for user, item in (("u001", "Blade Runner (1982)"), ("u002", "The Big Lebowski (1998)")):
        before = generator.normal(0.02, 0.06, len(titles))
        for variant in ("int8", "short-int8"):
            after = before + generator.normal(0, 0.01 if variant == "int8" else 0.06, len(titles))
            one = {"user": user, "item_title": item, "variant": variant, "units": titles}
            shown.append(one | {"reference": before.tolist(), "variant_values": after.tolist()})
    return {
        "title": "Synthetic figures: a fixture, no measurement",
        "data": {"name": "invented users", "users": 240, "items": 400, "events": 9000},
        "explanations": shown,
        "gates": {"ndcg@10": {"at_least": 0.95, "of": "reference"}, "disk_bytes": {"at_most": 60_000_000}},
    }
