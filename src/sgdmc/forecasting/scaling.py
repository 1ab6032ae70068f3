"""In-context scaling laws: how the error of a row falls with the length of the context.

The loss at length ``t`` is a distance of the estimated law of the next state, after ``t`` symbols,
to the chain's true row; a power law ``a t^(−β) + c`` is fitted to its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc.chain.distances import bhattacharyya, kl_divergence
from sgdmc.chain.spectrum import stationary_distribution
from sgdmc.chain.transitions import simulate_chain

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = [
    "SMOOTHING",
    "InContextCurve",
    "PowerLaw",
    "count_rows",
    "expected_counting_loss",
    "fit_power_law",
    "in_context_curve",
    "two_state_chain",
]

Array = NDArray[np.float64]

_DISTANCES = {"bhattacharyya": bhattacharyya, "kl": kl_divergence}
# Added to each cell; "counts" is maximum likelihood, and uniform where a row was never left.
SMOOTHING = {"counts": 1e-9, "Krichevsky–Trofimov": 0.5, "Laplace": 1.0}


@dataclass(frozen=True)
class InContextCurve:
    """Losses by context length.

    Attributes
    ----------
    lengths : ndarray, shape (k,)
        Symbols seen.
    losses : dict of str to ndarray, shape (n_repeats, k)
        ``"llm"`` and the counting estimators, on the same paths.
    distance : str
    """

    lengths: NDArray[np.int64]
    losses: dict[str, Array]
    distance: str


@dataclass(frozen=True)
class PowerLaw:
    """A fit of ``loss(t) = a t^(−beta) + floor``.

    Attributes
    ----------
    a, beta, floor : float
    beta_interval : tuple of float
        95% bootstrap interval over repeats (both ends equal to ``beta`` for a single curve).
    residual : float
        Root mean square of the log residuals.
    """

    a: float
    beta: float
    floor: float
    beta_interval: tuple[float, float]
    residual: float

    def __call__(self, lengths: ArrayLike) -> Array:
        """Evaluate the fitted law at context lengths."""
        t = np.asarray(lengths, dtype=np.float64)
        return np.asarray(self.a * t**-self.beta + self.floor)


def two_state_chain(rho: float, *, ratio: float = 1.0) -> Array:
    """Two-state chain ``[[1−p, p], [q, 1−q]]`` with ``p + q = rho`` and ``p / q = ratio``.

    ``|λ₂| = |1 − rho|``; the absolute spectral gap is ``min(rho, 2 − rho)``.

    Raises
    ------
    ValueError
        If ``rho`` is not in (0, 2), ``ratio`` is not positive, or a probability exceeds one.

    Examples
    --------
    >>> two_state_chain(0.5).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    if not 0 < rho < 2 or ratio <= 0:
        raise ValueError(f"rho must lie in (0, 2) and ratio be positive; got {rho} and {ratio}.")
    q = rho / (1 + ratio)
    p = rho - q
    if max(p, q) > 1:
        raise ValueError(f"rho and ratio must give probabilities; got p = {p:.3g}, q = {q:.3g}.")
    return np.array([[1 - p, p], [q, 1 - q]])


def count_rows(states: ArrayLike, *, n_states: int, alpha: float) -> Array:
    """Posterior mean of the present state's row after each symbol: (T, n), ``alpha`` a cell.

    Row ``t`` is ``(N_t(s_t, ·) + alpha) / (N_t(s_t) + n alpha)``, with the transitions among the
    first ``t + 1`` symbols counted; ``alpha = ½`` is Krichevsky–Trofimov, 1 is Laplace.

    Examples
    --------
    >>> count_rows([0, 1, 0], n_states=2, alpha=1.0)[-1].round(3).tolist()
    [0.333, 0.667]
    """
    path = np.asarray(states)
    counts = np.full((n_states, n_states), float(alpha))
    out = np.empty((len(path), n_states))
    for t, state in enumerate(path):
        if t:
            counts[path[t - 1], state] += 1
        out[t] = counts[state] / counts[state].sum()
    return out


