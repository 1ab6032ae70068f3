"""The lag of a kernel: how many SGD steps one kernel step stands for.

Snapping to bins at every step is an error of the first order (numerical diffusion, or pinning where
the drift is under half a bin), and what a kernel does not know is drawn again at every kernel step.
Both call for few, long kernel steps; transients and the number of observed transitions bound them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.paths import tail_of
from sgdmc.sgd.run import Run

__all__ = ["choose_lag"]

_MIN_BINS = 3.0
_KERNEL_STEPS = 12
_MIN_KERNEL_STEPS = 8
# The same where the runs have come to rest: where their tails span less than so many bins.
_AT_REST = (4, 3)
_REST = 0.05


def choose_lag(run: Run, *, digits: int, horizon: int | None = None) -> tuple[int, str]:
    """Choose a lag for ``run`` on ``10**digits`` bins, and say why.

    The smallest lag at which the root-mean-square displacement of the slowest coordinate reaches
    three bins, raised so that the horizon is about 12 kernel steps away, and bounded so that it
    stays at least 8 away. Runs that came to rest, as those of a loss without noise do, have no law
    of their limit to lose: 4 and 3 kernel steps.

    Parameters
    ----------
    run : Run
    digits : int
        1 to 3.
    horizon : int, optional
        Steps that forecasts will look ahead; the length of the longest run by default.

    Returns
    -------
    lag : int
        At least 1.
    reason : str
        One line for the kernel's notes.

    Examples
    --------
    >>> walk = Run.from_array(np.cumsum(np.ones(401)))
    >>> choose_lag(walk, digits=2)[0]
    40
    """
    steps = int(run.lengths.max()) - 1
    ahead = steps if horizon is None else max(1, horizon)
    width = run.range / (0.7 * 10**digits)
    moving = width > 0
    usual, fewest = _AT_REST if _rests(run, width) else (_KERNEL_STEPS, _MIN_KERNEL_STEPS)
    longest = max(1, min(ahead, steps) // fewest)
    wanted = max(1, round(ahead / usual))
    lag = min(wanted, longest)
    while lag < longest and moving.any():
        gaps = np.concatenate([p[lag:] - p[:-lag] for p in run.paths if len(p) > lag])
        rms = np.sqrt((gaps[:, moving] ** 2).mean(axis=0)) / width[moving]
        if rms.min() >= _MIN_BINS:
            break
        lag = min(longest, max(lag + 1, int(lag * 1.25)))
    lag = _dividing(ahead, lag, longest)
    unit = "SGD" if run.thin == 1 else "recorded"
    return lag, (
        f"lag {lag}: one kernel step stands for {lag} {unit} steps, so that {ahead} steps are "
        f"{ahead / lag:.3g} kernel steps away"
    )


def _rests(run: Run, width: NDArray[np.float64]) -> bool:
    """Whether the last fifth of every run moves by far less than a bin, in all."""
    return all((np.ptp(tail_of(p), axis=0) <= _REST * width).all() for p in run.paths)


def _dividing(ahead: int, lag: int, longest: int) -> int:
    """Return the divisor of the horizon nearest to ``lag``, if one is within a third of it."""
    near = [k for k in range(1, longest + 1) if ahead % k == 0 and 0.75 * lag <= k <= 1.34 * lag]
    return min(near, key=lambda k: abs(k - lag)) if near else lag
