"""How sure a mean is: bootstrap confidence intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS_AT_ONCE = 1 << 20
"""Thousands of items, ten thousand times, are gigabytes."""


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean; of paired differences it says whether one side is better.

    Args:
        values: [N], one an independent item (a video, a picture).
        weights: [N], positive; such as the number of objects of a video, if the mean is over these
            while videos are drawn. All alike if None.
        confidence: between 0 and 1.
        num_resamples: how often N values are drawn with replacement.
        seed: of the draws; the same gives the same interval.

    Raises:
        ValueError: if `values` is not [N] with N > 0, `weights` do not fit, or `confidence` is not
            between 0 and 1.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"values must be [N] with at least one, got {list(sample.shape)}")
    weight = np.ones_like(sample) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != sample.shape or not (weight > 0).all():
        raise ValueError(f"weights must be {list(sample.shape)} and positive, got {weight}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    rng, means = np.random.default_rng(seed), np.empty(num_resamples)
    at_once = max(1, DRAWS_AT_ONCE // sample.size)
    for start in range(0, num_resamples, at_once):
        part = means[start : start + at_once]
        draws = rng.integers(0, sample.size, (len(part), sample.size))
        part[:] = (sample * weight)[draws].sum(axis=1) / weight[draws].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(np.average(sample, weights=weight)), float(low), float(high))
