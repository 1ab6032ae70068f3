"""Laws of the next state at every position of a series, from one model's logits.

The text is read once; every further question is a short branch on what was read. Which branches
there are, depends on the tokenizer: none where a number is one token, ten a position and level of
refinement where it is one token a digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from sgdmc.llm.forest import IntArray, node_reference
from sgdmc.llm.model import NO_LIMIT, LanguageModel, load_model
from sgdmc.llm.tokens import Layout, TokenMap, token_map

if TYPE_CHECKING:
    from sgdmc.llm.packed import Context, Tick
    from sgdmc.llm.tree import Refine, Rows

FloatArray = npt.NDArray[np.float64]
ProbeAs = Literal["continuation", "run"]


def next_state_laws(
    states: npt.ArrayLike | Sequence[npt.ArrayLike],
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
        Average with the rows read from the mirrored series ``n - 1 - s``, mirrored back.
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
        the model's context.
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
    runs = [run[:, None] for run in check_runs(states)]
    n = _count(n_states, digits)
    _check_range(runs, n, "states")
    probes = None if probe is None else check_states(probe, "probe")
    if probes is not None:
        _check_range([probes[:, None]], n, "probe")
    if probe_as not in ("continuation", "run"):
        raise ValueError(
            f"probe_as must be 'continuation' or 'run'; got {probe_as!r}. Use 'continuation' for "
            "the next number of the last run."
        )
    if refine not in ("observed", "neighbours", "all"):
        raise ValueError(
            f"refine must be 'observed', 'neighbours' or 'all'; got {refine!r}. "
            "Use 'all' for exact rows."
        )
    lm = load_model(model)
    tm = token_map(lm, digits=digits, n_states=n_states)
    levels = tm.slots[0].depth - 1
    if depth is not None and not 0 <= depth <= levels:
        raise ValueError(
            f"depth must be 0 to {levels}, the tokens a number takes less one; got {depth}. "
            "Leave it out for all."
        )
    job = _Job(lm, tm, refine, levels if depth is None else depth, chunk, probe_as == "run")
    passes = [(runs, probes, 1)]
    if mirror:
        other = None if probes is None else n - 1 - probes
        passes.append(([n - 1 - run for run in runs], other, -1))
    parts = []
    total = (sum(map(len, runs)) if probes is None else len(probes)) * len(passes)
    with bar(lm, total, progress) as advance:
        for text, asked, step in passes:
            law, lost = _rows(job, text, asked, max_context, advance)
            parts.append((law[:, ::step], lost))
    rows, off = zip(*parts, strict=True)
    return np.mean(rows, axis=0), np.mean(off, axis=0)


@dataclass(frozen=True)
class _Job:
    lm: LanguageModel
    tm: TokenMap
    refine: Refine
    depth: int
    chunk: int | None
    fresh: bool


def check_states(states: npt.ArrayLike, name: str) -> IntArray:
    """Return a one-dimensional integer array, or say what is wrong with it."""
    array = np.asarray(states)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integers, the indices of states; got {array.dtype}. "
            "Use Grid.encode to turn values into states."
        )
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional; got shape {array.shape}. Read one coordinate at a "
            "time, or use joint_state_laws."
        )
    return array.astype(np.int64)


def check_runs(states: npt.ArrayLike | Sequence[npt.ArrayLike]) -> list[IntArray]:
    """Return one or several runs as a list of non-empty arrays."""
    several = isinstance(states, list | tuple) and any(np.ndim(run) for run in states)
    runs = list(cast(Sequence[npt.ArrayLike], states)) if several else [states]
    out = [check_states(cast(npt.ArrayLike, run), "states") for run in runs]
    for number, run in enumerate(out):
        if not run.size:
            raise ValueError(
                f"states must hold at least one state a run; got none at run {number}. "
                "Leave empty runs out."
            )
    return out


def _count(n_states: int | None, digits: int | None) -> int:
    if (n_states is None) == (digits is None):
        raise ValueError(
            f"exactly one of n_states and digits must be given; got n_states={n_states} and "
            f"digits={digits}. Use n_states for 2 to 10 labels, digits for numbers."
        )
    if digits is not None:
        if digits not in (1, 2, 3):
            raise ValueError(f"digits must be 1, 2 or 3; got {digits}. Use 3 for 1000 states.")
        return int(10**digits)
    assert n_states is not None
    if not 2 <= n_states <= 10:
        raise ValueError(
            f"n_states must be 2 to 10, one symbol each; got {n_states}. "
            "Use digits=2 or 3 for more."
        )
    return int(n_states)


def _check_range(runs: Sequence[IntArray], n: int, name: str) -> None:
    for number, run in enumerate(runs):
        bad = np.argwhere((run < 0) | (run >= n))
        if bad.size:
            where = f"{int(bad[0][0])}" + (f" of run {number}" if len(runs) > 1 else "")
            raise ValueError(
                f"{name} must lie in 0..{n - 1}; got {int(run[tuple(bad[0])])} at {where}. "
                "Check digits or n_states, or clip."
            )


def _limit(job: _Job, max_context: int | None, smallest: int) -> int:
    """Return how many tokens a window may hold."""
    limit = job.lm.max_context
    if max_context is not None:
        if not smallest <= max_context <= limit:
            raise ValueError(
                f"max_context must lie between {smallest} tokens and the model's context; got "
                f"{max_context}, and {job.lm.name} reads "
                f"{'any length' if limit == NO_LIMIT else limit}. Choose a length in between."
            )
        limit = max_context
    return limit


@dataclass(frozen=True)
class _Window:
    """Runs that are read together; rows ``first..`` of them are kept."""

    runs: list[IntArray]
    first: int


def _windows(
    job: _Job, runs: list[IntArray], max_context: int | None, reserve: int
) -> list[_Window]:
    """Cut runs into windows that fit the context, each row in exactly one."""
    tm = job.tm
    block = sum(len(s.lead) + s.depth + len(s.tail) for s in tm.slots)
    break_cost = len(tm.run_tail or ()) - len(tm.slots[-1].tail)
    needed = len(tm.layout(runs).tokens) + reserve
    limit = _limit(job, max_context, len(tm.prefix) + 4 * (block + max(break_cost, 0)) + reserve)
    if needed <= limit:
        return [_Window(runs, 0)]
    if max_context is None:
        raise ValueError(
            f"states must fit the context of {job.lm.name}, {limit} tokens; got {needed} tokens "
            f"for {sum(map(len, runs))} states. Use max_context={limit} to slide a window over "
            "them, fewer states, or a larger lag."
        )
    room = limit - reserve - len(tm.prefix)
    size = room // (block + max(break_cost, 0)) if len(runs) > 1 else room // block
    stride = size // 2
    flat = np.concatenate(runs)
    breaks = np.cumsum([len(run) for run in runs])[:-1]
    out, done = [], 0
    while done < len(flat):
        stop = min(done + (stride if done else size), len(flat))
        start = max(stop - size, 0)
        inside = breaks[(breaks > start) & (breaks < stop)] - start
        out.append(_Window(np.split(flat[start:stop], inside), done - start))
        done = stop
    return out


def _rows(
    job: _Job,
    runs: list[IntArray],
    probes: IntArray | None,
    max_context: int | None,
    advance: Any,
) -> tuple[FloatArray, FloatArray]:
    """Return rows and off-state masses of one series, in one or several windows."""
    tm, slot = job.tm, job.tm.slots[0]
    tm.prove(runs, job.lm.tokenizer)
    block = len(slot.lead) + slot.depth + len(slot.tail)
    reserve = len(slot.lead) + slot.depth
    if probes is not None:
        reserve += block + len(tm.run_tail or ())
    windows = _windows(job, runs, max_context, reserve)
    if probes is not None:
        return _read(job, windows[-1].runs, 0, probes, advance)
    parts = [_read(job, w.runs, w.first, None, advance) for w in windows]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _read(
    job: _Job, runs: list[IntArray], first: int, probes: IntArray | None, advance: Any
) -> tuple[FloatArray, FloatArray]:
    """Return the rows of one window from row ``first`` on, or of probes after it."""
    from sgdmc.llm.tree import answer, plan, wanted_nodes

    tm, slot = job.tm, job.tm.slots[0]
    text = tm.layout(runs)
    tokens = np.concatenate((text.tokens, np.array(slot.lead, dtype=np.int64)))
    if probes is None:
        rows = _series_rows(tm, text, np.concatenate(runs)[:, 0], first)
    else:
        rows = _probe_rows(tm, text, probes, job.fresh)
    n = len(rows.root)
    made = plan(slot, rows, wanted_nodes(slot, rows, refine=job.refine, depth=job.depth))
    tick = _share(advance, n, len(tokens) + len(made.forest))
    context = open_context(job.lm, len(tokens), job.chunk)
    from_context = context.read(tokens, made.to_context, tick)
    return answer(slot, made, from_context, context, tick, n)


def _series_rows(tm: TokenMap, text: Layout, states: IntArray, first: int) -> Rows:
    """Return where the law after each state from ``first`` on is read."""
    from sgdmc.llm.tree import Rows

    slot = tm.slots[0]
    at = text.path_at[:, 0]
    last = len(at) - 1
    following = ~text.run_end
    following[last] = False
    follow = np.minimum(np.arange(len(at)) + 1, last)
    root = np.where(following, at[follow] - 1, at + slot.depth + len(slot.tail) - 1)
    root[last] += len(slot.lead)  # written after the last block
    observed = np.where(following[:, None], at[follow][:, None] + np.arange(slot.depth), 0)
    centre = np.where(following, states[follow], states)
    # where a newline merges with the tail, the text that stops at the tail is a branch of its own
    stem = np.array([*slot.tail, *slot.lead], dtype=np.int64)
    plain = not slot.lead and tm.run_tail is not None and tm.run_tail[: len(slot.tail)] == slot.tail
    ends = np.flatnonzero(text.run_end & (np.arange(len(at)) >= first) & (not plain))
    chains = np.tile(stem, (len(ends), 1))
    stem_tokens, stem_parents, root[ends] = _chain(at[ends] + slot.depth - 1, chains)
    return Rows(root[first:], observed[first:], centre[first:], stem_tokens, stem_parents)


def _probe_rows(tm: TokenMap, text: Layout, probes: IntArray, fresh: bool) -> Rows:
    """Return where the law after each hypothetical present state is read."""
    from sgdmc.llm.tree import Rows

    slot = tm.slots[0]
    after, join = joint(tm, text, fresh)
    m = len(probes)
    pieces = [np.tile(np.array(p, dtype=np.int64), (m, 1)) for p in (join, slot.tail, slot.lead)]
    chain = np.concatenate((pieces[0], slot.paths[probes], pieces[1], pieces[2]), axis=1)
    tokens, parents, tips = _chain(np.full(m, after), chain)
    none = np.zeros((m, slot.depth), dtype=np.int64)
    return Rows(tips, none, probes, tokens, parents)


def joint(tm: TokenMap, text: Layout, fresh: bool) -> tuple[int, tuple[int, ...]]:
    """Return after which position a further state hangs, and the tokens before its path."""
    first, last = tm.slots[0], tm.slots[-1]
    end = int(text.path_at[-1, -1]) + last.depth - 1
    if not fresh:
        return end + len(last.tail) + len(first.lead), ()
    if tm.run_tail is None:
        raise ValueError(
            "probe_as must be 'continuation' for a tokenizer without a newline; got 'run'. "
            "Use another model for runs of their own."
        )
    return end, (*tm.run_tail, *first.lead)


def _chain(after: IntArray, chain: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return tokens, parents and last references of (m, c) chains after positions ``after``."""
    m, c = chain.shape
    index = np.arange(m * c).reshape(m, c)
    parents = node_reference(index - 1)
    parents[:, :1] = after[:, None]
    return chain.reshape(-1), parents.reshape(-1), node_reference(index[:, c - 1 :].sum(axis=1))


def open_context(lm: LanguageModel, capacity: int, chunk: int | None, scratch: int = 0) -> Context:
    """Return an empty context of the kind that the model's attention allows."""
    from sgdmc.llm.packed import BatchedContext, PackedContext

    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}. Use 256 to 512 on a CPU.")
    if lm.packed:
        return PackedContext(lm.model, capacity=capacity, chunk=chunk, scratch=scratch)
    return BatchedContext(lm.model, chunk=chunk)


def _share(advance: Any, positions: int, tokens: int) -> Tick:
    """Return a tick that counts tokens and advances the bar by the matching share of positions."""
    return lambda count: advance(positions * count / tokens)


@contextmanager
def bar(lm: LanguageModel, total: int, shown: bool) -> Iterator[Any]:
    """Show which model reads, where, how far it is, and positions a second."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0.0:.0f} positions/s")

    title = f"{lm.name} {lm.dtype} on {lm.device}"
    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns) as shown_bar:
        task = shown_bar.add_task(title, total=total)
        yield lambda count: shown_bar.advance(task, count)
