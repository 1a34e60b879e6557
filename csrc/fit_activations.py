"""Fits the polynomials of cpu/activations_avx2.h and prints them as they stand there: ``python csrc/fit_activations.py``.

Minimax fits on Chebyshev points by Lawson's algorithm (weighted least squares, the weights multiplied by the error until it is level).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import Polynomial, chebyshev
from scipy.special import ndtr

POINTS, ROUNDS = 4000, 60


def fitted(function: Callable, low: float, high: float, degree: int, weight: Callable) -> tuple[np.ndarray, float]:
    """Return the coefficients over -1 … 1, the constant first, and the largest weighted error."""
    t = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    x = (low + high) / 2 + (high - low) / 2 * t
    y, scale = function(x), weight(x)
    table, level = chebyshev.chebvander(t, degree), np.ones(POINTS)
    for _ in range(ROUNDS):
        rows = np.sqrt(level) * scale
        found = np.linalg.lstsq(table * rows[:, None], y * rows, rcond=None)[0]
        error = np.abs((table @ found - y) * scale)
        level *= error / error.max() + 1e-3
        level /= level.sum()
    return chebyshev.cheb2poly(found), float(error.max())


def bell(t: np.ndarray) -> np.ndarray:
    """(Φ(x) - 1/2) / x of t = x²."""
    x = np.sqrt(np.maximum(t, 1e-30))
    return (ndtr(x) - 0.5) / x


def main() -> None:
    for name, end, degree in (("gelu", 5.2, 13), ("rough gelu", 4.5, 9)):
        # gelu's error is x² times that of R
        terms, error = fitted(bell, 1e-12, end * end, degree, lambda t: np.maximum(t, 1e-3))
        print(f"{name}, up to |x| = {end}, in u = 2 x² / {end}² - 1, off by {error:.1e}; the highest first:")
        print("  " + ", ".join(f"{float(np.float32(term))!r}f" for term in terms[::-1]))
    terms, error = fitted(lambda f: 2.0**f, -0.5, 0.5, 5, lambda f: 2.0**-f)
    print(f"2^f for |f| up to 1/2, off by {error:.1e} of it; the highest first:")
    print("  " + ", ".join(f"{float(np.float32(term))!r}f" for term in Polynomial(terms)(Polynomial([0, 2])).coef[::-1]))


if __name__ == "__main__":
    main()
