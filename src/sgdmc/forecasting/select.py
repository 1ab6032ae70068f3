"""Which estimator to trust with a run: the one that foretells its held-out steps best.

Estimators that step parameters have draws but no density, so that held-out steps are judged by the
energy score ``E‖X − y‖ − ½ E‖X − X'‖`` (Gneiting and Raftery 2007), which is proper like a
likelihood: it is lowest in expectation for the true law.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.forecast import Forecaster
from sgdmc.sgd.run import Run

__all__ = ["choose_method", "energy_score"]

Array = NDArray[np.float64]

_N_FOLDS = 3
_MAX_JUDGED = 60
_N_DRAWS = 128


def energy_score(draws: Array, outcomes: Array) -> Array:
    """Energy score of draws (m, k, dim) against outcomes (m, dim): shape (m,), lower is better.

    Examples
    --------
    >>> energy_score(np.zeros((1, 4, 2)), np.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    to_outcome = np.linalg.norm(draws - outcomes[:, None], axis=2).mean(axis=1)
    # Draws are exchangeable: neighbours in order are independent pairs.
    apart = np.linalg.norm(draws - np.roll(draws, 1, axis=1), axis=2).mean(axis=1)
    return np.asarray(to_outcome - 0.5 * apart)


def choose_method(
    run: Run, lag: int, fit: Callable[[Run, str], Forecaster], candidates: Sequence[str]
) -> tuple[str, str]:
    """Choose among estimators by their energy score on held-out steps.

    Parameters
    ----------
    run : Run
    lag : int
        Steps of a kernel step.
    fit : callable
        Makes a kernel from a run and the name of a method.
    candidates : sequence of str

    Returns
    -------
    method : str
    reason : str
        The scores, in units of the range, for the kernel's notes.

    Notes
    -----
    Every run is cut into three stretches; each third of the stretches is held out in turn. With
    fewer than ``4 lag`` steps a stretch is too short to learn from, and the first candidate is
    returned.
    """
    paths = run.paths
    stretches = [
        part
        for path in paths
        for part in (np.array_split(path, _N_FOLDS) if len(paths) < _N_FOLDS else [path])
    ]
    if sum(len(s) > 2 * lag for s in stretches) < _N_FOLDS:
        return candidates[0], f"{candidates[0]}: the run is too short to hold steps out"
    width = np.where(run.range > 0, run.range, 1.0)
    totals = dict.fromkeys(candidates, 0.0)
    judged = 0
    for fold in range(_N_FOLDS):
        held = [s for k, s in enumerate(stretches) if k % _N_FOLDS == fold and len(s) > lag]
        kept = [s for k, s in enumerate(stretches) if k % _N_FOLDS != fold and len(s) > 2 * lag]
        if not held or not kept:
            continue
        before = np.concatenate([s[:-lag] for s in held])
        after = np.concatenate([s[lag:] for s in held])
        picks = np.linspace(0, len(before) - 1, min(_MAX_JUDGED, len(before))).astype(int)
        training = Run.from_paths(list(kept), names=run.names)
        for name in candidates:
            draws = fit(training, name).advance(
                before[picks], n_steps=lag, n_chains=_N_DRAWS, rng=np.random.default_rng(fold)
            )
            totals[name] += float(energy_score(draws / width, after[picks] / width).sum())
        judged += len(picks)
    scores = {name: total / max(judged, 1) for name, total in totals.items()}
    best = min(scores, key=lambda name: scores[name])
    listed = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
    return best, f"method {best}: lowest held-out energy score ({listed})"
