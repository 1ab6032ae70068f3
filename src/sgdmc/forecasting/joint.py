"""A joint kernel off a language model: coordinates interleaved in one text, none independent.

The chain rule over the model's own tokens is the joint kernel, ``P(s'¹ | s) P(s'² | s, s'¹) …``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.grid import Grid
from sgdmc.forecasting.rows import phases
from sgdmc.forecasting.stepped import Step, SteppedKernel
from sgdmc.forecasting.var import lagged_pairs, stable, var1_fit

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = ["joint_kernel"]

Array = NDArray[np.float64]

# States at which the model's own line is found, and draws at each.
_PLACES, _DRAWS_A_PLACE = 150, 4


def joint_kernel(
    paths: tuple[Array, ...],
    grid: Grid,
    *,
    lag: int,
    model: LanguageModel,
    names: tuple[str, ...],
    mirror: bool = False,
    recalibrate: bool = True,
    max_context: int | None = None,
    notes: tuple[str, ...] = (),
) -> SteppedKernel:
    """Make a kernel whose steps are drawn from a language model, all coordinates together.

    Parameters
    ----------
    paths : tuple of ndarray, each (T_c, dim)
        The observed runs.
    grid : Grid
        With as many digits as the model writes.
    lag : int
        Steps of one kernel step.
    model : LanguageModel
    names : tuple of str
    mirror : bool
        Mix with the kernel read off the mirrored runs.
    recalibrate : bool
        Hold the draws to the observed steps (see Notes).
    max_context : int, optional
        Tokens of context at most.
    notes : tuple of str

    Returns
    -------
    SteppedKernel
        A step of ``m`` chains costs ``m (2 dim − 1)`` tokens and more on the shared context.

    Raises
    ------
    ValueError
        If not even two lagged states of each run fit into the model's context, or its tokenizer
        cannot write the grid.

    Notes
    -----
    Runs that do not fit into the context together are cut to their beginnings, equally long.

    A model that has seen few joint texts reads each coordinate's own drift and little of the
    coupling. Held to the observed steps, a draw ``y`` after ``x`` becomes ``A x + c + R (y − B x −
    d)``: ``B x + d`` is the line through the model's own draws at observed states, ``A x + c`` that
    of the observed steps (:func:`sgdmc.forecasting.var.var1_fit`), and ``R`` brings the spread of
    each coordinate to that of the observed residuals. Noise, its shape and what is not linear are
    the model's.
    """
    from sgdmc.llm.joint import JointReader
    from sgdmc.llm.tokens import token_map

    tokens = token_map(model, digits=grid.digits, dim=grid.dim)
    width = sum(slot.width for slot in tokens.slots)
    lines = tokens.run_tail is not None
    limit = min(model.max_context, max_context or model.max_context)
    states = [grid.encode(path).astype(np.int64) for path in paths]
    budget = (limit - 4) // width - 2
    share = budget // len(states) - 1
    if share >= 2 and sum(-(-len(s) // lag) + 1 for s in states) > budget:
        # Beginnings tell of the drift; what follows repeats the limit.
        states = [s[: (share - 1) * lag + 1] for s in states]
        notes = (*notes, f"runs cut to their first {share} states at this lag, to fit the context")
    context = phases(states, lag=lag, budget=budget)
    if not lines and len(states) == 1:
        context = context[:1]
    reader = JointReader(
        context,
        model=model,
        digits=grid.digits,
        probe_as="run" if lines else "continuation",
        mirror=mirror,
        max_context=max_context,
    )

    def step(theta: Array, rng: np.random.Generator) -> Array:
        return grid.decode(reader.step(grid.encode(theta).astype(np.int64), rng=rng))

    if not recalibrate:
        return SteppedKernel(step, lag, "llm", names, paths, notes)
    held, note = _hold(step, paths, lag)
    return SteppedKernel(held, lag, "llm", names, paths, (*notes, note))


def _hold(step: Step, paths: tuple[Array, ...], lag: int) -> tuple[Step, str]:
    """Give a step the line and the spread of the observed steps; and say what was done."""
    before, after = lagged_pairs(paths, lag)
    law = stable(var1_fit(before, after, lag=lag), before, after)
    rng = np.random.default_rng(0)
    # States as often as their steps are worth, so that equal weights fit both lines alike.
    picks = rng.choice(len(before), size=_PLACES, p=law.weights)
    asked = np.repeat(before[picks], _DRAWS_A_PLACE, axis=0)
    drawn = step(asked, rng)
    own = var1_fit(asked, drawn, symmetric=False, n_passes=1)
    observed = np.sqrt(law.weights @ law.residuals**2)
    stated = np.sqrt((own.residuals**2).mean(axis=0))
    factor = np.where(stated > 0, observed / np.where(stated > 0, stated, 1.0), 1.0)

    def held(theta: Array, rng: np.random.Generator) -> Array:
        return law.push(theta, 1) + factor * (step(theta, rng) - own.push(theta, 1))

    scales = ", ".join(f"{f:.2f}" for f in factor)
    return held, f"joint draws held to the observed steps: spreads × {scales}"
