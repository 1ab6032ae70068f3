"""A joint kernel off a language model: coordinates interleaved in one text, none independent.

The chain rule over the model's own tokens is the joint kernel, ``P(s'¹ | s) P(s'² | s, s'¹) …``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.grid import Grid
from sgdmc.forecasting.rows import phases
from sgdmc.forecasting.stepped import SteppedKernel

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = ["joint_kernel"]

Array = NDArray[np.float64]


def joint_kernel(
    paths: tuple[Array, ...],
    grid: Grid,
    *,
    lag: int,
    model: LanguageModel,
    names: tuple[str, ...],
    mirror: bool = False,
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
        If the runs do not fit into the model's context, or its tokenizer cannot write the grid.
    """
    from sgdmc.llm.joint import JointReader
    from sgdmc.llm.tokens import token_map

    tokens = token_map(model, digits=grid.digits, dim=grid.dim)
    width = sum(slot.width for slot in tokens.slots)
    lines = tokens.run_tail is not None
    limit = min(model.max_context, max_context or model.max_context)
    states = [grid.encode(path).astype(np.int64) for path in paths]
    context = phases(states, lag=lag, budget=(limit - 4) // width - 2)
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

    return SteppedKernel(step, lag, "llm", names, paths, notes)
