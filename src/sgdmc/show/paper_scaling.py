"""Data of the paper's Fig. 5, scaling laws by spectral gap; :mod:`sgdmc.show.figures` draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.scaling import (
    SMOOTHING,
    InContextCurve,
    PowerLaw,
    expected_counting_loss,
    fit_power_law,
    in_context_curve,
    two_state_chain,
)

__all__ = ["GAPS", "ScalingStudy", "scaling_study"]

GAPS = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 1.9)


@dataclass(frozen=True)
class ScalingStudy:
    """In-context curves of two-state chains, and the power laws fitted to them.

    Attributes
    ----------
    curves : dict of float to InContextCurve
        Keyed by ``rho = p + q``; Bhattacharyya distances.
    laws : dict of (float, str) to PowerLaw
        Keyed by ``rho`` and estimator: ``"llm"``, ``"counts"`` (maximum likelihood), and the Bayes
        estimators under a Jeffreys prior (``"Krichevsky–Trofimov"``) and a uniform one
        (``"Laplace"``).
    expected : dict of (float, str) to ndarray, shape (k,)
        Exact expected losses of the counting estimators, for which ``curves`` hold samples.
    expected_laws : dict of (float, str) to PowerLaw
        Fitted to those.
    """

    curves: dict[float, InContextCurve]
    laws: dict[tuple[float, str], PowerLaw]
    expected: dict[tuple[float, str], NDArray[np.float64]]
    expected_laws: dict[tuple[float, str], PowerLaw]

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return one dictionary a chain and estimator; no exact beta for the language model."""
        return [
            {
                "rho": f"{rho:g}",
                "estimator": name,
                "beta": law.beta,
                "low": law.beta_interval[0],
                "high": law.beta_interval[1],
                "exact beta": exact.beta
                if (exact := self.expected_laws.get((rho, name)))
                else None,
                "a": law.a,
                "last loss": float(self.curves[rho].losses[name][:, -1].mean()),
            }
            for (rho, name), law in self.laws.items()
        ]


def scaling_study(
    *,
    model: str = "shipped",
    gaps: Sequence[float] = GAPS,
    longest: int = 1000,
    n_repeats: int = 64,
    rng: int = 0,
    on_done: Callable[[], None] | None = None,
) -> ScalingStudy:
    """Measure in-context curves of two-state chains and fit ``a t^(−beta)`` to them.

    Parameters
    ----------
    model : str
        As in :func:`sgdmc.estimate_kernel`.
    gaps : sequence of float
        Values of ``rho = p + q`` in (0, 2).
    longest : int
        Longest context, in symbols; the shortest has 10.
    n_repeats : int
        Paths a chain. Losses of slow chains are skewed: with ten paths the intervals are rough.
    rng : int
        Covers every draw.
    on_done : callable, optional
        Called after each chain.
    """
    lengths = np.unique(np.geomspace(10, longest, 9).astype(int))
    curves, laws, expected, expected_laws = {}, {}, {}, {}
    for k, rho in enumerate(gaps):
        matrix = two_state_chain(rho)
        curve = in_context_curve(
            matrix,
            model=model,
            lengths=lengths,
            n_repeats=n_repeats,
            rng=np.random.default_rng([rng, k]),
        )
        curves[rho] = curve
        for name, losses in curve.losses.items():
            laws[rho, name] = fit_power_law(lengths, losses, rng=rng)
        for name, alpha in SMOOTHING.items():
            exact = expected_counting_loss(matrix, lengths=lengths, alpha=alpha)
            expected[rho, name] = exact
            expected_laws[rho, name] = fit_power_law(lengths, exact)
        if on_done:
            on_done()
    return ScalingStudy(curves, laws, expected, expected_laws)
