"""Data of the paper's Fig. 5, scaling laws by spectral gap; :mod:`sgdmc.show.figures` draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sgdmc.forecasting.scaling import (
    InContextCurve,
    PowerLaw,
    fit_power_law,
    in_context_curve,
    two_state_chain,
)

__all__ = ["GAPS", "ScalingStudy", "scaling_study"]

GAPS = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 1.9)
SHOWN = {"llm": "llm", "Krichevsky–Trofimov": "counts", "Laplace": "dirichlet"}


@dataclass(frozen=True)
class ScalingStudy:
    """In-context curves of two-state chains and the power laws fitted to them.

    Attributes
    ----------
    curves : dict of float to InContextCurve
        Keyed by ``rho = p + q``.
    laws : dict of (float, str) to PowerLaw
        Keyed by ``rho`` and estimator.
    """

    curves: dict[float, InContextCurve]
    laws: dict[tuple[float, str], PowerLaw]

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return one dictionary a chain and estimator."""
        return [
            {
                "rho": f"{rho:g}",
                "estimator": name,
                "beta": law.beta,
                "low": law.beta_interval[0],
                "high": law.beta_interval[1],
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
    n_repeats: int = 10,
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
        Longest context, in symbols.
    n_repeats : int
        Paths a chain.
    rng : int
        Covers every draw.
    on_done : callable, optional
        Called after each chain.
    """
    lengths = np.unique(np.geomspace(10, longest, 9).astype(int))
    curves, laws = {}, {}
    for k, rho in enumerate(gaps):
        curve = in_context_curve(
            two_state_chain(rho),
            model=model,
            lengths=lengths,
            n_repeats=n_repeats,
            rng=np.random.default_rng([rng, k]),
        )
        curves[rho] = curve
        for name in SHOWN:
            laws[rho, name] = fit_power_law(lengths, curve.losses[name], rng=rng)
        if on_done:
            on_done()
    return ScalingStudy(curves, laws)
