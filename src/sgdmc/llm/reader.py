"""Laws of the next state at every position of a series, from one model's logits.

The text is read once; every further question is a short branch on what was read. Which branches
there are, depends on the tokenizer: none where a number is one token, ten a position and level of
refinement where it is one token a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sgdmc._core.validate import as_choice, as_int, as_positive, as_states
from sgdmc.chain.moves import overlaps
from sgdmc.llm.forest import FloatArray, IntArray, Questions
from sgdmc.llm.model import NO_LIMIT, LanguageModel, load_model
from sgdmc.llm.series import (
    States,
    Window,
    check_range,
    check_runs,
    count_states,
    probe_rows,
    series_rows,
    windows,
)
from sgdmc.llm.tokens import TokenMap, token_map
from sgdmc.llm.tree import Refine, answer, plan, wanted_nodes

if TYPE_CHECKING:
    from sgdmc.llm.batched import Context

Advance = Callable[[float], None]
ProbeAs = Literal["continuation", "run"]


def next_state_laws(
    states: States,
    *,
    model: str | LanguageModel = "shipped",
    n_states: int | None = None,
    digits: int | None = None,
    probe: npt.ArrayLike | None = None,
    probe_as: ProbeAs = "continuation",
    refine: Refine = "all",
    depth: int | None = None,
    chunk: int | None = None,
    max_context: int | None = None,
    mirror: bool = False,
    squeeze: float = 1.0,
    progress: bool = False,
) -> tuple[FloatArray, FloatArray]:
    r"""Return the model's law of the next state at every position of a series.

    The series is written as text, ``"523,519,487,"`` with ``digits=3`` or ``"0120"`` with
    ``n_states=3``, and read once. The law of the state after position ``t`` is the product of the
    softmaxes along the tokens of each state, each restricted to tokens that continue some state
    and normalised; ``off`` is the probability, under the full softmaxes along the same paths, of
    a text that is none of the states,

    .. math:: \text{off}_t = 1 - \sum_s \prod_l q(\text{token}_l(s) \mid \text{text}_t,
        \text{token}_{<l}(s)).

    Parameters
    ----------
    states : (T,) int, or sequence of (T_r,) int
        State indices, 0 to ``n - 1``; at least one. A sequence of arrays is several runs in one
        context, joined by newlines: the rows of the second run follow those of the first.
    model : str or LanguageModel
        What `load_model` takes.
    n_states : int, optional
        2 to 10: one symbol a state. Exactly one of ``n_states`` and ``digits`` is given.
    digits : int, optional
        1 to 3: ``n = 10**digits`` states, written as numbers with a separator.
    probe : (m,) int, optional
        Hypothetical present states. The rows are then those that the model gives when, after the
        *whole* series, the present state is each of these: the text is ``"…,s_T,s,"``.
    probe_as : {"continuation", "run"}
        ``"run"`` puts a newline before the probe, so that it opens a run of its own, and the step
        from ``s_T`` to ``s`` is not taken for one of the chain's.
    refine : {"all", "neighbours", "observed"}
        Which nodes of the digit tree are evaluated where a number has several tokens: all; those
        above the next state and their neighbours; those above the next state only, which costs
        nothing beyond the one reading. At the end of a run, and in probes, the present state
        stands for the next. Below a node that is not evaluated the law is uniform.
    depth : int, optional
        Levels of the tree to refine beyond the first token, at most (tokens a number) − 1: the
        default. With one token a digit, ``depth=1`` resolves two digits.
    chunk : int, optional
        Tokens a forward pass: 512 on a CPU, by free memory on a GPU. Memory grows with it, the
        result does not depend on it. It is halved when memory runs out.
    max_context : int, optional
        Largest number of tokens that the model may see, where the series is longer than its
        context or shall be treated so. The window slides by half its length: a row is read from
        the last ``max_context / 2`` to ``max_context`` tokens before it, and a probe from at
        least that many of the series' end.
    mirror : bool
        Average with the rows read from the series' mirror image ``n - 1 - s``, carried back. Costs
        a second reading.
    squeeze : float
        With ``mirror``: size of the mirror image, above 0 and at most 1. The image is drawn
        towards the middle of the ``n`` states, ``floor((n/2 - s - 1/2) squeeze + n/2)``; its laws
        come back by the overlaps of bins, and what they put beyond the states counts to the first
        and the last. At no further cost the two readings then err less alike: 0.6 pays where the
        series fills the states, little on a grid fitted to it (see `sgdmc.pretrain.evaluate`).
    progress : bool
        Show a progress bar with positions a second.

    Returns
    -------
    rows : (T, n) float64, or (m, n) with ``probe``
        Row ``t`` is the law of the state after ``states[t]``; each sums to 1.
    off : (T,) float64, or (m,)
        Off-state mass of each row, 0 to 1.

    Raises
    ------
    TypeError
        States or probes that are not integers.
    ValueError
        A state out of range; neither or both of ``n_states`` and ``digits``; a series longer than
        the model's context; ``squeeze`` not in (0, 1], or below 1 without ``mirror`` or for labels.
    TokenMapError
        A tokenizer that does not write states as whole tokens (a ``ValueError``).

    Notes
    -----
    All branches share what was read of the series, and are evaluated packed: many positions'
    branches are one sequence under a tree mask with explicit position ids. Cost for ``T`` states
    of ``k`` tokens: ``T·k`` tokens for the reading, and with ``refine="all"`` about
    ``T·(a + … + a^depth)`` branch tokens for ``a`` children a node. In 16-bit types logits differ
    by their rounding between chunk sizes; in float32 by about 1e-6.

    References
    ----------
    Liu, Boullé, Sarfati, Earls: LLMs learn governing principles of dynamical systems, revealing
    an in-context neural scaling law. arXiv:2402.00795 (2024).
    """
    n = count_states(n_states, digits)
    runs = check_runs(states, joint=False)
    check_range(runs, n, "states")
    probes = None
    if probe is not None:
        probes = as_states("probe", probe, ndim=(1,)).astype(np.int64)
        check_range([probes[:, None]], n, "probe")
    as_choice("probe_as", probe_as, ("continuation", "run"))
    size = _size(squeeze, mirror, digits)
    lm = load_model(model)
    tm = token_map(lm, digits=digits, n_states=n_states)
    job = _Job(lm, tm, _refinement(tm, refine, depth), chunk, max_context, probe_as == "run")
    return _both_ways(job, runs, probes, n, size=size, progress=progress)[0]


def joint_state_laws(
    states: States,
    *,
    model: str | LanguageModel = "shipped",
    digits: int = 3,
    refine: Refine = "all",
    depth: int | None = None,
    chunk: int | None = None,
    max_context: int | None = None,
    mirror: bool = False,
    progress: bool = False,
) -> list[tuple[FloatArray, FloatArray]]:
    r"""Return the law of each coordinate of the next joint state, given those before it.

    Coordinates are interleaved, ``"523:187,519:190,"``, and the model's chain rule over its own
    tokens is the joint kernel,

    .. math:: P(s' \mid s) = \prod_j P(s'^{(j)} \mid s, s'^{(1)}, …, s'^{(j-1)}).

    Parameters
    ----------
    states : (T, dim) int, or sequence of (T_r, dim) int
        One run of joint states, or several in one context; ``dim`` of 1 or more.
    model, digits, refine, depth, chunk, max_context, mirror, progress
        As in `next_state_laws`; ``mirror`` mirrors every coordinate, at its full size.

    Returns
    -------
    list of ``(rows, off)``, one a coordinate
        For the first coordinate ``rows`` is (T, n) as in `next_state_laws`. For a later one the
        condition includes the *observed* earlier coordinates of the next state, so the last state
        of each run has no row: (T - n_runs, n).

    Raises
    ------
    TypeError, ValueError, TokenMapError
        As `next_state_laws`.

    See Also
    --------
    sgdmc.llm.joint.JointReader : laws after any joint state, and simulation.
    """
    n = count_states(None, digits)
    runs = check_runs(states, joint=True)
    check_range(runs, n, "states")
    lm = load_model(model)
    tm = token_map(lm, digits=digits, dim=runs[0].shape[1])
    job = _Job(lm, tm, _refinement(tm, refine, depth), chunk, max_context, False)
    return _both_ways(job, runs, None, n, size=1.0 if mirror else None, progress=progress)


@dataclass(frozen=True)
class _Job:
    """What stays the same over the windows of one call."""

    lm: LanguageModel
    tm: TokenMap
    refinement: tuple[Refine, list[int]]
    chunk: int | None
    max_context: int | None
    fresh: bool


def _refinement(tm: TokenMap, refine: Refine, depth: int | None) -> tuple[Refine, list[int]]:
    """Return how to refine, and how many levels of each coordinate's tree."""
    as_choice("refine", refine, ("observed", "neighbours", "all"))
    levels = [slot.depth - 1 for slot in tm.slots]
    if depth is None:
        return refine, levels
    return refine, [min(as_int("depth", depth, minimum=0, maximum=max(levels)), k) for k in levels]


