"""How good a forecast is, always beside the trivial ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc.forecasting.baselines import trivial_forecasts
from sgdmc.forecasting.forecast import Forecast
from sgdmc.show.terminal import cell_text

__all__ = ["Score", "ScoreTable", "score_forecast", "score_samples"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Scores of one forecast against real runs, means over starts and coordinates.

    Attributes
    ----------
    name : str
    w1 : float
        Wasserstein-1 distance of the two laws divided by the range.
    crps : float
        Continuous ranked probability score divided by the range, of the law that is to foretell
        single outcomes (`predictive` of :func:`score_samples`), like all that follows.
    coverage50, coverage90 : float
        Share of real outcomes inside the central 50% and 90% intervals.
    width90, interval90 : float
        Width of the 90% interval and its interval score (Gneiting and Raftery 2007): the width and
        20 times the distance of each outcome outside, both divided by the range.
    basin_accuracy, brier : float or None
        Share of outcomes in the most probable basin; Brier score of the basin probabilities.
    w1_by_start : ndarray, shape (n_starts,)
        For intervals over starts.
    """

    name: str
    w1: float
    crps: float
    coverage50: float
    coverage90: float
    width90: float
    interval90: float
    basin_accuracy: float | None
    brier: float | None
    w1_by_start: Array


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several forecasts on the same starts."""

    scores: tuple[Score, ...]

    def __getitem__(self, name: str) -> Score:
        """Return the score of the forecast called ``name``."""
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"name must be one of {[s.name for s in self.scores]}; got {name!r}.")

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return one dictionary a forecast, numbers as they are."""
        return [
            {
                "forecast": s.name,
                "W1/range": s.w1,
                "CRPS/range": s.crps,
                "cover 50%": s.coverage50,
                "cover 90%": s.coverage90,
                "width 90%": s.width90,
                "interval score 90%": s.interval90,
                "basin accuracy": s.basin_accuracy,
                "Brier": s.brier,
            }
            for s in self.scores
        ]

    def __str__(self) -> str:
        """Format as a plain table."""
        rows = self.rows()
        keys = [k for k in rows[0] if any(row[k] is not None for row in rows)]
        cells = [[cell_text(row[k]) for k in keys] for row in rows]
        widths = [max(len(k), *(len(c[j]) for c in cells)) for j, k in enumerate(keys)]
        lines = ["  ".join(k.ljust(w) for k, w in zip(keys, widths, strict=True))]
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
        return "\n".join(line.rstrip() for line in lines)