def in_context_curve(
    P: ArrayLike,
    *,
    model: str | LanguageModel = "shipped",
    lengths: Sequence[int] | NDArray[np.int64],
    n_repeats: int = 10,
    distance: str = "bhattacharyya",
    rng: int | np.random.Generator | None = None,
) -> InContextCurve:
    """Measure how well a language model, and counting, know a chain after ``t`` symbols.

    Parameters
    ----------
    P : array_like, shape (n, n)
        True transition matrix, 2 to 10 states, irreducible.
    model : str or LanguageModel
        As in :func:`sgdmc.estimate_kernel`.
    lengths : sequence of int
        Context lengths, each at least 1.
    n_repeats : int
        Independent stationary paths.
    distance : {"bhattacharyya", "kl"}
        Of the estimated row to the true one.
    rng : int, Generator or None
        Covers every draw.

    Returns
    -------
    InContextCurve

    Raises
    ------
    ValueError
        If the chain has more than ten states, a length is below one, or the distance is unknown.
    """
    from sgdmc.llm.reader import next_state_laws

    matrix = np.asarray(P, dtype=np.float64)
    measure = _checked_distance(distance)
    at = _checked_lengths(lengths)
    n = len(matrix)
    if not 2 <= n <= 10:
        raise ValueError(f"P must have 2 to 10 states, one symbol each; got {n}.")
    generator = np.random.default_rng(rng)
    begins = generator.choice(n, size=n_repeats, p=stationary_distribution(matrix))
    paths = simulate_chain(matrix, begins, n_steps=int(at.max()) - 1, rng=generator)
    losses: dict[str, list[Array]] = {name: [] for name in ("llm", *SMOOTHING)}
    for path in paths:
        truth = matrix[path[at - 1]]
        rows = {"llm": next_state_laws(path, model=model, n_states=n)[0]}
        for name, alpha in SMOOTHING.items():
            rows[name] = count_rows(path, n_states=n, alpha=alpha)
        for name, found in rows.items():
            losses[name].append(measure(truth, found[at - 1]))
    return InContextCurve(at, {k: np.array(v) for k, v in losses.items()}, distance)


def expected_counting_loss(
    P: ArrayLike, *, lengths: ArrayLike, alpha: float, distance: str = "bhattacharyya"
) -> Array:
    """Expected loss of counting in a stationary two-state chain, exactly.

    ``E D(P(s_t, ·), (N(s_t, ·) + alpha) / (N(s_t) + 2 alpha))`` over paths of ``t`` symbols, as a
    sum over the present state, how often it was left and how often for the other one. For large
    ``t`` it tends to ``c Σ_s π_s / (π_s t) = 2c/t``, with ``c = 1/8`` for the Bhattacharyya
    distance and ``1/2`` for KL.

    Parameters
    ----------
    P : array_like, shape (2, 2)
        Transition matrix without zeros.
    lengths : array_like of int, shape (k,)
        Context lengths, each at least 1.
    alpha : float
        Added to each cell, positive.
    distance : {"bhattacharyya", "kl"}
        Of the estimated row to the true one.

    Returns
    -------
    ndarray, shape (k,)

    Raises
    ------
    ValueError
        If `P` is not two by two or has a zero, a length is below one, `alpha` is not positive, or
        the distance is unknown.

    Notes
    -----
    A path that ends in ``s`` is given by the moves out of each state, in order: ``N`` from ``s``,
    of which ``K`` leave it, and ``t − 1 − N`` from the other state, of which the last one leaves
    it, as do ``K − 1`` before, or ``K`` where the path began there. So the number of paths is a
    product of two binomial coefficients. Cost ``O(t²)`` a length.

    Examples
    --------
    >>> P = two_state_chain(0.5)
    >>> loss = expected_counting_loss(P, lengths=[1, 1000], alpha=0.5)
    >>> bool(np.isclose(loss[0], bhattacharyya([0.75, 0.25], [0.5, 0.5])))
    True
    >>> round(float(4 * 1000 * loss[1]), 2)
    1.0
    """
    matrix = np.asarray(P, dtype=np.float64)
    at = _checked_lengths(lengths)
    measure = _checked_distance(distance)
    if matrix.shape != (2, 2) or not (matrix > 0).all():
        raise ValueError(f"P must have two states and no zero; got {matrix.tolist()}.")
    if not alpha > 0:
        raise ValueError(f"alpha must be positive; got {alpha}.")
    pi = stationary_distribution(matrix)
    means = np.zeros(len(at))
    for s in (0, 1):
        for k, t in enumerate(at):
            left, moved, weight = _visits(matrix[s, 1 - s], matrix[1 - s, s], pi[s], int(t))
            counts = [moved, left - moved] if s else [left - moved, moved]
            rows = (np.stack(counts, axis=-1) + alpha) / (left + 2 * alpha)[:, None]
            means[k] += weight @ measure(matrix[s], rows)
    return means