def _size(squeeze: float, mirror: bool, digits: int | None) -> float | None:
    """Return the size of the mirror image, None where there is none."""
    size = as_positive("squeeze", squeeze)
    if size > 1.0:
        raise ValueError(f"squeeze must be at most 1; got {size}. Lower it.")
    if size < 1.0 and not mirror:
        raise ValueError(f"squeeze must be 1 without mirror; got {size}. Set mirror=True.")
    if size < 1.0 and digits is None:
        raise ValueError(
            f"squeeze must be 1 for labels, which are not numbers; got {size}. Leave it out."
        )
    return size if mirror else None


def _both_ways(
    job: _Job,
    runs: list[IntArray],
    probes: IntArray | None,
    n: int,
    *,
    size: float | None,
    progress: bool,
) -> list[tuple[FloatArray, FloatArray]]:
    """Return rows and off-state masses, averaged with those of an image of ``size`` if any."""
    total = (sum(map(len, runs)) if probes is None else len(probes)) * (1 if size is None else 2)
    length = len(job.tm.layout(runs).tokens)
    used = min(length, job.max_context or length)
    with _bar(job.lm, total, used, shown=progress) as advance:
        laws = _laws(job, runs, probes, advance)
        if size is None:
            return laws
        shown = None if probes is None else _image(probes, n, size)
        others = _laws(job, [_image(run, n, size) for run in runs], shown, advance)
    # Where the image's states lie among the series' own, in falling order.
    edges = n / 2 - (np.arange(n + 1) - n / 2) / size
    back = overlaps(edges[::-1], np.arange(n + 1))
    return [
        ((rows + there[:, ::-1] @ back) / 2, (off + lost) / 2)
        for (rows, off), (there, lost) in zip(laws, others, strict=True)
    ]