def score_samples(
    name: str,
    samples: ArrayLike,
    truth: ArrayLike,
    *,
    scale: ArrayLike,
    minima: ArrayLike | None = None,
    predictive: ArrayLike | None = None,
) -> Score:
    """Compare draws from a forecast with real outcomes, start by start.

    ``W1 = ∫ |F − G|``, ``CRPS = E|X − y| − ½ E|X − X'|``, both divided by ``scale``.

    Parameters
    ----------
    name : str
        Shown in tables.
    samples : array_like, shape (n_starts, n_chains, dim)
        Draws from the forecast.
    truth : array_like, shape (n_starts, n_truth, dim)
        Real outcomes from the same starts.
    scale : array_like, shape (dim,)
        Range of each coordinate; a coordinate of range 0 is left out.
    minima : array_like, shape (k, dim), optional
        Points that name the basins: an outcome belongs to the nearest one (in units of scale).
    predictive : array_like, shape (n_starts, any number, dim), optional
        Draws that are to foretell single outcomes (intervals, CRPS, basins), where the forecast has
        some that carry the uncertainty of its kernel; ``samples`` by default.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite, or every coordinate has range 0.
    """
    x, y = np.asarray(samples, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    width = np.asarray(scale, dtype=np.float64)
    if x.ndim != 3 or y.ndim != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(
            "truth must have shape (n_starts, n_truth, dim) with the forecast's starts and "
            f"coordinates; got {y.shape} beside {x.shape}."
        )
    if not np.isfinite(y).all():
        where = tuple(int(v) for v in np.argwhere(~np.isfinite(y))[0])
        raise ValueError(f"truth must be finite; got {y[where]} at {where}.")
    used = np.flatnonzero(width > 0)
    if not len(used):
        raise ValueError("scale must be positive somewhere; every coordinate is constant.")
    spread = x if predictive is None else np.asarray(predictive, dtype=np.float64)
    p, q, wide = (np.sort(np.swapaxes(v[:, :, used], 1, 2), axis=2) for v in (x, y, spread))
    w1, crps = _w1_and_crps(p, q)
    if predictive is not None:
        crps = _w1_and_crps(wide, q)[1]
    inside50 = _interval(wide, q, 0.5)[0]
    inside90, length, missed = _interval(wide, q, 0.9)
    accuracy = brier = None
    if minima is not None:
        accuracy, brier = _basins(spread, y, np.asarray(minima, dtype=np.float64), width)
    return Score(
        name,
        float((w1 / width[used]).mean()),
        float((crps / width[used]).mean()),
        float(inside50.mean()),
        float(inside90.mean()),
        float((length / width[used]).mean()),
        float((missed / width[used]).mean()),
        accuracy,
        brier,
        (w1 / width[used]).mean(axis=1),
    )


def score_forecast(
    forecast: Forecast | Mapping[str, Forecast],
    truth: ArrayLike,
    *,
    minima: ArrayLike | None = None,
    paths: Sequence[Array] | None = None,
    reference: ArrayLike | None = None,
) -> ScoreTable:
    """Score forecasts against real SGD runs, beside the trivial forecasts.

    Distances are divided by the range of each coordinate over observed runs and starts.

    Parameters
    ----------
    forecast : Forecast, or mapping of names to Forecasts on the same starts and horizon
    truth : array_like, shape (n_starts, n_truth, dim)
        Where real runs from the same starts were at the horizon.
    minima : array_like, shape (k, dim), optional
        Points that name the basins.
    paths : sequence of (T, dim) arrays, optional
        The observed runs, if the (first) forecast's kernel does not carry them.
    reference : array_like, shape (n_starts, n_other, dim), optional
        SGD with other seeds: no forecast can do better.

    Returns
    -------
    ScoreTable
        The forecasts in their order, then SGD itself, then the trivial forecasts.

    Raises
    ------
    ValueError
        As :func:`score_samples`; or if there is no observed path, or horizons differ.
    """
    many = {forecast.kernel.method: forecast} if isinstance(forecast, Forecast) else dict(forecast)
    if not many:
        raise ValueError("forecast must name at least one forecast; got none.")
    first = next(iter(many.values()))
    if any(f.n_steps != first.n_steps for f in many.values()):
        raise ValueError("forecast must have one horizon for all; got different n_steps.")
    observed = tuple(paths) if paths is not None else tuple(first.kernel.paths)
    if not observed:
        raise ValueError("paths must hold at least one observed run; got none. Pass paths=.")
    scale = np.ptp(np.concatenate([*observed, first.starts]), axis=0)
    trivial = trivial_forecasts(
        observed,
        first.starts,
        n_steps=first.n_steps,
        n_chains=first.samples.shape[1],
        rng=np.random.default_rng(first.seed),
    )
    drawn: dict[str, ArrayLike] = {name: f.samples for name, f in many.items()}
    if reference is not None:
        drawn["SGD itself, other seeds"] = reference
    drawn.update(trivial)
    return ScoreTable(
        tuple(
            score_samples(
                name,
                samples,
                truth,
                scale=scale,
                minima=minima,
                predictive=many[name].predictive if name in many else None,
            )
            for name, samples in drawn.items()
        )
    )


def _w1_and_crps(p: Array, q: Array) -> tuple[Array, Array]:
    """W1 of two sorted samples, and the mean CRPS of ``p`` over the outcomes ``q``.

    Samples lie along the last axis, (..., n) and (..., m); the results are (...).
    """
    n, m = p.shape[-1], q.shape[-1]
    points = np.concatenate([p, q], axis=-1)
    order = points.argsort(axis=-1, kind="stable")
    gaps = np.diff(np.take_along_axis(points, order, axis=-1), axis=-1)
    # Two sorted runs: where they tie the gap is zero, whichever is counted first.
    first = np.cumsum(order < n, axis=-1)[..., :-1]
    f, g = first / n, (np.arange(1, n + m) - first) / m
    w1 = (np.abs(f - g) * gaps).sum(axis=-1)
    # E|X-Y| = ∫ F(1-G) + G(1-F); E|X-X'|/2 = ∫ F(1-F).
    crps = ((f * (1 - g) + g * (1 - f) - f * (1 - f)) * gaps).sum(axis=-1)
    return np.asarray(w1), np.asarray(crps)


def _interval(p: Array, q: Array, level: float) -> tuple[Array, Array, Array]:
    """Share of ``q`` in the central interval of ``p``, its width and its interval score.

    Samples lie along the last axis, (..., n) and (..., m); the results are (...).
    """
    low, high = np.quantile(p, [(1 - level) / 2, (1 + level) / 2], axis=-1)[..., None]
    outside = np.maximum(low - q, 0.0) + np.maximum(q - high, 0.0)
    length = (high - low)[..., 0]
    return (outside == 0).mean(axis=-1), length, length + 2 / (1 - level) * outside.mean(axis=-1)


def _basins(x: Array, y: Array, minima: Array, width: Array) -> tuple[float, float]:
    unit = np.where(width > 0, width, 1.0)

    def nearest(values: Array) -> NDArray[np.int64]:
        gaps = (values[..., None, :] - minima) / unit
        return np.asarray((gaps**2).sum(axis=-1).argmin(axis=-1))

    k = len(minima)
    predicted = (nearest(x)[..., None] == np.arange(k)).mean(axis=1)
    actual = (nearest(y)[..., None] == np.arange(k)).mean(axis=1)
    best = predicted.argmax(axis=1)
    accuracy = float(np.take_along_axis(actual, best[:, None], axis=1).mean())
    # E sum_b (p_b - 1{y=b})^2 over outcomes y.
    brier = float((predicted**2 - 2 * predicted * actual + actual).sum(axis=1).mean())
    return accuracy, brier
