"""Everything that was found in the plural folders, with its one-line card."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from compress_rec import ops
from compress_rec.baseline import BASELINES
from compress_rec.explainer import EXPLAINERS
from compress_rec.export import EXPORTS
from compress_rec.measure import MEASURES
from compress_rec.op import backend
from compress_rec.perturbation import PERTURBATIONS
from compress_rec.recipe import RECIPES


def cards() -> Mapping[str, Mapping[str, str]]:
    """Return kind -> name -> card."""
    return {
        "recipe": RECIPES.cards(),
        "measure": MEASURES.cards(),
        "baseline": BASELINES.cards(),
        "explainer": EXPLAINERS.cards(),
        "perturbation": PERTURBATIONS.cards(),
        "export": EXPORTS.cards(),
        "op": _ops(),
    }


def _ops() -> Mapping[str, str]:
    found = {}
    for info in pkgutil.iter_modules(ops.__path__, ops.__name__ + "."):
        name = info.name.rpartition(".")[2]
        doc = (importlib.import_module(info.name).__doc__ or "").strip().partition("\n")[0]
        found[name] = f"{doc} (served by: {backend(name)})"
    return found