def _visits(p: float, q: float, pi: float, t: int) -> tuple[Array, Array, Array]:
    """How often the last state of ``t`` symbols was left, for the other one, and the weights.

    ``p`` leaves that state, ``q`` the other one; the weights sum to ``pi``.
    """
    left, moved = (x.ravel() for x in np.mgrid[0:t, 0 : (t + 1) // 2])
    other = t - 1 - left
    kept = (moved <= left) & (moved <= other)
    left, moved, other = left[kept], moved[kept], other[kept]
    binomial = _log_choose(left, moved, t) + moved * np.log(p) + (left - moved) * np.log1p(-p)
    returns = moved * np.log(q) + (other - moved) * np.log1p(-q)
    with np.errstate(divide="ignore"):
        # The last move out of the other state leads here: it is not among those to be arranged.
        here = np.where(
            moved > 0,
            _log_choose(other - 1, moved - 1, t) + returns,
            np.where(other == 0, 0.0, -np.inf),
        )
        there = np.where(
            other > moved,
            _log_choose(other - 1, moved, t) + returns + np.log(q) - np.log1p(-q),
            -np.inf,
        )
    weight = pi * np.exp(binomial + here) + (1 - pi) * np.exp(binomial + there)
    return left.astype(np.float64), moved.astype(np.float64), weight


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64], most: int) -> Array:
    """Logarithms of binomial coefficients of numbers up to ``most``; nonsense for ``n < k``."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    return np.asarray(logs[n] - logs[k] - logs[n - k])


def _checked_lengths(lengths: ArrayLike) -> NDArray[np.int64]:
    at = np.asarray(lengths, dtype=np.int64)
    if not len(at) or at.min() < 1:
        raise ValueError(f"lengths must be at least 1; got {at.tolist()}.")
    return at


def _checked_distance(distance: str) -> Callable[[ArrayLike, ArrayLike], Array]:
    if distance not in _DISTANCES:
        raise ValueError(f"distance must be one of {tuple(_DISTANCES)}; got {distance!r}.")
    return _DISTANCES[distance]


def fit_power_law(
    lengths: ArrayLike,
    losses: ArrayLike,
    *,
    floor: bool = False,
    n_bootstrap: int = 200,
    rng: int | np.random.Generator | None = 0,
) -> PowerLaw:
    """Fit ``a t^(−beta) (+ floor)`` to mean losses, in logarithms.

    Parameters
    ----------
    lengths : array_like, shape (k,)
        Context lengths, at least 3 of them (4 with a floor).
    losses : array_like, shape (k,) or (n_repeats, k)
        Positive losses; repeats give the interval of ``beta``.
    floor : bool
        Whether to fit a constant that stays.
    n_bootstrap : int
        Resamples of the repeats.
    rng : int, Generator or None
        For the bootstrap.

    Returns
    -------
    PowerLaw

    Raises
    ------
    ValueError
        If there are too few lengths, or a mean loss is not positive.

    Examples
    --------
    >>> t = np.array([10, 100, 1000])
    >>> round(fit_power_law(t, 3.0 * t**-0.5).beta, 6)
    0.5
    """
    t = np.asarray(lengths, dtype=np.float64)
    values = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    if len(t) < (4 if floor else 3) or values.shape[1] != len(t):
        raise ValueError(
            f"lengths must have at least {4 if floor else 3} entries, one a loss; got {len(t)} "
            f"for losses of shape {values.shape}."
        )
    mean = values.mean(axis=0)
    if not (mean > 0).all():
        raise ValueError(f"losses must have positive means; got {mean.min()} at length {t[0]}.")
    a, beta, constant = _fit(t, mean, floor)
    interval = (beta, beta)
    if len(values) > 1:
        generator = np.random.default_rng(rng)
        found = []
        for _ in range(n_bootstrap):
            again = values[generator.integers(len(values), size=len(values))].mean(axis=0)
            if (again > 0).all():
                found.append(_fit(t, again, floor)[1])
        low, high = np.quantile(found, [0.025, 0.975])
        interval = (float(low), float(high))
    residual = np.log(mean) - np.log(a * t**-beta + constant)
    return PowerLaw(a, beta, constant, interval, float(np.sqrt((residual**2).mean())))


def _fit(t: Array, mean: Array, floor: bool) -> tuple[float, float, float]:
    slope, shift = np.polyfit(np.log(t), np.log(mean), 1)
    if not floor:
        return float(np.exp(shift)), float(-slope), 0.0
    from scipy.optimize import least_squares

    def gap(x: Array) -> Array:
        return np.asarray(np.log(np.exp(x[0]) * t ** -np.exp(x[1]) + np.exp(x[2])) - np.log(mean))

    begin = [shift, np.log(max(-slope, 0.05)), np.log(mean.min() / 2)]
    x = least_squares(gap, begin).x
    return float(np.exp(x[0])), float(np.exp(x[1])), float(np.exp(x[2]))