def _image(states: IntArray, n: int, size: float) -> IntArray:
    """Mirror states about the middle of all ``n``, and draw them towards it."""
    image: IntArray = np.floor((n / 2 - states - 0.5) * size + n / 2).astype(np.int64)
    return image


def _laws(
    job: _Job, runs: list[IntArray], probes: IntArray | None, advance: Advance
) -> list[tuple[FloatArray, FloatArray]]:
    """Return rows and off-state masses of one series, read in one or several windows."""
    tm = job.tm
    tm.prove(runs, job.lm.tokenizer)
    reserve = len(tm.slots[0].lead) + max(slot.depth for slot in tm.slots)
    if probes is not None:
        reserve += tm.slots[0].width + len(tm.run_tail or ())
    cut = windows(job.lm, tm, runs, limit=job.max_context, reserve=reserve)
    if probes is not None:
        return _read(job, cut[-1], probes, advance)
    parts = [_read(job, window, None, advance) for window in cut]
    return [
        (np.concatenate([p[j][0] for p in parts]), np.concatenate([p[j][1] for p in parts]))
        for j in range(len(tm.slots))
    ]


def _read(
    job: _Job, window: Window, probes: IntArray | None, advance: Advance
) -> list[tuple[FloatArray, FloatArray]]:
    """Return the laws that one window gives: one reading, then one forest a coordinate."""
    tm = job.tm
    refine, depths = job.refinement
    text = tm.layout(window.runs)
    tokens = np.concatenate((text.tokens, np.array(tm.slots[0].lead, dtype=np.int64)))
    plans = []
    for j, slot in enumerate(tm.slots):
        if probes is None:
            rows = series_rows(tm, text, np.concatenate(window.runs), window, j)
        else:
            rows = probe_rows(tm, text, probes, fresh=job.fresh)
        wanted = wanted_nodes(slot, rows, refine=refine, depth=depths[j])
        plans.append((len(rows.root), plan(slot, rows, wanted)))
    positions, work = plans[0][0], len(tokens) + sum(len(made.forest) for _, made in plans)

    def tick(count: int) -> None:
        advance(positions * count / work)

    context = open_context(job.lm, len(tokens), job.chunk)
    asked = [made.to_context for _, made in plans]
    answers = context.read(tokens, Questions.merge(asked), tick)
    parts = np.split(answers, np.cumsum([len(q.places) for q in asked])[:-1])
    return [
        answer(slot, made, part, context, tick, n)
        for slot, (n, made), part in zip(tm.slots, plans, parts, strict=True)
    ]


def open_context(lm: LanguageModel, capacity: int, chunk: int | None, scratch: int = 0) -> Context:
    """Return an empty context of the kind that the model's attention allows."""
    from sgdmc.llm.batched import BatchedContext
    from sgdmc.llm.packed import PackedContext

    if chunk is not None:
        as_int("chunk", chunk, minimum=1)
    if lm.packed:
        return PackedContext(lm.model, capacity=capacity, chunk=chunk, scratch=scratch)
    return BatchedContext(lm.model, chunk=chunk)


@contextmanager
def _bar(lm: LanguageModel, total: int, used: int, *, shown: bool) -> Iterator[Advance]:
    """Show which model reads, where, in how much context, how far it is, and positions a second."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0.0:.0f} positions/s")

    limit = "" if lm.max_context == NO_LIMIT else f" of {lm.max_context}"
    title = f"{lm.name}, {lm.dtype} on {lm.device}, context {used}{limit} tokens"
    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns) as shown_bar:
        shown_bar.console.print(title)
        task = shown_bar.add_task("reading", total=total)
        yield lambda count: shown_bar.advance(task, count)
