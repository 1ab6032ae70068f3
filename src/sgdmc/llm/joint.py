"""Joint states: laws after any joint state, and steps of many chains at once, on one context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sgdmc._core.validate import as_choice, as_generator, as_states
from sgdmc.llm.forest import FloatArray, IntArray, Questions
from sgdmc.llm.model import LanguageModel, load_model
from sgdmc.llm.reader import ProbeAs, open_context
from sgdmc.llm.series import (
    States,
    chains,
    check_range,
    check_runs,
    count_states,
    hinge,
    windows,
)
from sgdmc.llm.tokens import token_map
from sgdmc.llm.tree import Rows, answer, plan, wanted_nodes

if TYPE_CHECKING:
    import torch

    from sgdmc.llm.batched import Context


class JointReader:
    """A run of joint states, read once, and asked for the step after any joint state.

    Parameters
    ----------
    states : (T, dim) int, or sequence of (T_r, dim) int
        The run, or several, written with interleaved coordinates (``"523:187,519:190,"``).
    model, digits
        As in `sgdmc.llm.reader.next_state_laws`.
    probe_as : {"continuation", "run"}
        How a present state is put after the series: ``"…,s_T,s,"``, or on a line of its own.
    mirror : bool
        Mix in equal parts with the kernel read from the series with every coordinate mirrored.
    max_context : int, optional
        Read only the end of the series, so that text and queries take at most so many tokens.
    chunk : int, optional
        Tokens a forward pass, as in `sgdmc.llm.reader.next_state_laws`.

    Notes
    -----
    A present state is a *line*: a branch on the shared context, whose keys and values are held
    once for all lines. Lines are evaluated packed, some hundred in a pass, and grow by the tokens
    drawn. Cost of a step of ``m`` chains with one token a number: ``m·(2·dim − 1)`` tokens, fewer
    where chains are in the same state.
    """

    def __init__(
        self,
        states: States,
        *,
        model: str | LanguageModel = "shipped",
        digits: int = 3,
        probe_as: ProbeAs = "continuation",
        mirror: bool = False,
        max_context: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self.n_states = count_states(None, digits)
        as_choice("probe_as", probe_as, ("continuation", "run"))
        runs = check_runs(states, joint=True)
        check_range(runs, self.n_states, "states")
        self.dim = runs[0].shape[1]
        self.lm = load_model(model)
        self.map = token_map(self.lm, digits=digits, dim=self.dim)
        slots = self.map.slots
        reserve = 2 * sum(slot.width for slot in slots) + len(self.map.run_tail or ())
        ways = [runs, [self.n_states - 1 - run for run in runs]] if mirror else [runs]
        self._contexts: list[Context] = []
        for way in ways:
            self.map.prove(way, self.lm.tokenizer)
            kept = windows(self.lm, self.map, way, limit=max_context, reserve=reserve)[-1]
            text = self.map.layout(kept.runs)
            after, self._bridge = hinge(self.map, text, fresh=probe_as == "run")
            lead = np.array(slots[0].lead, dtype=np.int64)
            tokens = np.concatenate((text.tokens, lead))[: after + 1]
            context = open_context(self.lm, len(tokens), chunk)
            none = np.zeros(0, dtype=np.int64)
            context.read(tokens, Questions(slots[0].tables, none, none, none), _no_tick)
            self._contexts.append(context)

    def rows(
        self, present: npt.ArrayLike, given: npt.ArrayLike | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Return the law of one coordinate of the next state.

        Parameters
        ----------
        present : (m, dim) int
            Present joint states.
        given : (m, j) int, optional
            First ``j`` coordinates of the next state, 0 <= j < dim: the law is that of
            coordinate ``j`` (from 0). By default ``j = 0``.

        Returns
        -------
        rows : (m, n_states) float64
        off : (m,) float64
            Off-state mass.
        """
        now = self._check("present", present, self.dim)
        known = np.zeros((len(now), 0), dtype=np.int64)
        if given is not None:
            known = self._check("given", given, None)
            if len(known) != len(now) or known.shape[1] >= self.dim:
                raise ValueError(
                    f"given must have shape ({len(now)}, j) with j < {self.dim}; got "
                    f"{known.shape}. Give the coordinates before the one whose law you want."
                )
        rows, off = self._rows(self._contexts[0], now, known)
        if len(self._contexts) == 1:
            return rows, off
        top = self.n_states - 1
        back, lost = self._rows(self._contexts[1], top - now, top - known)
        return (rows + back[:, ::-1]) / 2, (off + lost) / 2

    def step(self, present: npt.ArrayLike, *, rng: Any = None) -> IntArray:
        """Draw the next joint state of each of ``m`` chains.

        Parameters
        ----------
        present : (m, dim) int
        rng : int, SeedSequence, Generator or None
            Every draw comes from it; the result does not depend on ``chunk``.

        Returns
        -------
        (m, dim) int64
        """
        now = self._check("present", present, self.dim)
        generator = as_generator(rng)
        uniforms = generator.random((len(now), sum(slot.depth for slot in self.map.slots)))
        if len(self._contexts) == 1:
            return self._step(self._contexts[0], now, uniforms)
        out = np.empty_like(now)
        flipped = generator.random(len(now)) < 0.5
        top = self.n_states - 1
        out[~flipped] = self._step(self._contexts[0], now[~flipped], uniforms[~flipped])
        out[flipped] = top - self._step(self._contexts[1], top - now[flipped], uniforms[flipped])
        return out

    def _check(self, name: str, states: npt.ArrayLike, dim: int | None) -> IntArray:
        array = as_states(name, states, ndim=(2,)).astype(np.int64)
        if dim is not None and array.shape[1] != dim:
            raise ValueError(
                f"{name} must have shape (m, {dim}), one column a coordinate; got {array.shape}. "
                "Reshape it."
            )
        check_range([array], self.n_states, name)
        return array

    def _lines(self, now: IntArray, known: IntArray) -> IntArray:
        """Return the (m, c) tokens from the context to where the next coordinate's path begins."""
        slots = self.map.slots
        bridge = np.tile(np.array(self._bridge, dtype=np.int64), (len(now), 1))
        blocks = [slot.blocks(now[:, j]) for j, slot in enumerate(slots)]
        blocks[0] = blocks[0][:, len(slots[0].lead) :]  # the bridge or the context ends with it
        further = [slots[j].blocks(known[:, j]) for j in range(known.shape[1])]
        lead = np.tile(np.array(slots[known.shape[1]].lead, dtype=np.int64), (len(now), 1))
        return np.concatenate((bridge, *blocks, *further, lead), axis=1)

    def _rows(
        self, context: Context, now: IntArray, known: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        slot = self.map.slots[known.shape[1]]
        m = len(now)
        tokens, parents, tips = chains(np.full(m, context.length - 1), self._lines(now, known))
        nothing = np.zeros((m, slot.depth), dtype=np.int64)
        rows = Rows(tips, nothing, np.zeros(m, dtype=np.int64), tokens, parents)
        made = plan(slot, rows, wanted_nodes(slot, rows, refine="all", depth=slot.depth - 1))
        none = np.zeros((0, made.to_context.width))
        return answer(slot, made, none, context, _no_tick, m)

    def _step(self, context: Context, now: IntArray, uniforms: FloatArray) -> IntArray:
        out = np.empty_like(now)
        lines = self._lines(now, now[:, :0])
        # Chains in the same state ask the same question: they are put together.
        order = np.lexsort(now.T)
        start = 0
        while start < len(now):
            count = max(context.chunk // (lines.shape[1] - len(self._bridge)), 1)
            part = order[start : start + count]
            with context.spare_memory():
                out[part] = self._draw(context, lines[part], uniforms[part])
                start += count
        return out

    def _draw(self, context: Context, lines: IntArray, uniforms: FloatArray) -> IntArray:
        """Extend lines by the tokens drawn for one joint state."""
        import torch

        slots, m = self.map.slots, len(lines)
        grown = sum(slot.width for slot in slots)
        bridge = len(self._bridge)
        context.open(bridge + m * (lines.shape[1] - bridge + grown))
        line = np.zeros(m, dtype=np.int64)  # the open line of each chain
        if bridge:
            context.append(lines[:1, :bridge], line[:1])
        states = np.zeros((m, self.dim), dtype=np.int64)
        tokens, drawn = lines[:, bridge:], 0
        for j, slot in enumerate(slots):
            for table in slot.tables:
                asked = np.concatenate((line[:, None], tokens), axis=1)
                rows, line = np.unique(asked, axis=0, return_inverse=True)
                line = line.ravel()
                logits = context.append(rows[:, 1:], rows[:, 0])
                logits = logits[torch.as_tensor(line, device=logits.device)]
                among = table[states[:, j]]
                child = _draw_child(logits, among, uniforms[:, drawn])
                states[:, j] = states[:, j] * table.shape[1] + child
                tokens = among[np.arange(m), child][:, None]
                drawn += 1
            if j + 1 < self.dim:
                between = np.array([*slot.tail, *slots[j + 1].lead], dtype=np.int64)
                tokens = np.concatenate((tokens, np.tile(between, (m, 1))), axis=1)
        return states


def _draw_child(logits: torch.Tensor, among: IntArray, uniforms: FloatArray) -> IntArray:
    """Draw one of the candidates ``among`` (m, arity) for each row of logits, by inversion."""
    import torch

    chosen = logits.float().gather(1, torch.as_tensor(among, device=logits.device))
    ladder = torch.softmax(chosen, dim=1).double().cumsum(dim=1)
    height = torch.as_tensor(uniforms, device=logits.device)[:, None] * ladder[:, -1:]
    child: IntArray = (ladder <= height).sum(dim=1).clamp(max=among.shape[1] - 1).cpu().numpy()
    return child


def _no_tick(count: int) -> None:
    """Show no progress."""
