"""How a tokenizer writes a series of states: found by inspection, proved by round trip.

A state is written as a *block* of tokens: a lead (mostly empty), a path, a tail (the separator,
where it is a token of its own). Over all states the paths form a tree in which every node of one
level has the same number of children, and whose leaves in order are the states:

==============  ===========  =================  ===================
tokenizer       text         path of 523        tree of 1000 states
==============  ===========  =================  ===================
shipped         ``523,``     ``523,``           1000
Llama-3         ``523,``     ``523``            1000
Llama-2, Gemma  ``523,``     ``5`` ``2`` ``3``  10 · 10 · 10
GPT-2           ``5 2 3 ,``  ``5`` ``2`` ``3``  10 · 10 · 10
==============  ===========  =================  ===================

GPT-2's tokens begin with the space before them. Nothing of this table is written into the
code: blocks are read off the tokenizer's own output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgdmc.llm.forest import IntArray
from sgdmc.llm.model import LanguageModel

Ids = tuple[int, ...]


class TokenMapError(ValueError):
    """The tokenizer does not write the states as whole tokens of their own."""


@dataclass(frozen=True)
class Style:
    """How states are written: ``write(state, last)`` for one coordinate of a joint state."""

    name: str
    write: Callable[[int, bool], str]

    def text(self, runs: Sequence[IntArray]) -> str:
        """Write runs of joint states, each (T, dim), joined by newlines."""
        return "\n".join("".join(self.row(row) for row in run) for run in runs)

    def row(self, states: Sequence[int] | IntArray) -> str:
        """Write one joint state."""
        last = len(states) - 1
        return "".join(self.write(int(s), j == last) for j, s in enumerate(states))


def number_styles(digits: int) -> list[Style]:
    """Return the ways to write numbers of ``digits`` digits, the plain one first."""

    def compact(state: int, last: bool) -> str:
        return f"{state:0{digits}d}{',' if last else ':'}"

    def spaced(state: int, last: bool) -> str:
        return "".join(f" {c}" for c in compact(state, last))

    return [Style("compact", compact), Style("spaced", spaced)]


def label_styles() -> list[Style]:
    """Return the ways to write one symbol a state, the bare one first."""
    return [
        Style("bare", lambda state, last: str(state)),
        Style("spaced", lambda state, last: f" {state}"),
        Style("comma", lambda state, last: f"{state},"),
    ]


@dataclass(frozen=True)
class Slot:
    """The blocks of one coordinate.

    Attributes
    ----------
    lead, tail : tuple of int
        Tokens that come before and after the path, the same for all states.
    paths : (n_states, depth) int64
    tables : list of (n_nodes, arity) int64
        ``tables[l][i]`` are the tokens of the children of node ``i`` of level ``l``; child ``c`` is
        node ``i * arity + c`` of level ``l + 1``. Level 0 is the root, the last one the states.
    """

    lead: Ids
    paths: IntArray
    tail: Ids
    tables: list[IntArray]

    @property
    def depth(self) -> int:
        """Number of tokens of a path."""
        return len(self.tables)

    @property
    def width(self) -> int:
        """Number of tokens of a block."""
        return len(self.lead) + self.depth + len(self.tail)

    def blocks(self, states: IntArray) -> IntArray:
        """Return the (len(states), block length) tokens of states."""
        ends = [
            np.tile(np.array(e, dtype=np.int64), (len(states), 1)) for e in (self.lead, self.tail)
        ]
        return np.concatenate((ends[0], self.paths[states], ends[1]), axis=1)


@dataclass(frozen=True)
class Layout:
    """A series as tokens.

    Attributes
    ----------
    tokens : (n_tokens,) int64
    path_at : (n_rows, dim) int64
        Where in ``tokens`` the path of each state begins.
    run_end : (n_rows,) bool
        Whether a newline follows the joint state.
    """

    tokens: IntArray
    path_at: IntArray
    run_end: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class TokenMap:
    """How a tokenizer writes joint states.

    Attributes
    ----------
    style : Style
    n_states : int
        Number of states of each coordinate.
    prefix : tuple of int
        Tokens that the tokenizer puts in front (a beginning-of-text token, or nothing).
    slots : list of Slot
        One a coordinate.
    run_tail : tuple of int or None
        What takes the place of the last tail where a newline follows; None if the tokenizer has no
        newline.
    """

    style: Style
    n_states: int
    prefix: Ids
    slots: list[Slot]
    run_tail: Ids | None

    def layout(self, runs: Sequence[IntArray]) -> Layout:
        """Return the tokens of runs, each (T, dim) int64, and where each path begins."""
        if len(runs) > 1 and self.run_tail is None:
            raise TokenMapError(
                "states must be one run, as this tokenizer has no newline; got "
                f"{len(runs)} runs. Join them, or use another model."
            )
        pieces, path_at, at = [np.array(self.prefix, dtype=np.int64)], [], len(self.prefix)
        ends = np.zeros(sum(len(run) for run in runs), dtype=bool)
        done, last = 0, self.slots[-1]
        for number, run in enumerate(runs):
            row = np.concatenate([s.blocks(run[:, j]) for j, s in enumerate(self.slots)], axis=1)
            widths = [s.width for s in self.slots]
            offsets = np.cumsum([0, *widths[:-1]]) + [len(s.lead) for s in self.slots]
            path_at.append(at + np.arange(len(run))[:, None] * row.shape[1] + offsets)
            block = row.reshape(-1)
            done += len(run)
            if number < len(runs) - 1 and self.run_tail is not None:
                block = np.concatenate((block[: block.size - len(last.tail)], self.run_tail))
                ends[done - 1] = True
            pieces.append(block)
            at += block.size
        return Layout(np.concatenate(pieces), np.concatenate(path_at), ends)

    def prove(self, runs: Sequence[IntArray], tokenizer: Any) -> Layout:
        """Return the layout of runs after checking it against the tokenizer itself."""
        found = self.layout(runs)
        truth = _ids(tokenizer, [self.style.text(runs)])[0]
        if tuple(found.tokens) != truth:
            short = min(len(truth), len(found.tokens))
            unequal = np.flatnonzero(
                found.tokens[:short] != np.array(truth[:short], dtype=np.int64)
            )
            where = int(unequal[0]) if unequal.size else short
            token = tokenizer.convert_ids_to_tokens(truth[where]) if where < len(truth) else None
            raise TokenMapError(
                f"the tokenizer must write each state as the same tokens everywhere; got {token!r} "
                f"at token {where} of the series in {self.style.name} style."
            )
        return found


def token_map(
    lm: LanguageModel, *, digits: int | None = None, n_states: int | None = None, dim: int = 1
) -> TokenMap:
    """Find how the model's tokenizer writes states, and prove it on texts that hold every state.

    Parameters
    ----------
    lm : LanguageModel
    digits : int, optional
        Numbers of 1 to 3 digits, each with a separator: ``10**digits`` states.
    n_states : int, optional
        Instead of ``digits``: one symbol a state, 2 to 10 states.
    dim : int
        Coordinates of a joint state, ``"523:187,"`` for 2.

    Returns
    -------
    TokenMap
        The first style whose blocks pass; found once for each model and kept.

    Raises
    ------
    TokenMapError
        No style passes. The message names the token at fault and, where there is one, a number
        of digits that passes.
    """
    key = (digits, n_states, dim)
    if key not in lm.maps:
        styles = label_styles() if digits is None else number_styles(digits)
        count = 10**digits if digits is not None else int(n_states or 0)
        faults = []
        for style in styles:
            try:
                lm.maps[key] = _inspect(lm.tokenizer, style, count, dim)
                break
            except TokenMapError as fault:
                faults.append(f"{style.name}: {fault}")
        else:
            lm.maps[key] = TokenMapError(
                f"{'n_states' if digits is None else 'digits'} must suit the tokenizer of "
                f"{lm.name}; got {count if digits is None else digits}. {' '.join(faults)} "
                + _remedy(lm, digits, dim)
            )
    found = lm.maps[key]
    if isinstance(found, TokenMapError):
        raise found
    assert isinstance(found, TokenMap)
    return found


def _remedy(lm: LanguageModel, digits: int | None, dim: int) -> str:
    for other in (3, 2, 1):
        if digits is None or other < digits or (digits < other):
            try:
                if other != digits:
                    _inspect(lm.tokenizer, number_styles(other)[0], 10**other, dim)
                    return f"Use digits={other}."
            except TokenMapError:
                continue
    return "Use a model whose tokenizer has the digits 0 to 9 and a comma."


def _ids(tokenizer: Any, texts: list[str]) -> list[Ids]:
    """Return the tokens of texts as the tokenizer gives them, without an end-of-text token."""
    end = tokenizer.eos_token_id
    out = []
    for ids in tokenizer(texts, verbose=False)["input_ids"]:
        trailing = len(ids) > 0 and end is not None and ids[-1] == end
        out.append(tuple(ids[:-1] if trailing else ids))
    return out


def _inspect(tokenizer: Any, style: Style, n_states: int, dim: int) -> TokenMap:
    """Return the token map of one style, or raise with the first thing that is amiss."""
    anchors = [(n_states * f // 7) for f in (3, 5, 1)]
    reference = "".join(style.row([a] * dim) for a in anchors)
    slots = []
    for j in range(dim):
        before = reference + "".join(style.write(anchors[0], False) for _ in range(j))
        last = j == dim - 1
        blocks = _blocks(tokenizer, before, [style.write(s, last) for s in range(n_states)])
        slots.append(_slot(tokenizer, blocks))
    whole = _ids(tokenizer, [reference])[0]
    length = len(anchors) * sum(s.width for s in slots)
    prefix = whole[: len(whole) - length]
    found = TokenMap(style, n_states, prefix, slots, None)
    found = TokenMap(style, n_states, prefix, slots, _run_tail(tokenizer, found, anchors))
    shuffled = np.random.default_rng(0)
    every = np.stack([shuffled.permutation(n_states) for _ in range(dim)], axis=1)
    text = np.concatenate((every, every[::-1]))
    ids = found.prove([text], tokenizer).tokens[len(prefix) :]
    _same_text(tokenizer.decode(ids.tolist()), style.text([text]))
    if found.run_tail is not None:
        found.prove([every, every[: n_states // 2]], tokenizer)
    return found


def _same_text(back: str, text: str) -> None:
    """Raise if decoding does not give the text back, but for spaces."""
    back, text = "".join(back.split()), "".join(text.split())
    if back != text:
        where = next((i for i, (a, b) in enumerate(zip(back, text)) if a != b), 0)  # noqa: B905
        raise TokenMapError(
            f"{text[where : where + 8]!r} comes back as {back[where : where + 8]!r} when decoded."
        )


def _blocks(tokenizer: Any, before: str, texts: list[str]) -> list[Ids]:
    """Return what each text adds to the tokens of ``before``."""
    base, *whole = _ids(tokenizer, [before, *(before + t for t in texts)])
    blocks = []
    for text, ids in zip(texts, whole, strict=True):
        if ids[: len(base)] != base:
            merged = tokenizer.convert_ids_to_tokens(ids[min(len(base), len(ids)) - 1])
            raise TokenMapError(f"{text!r} is merged with what comes before it, in {merged!r}.")
        block = ids[len(base) :]
        _no_stand_in(tokenizer, block, text)
        blocks.append(block)
    return blocks


def _no_stand_in(tokenizer: Any, block: Ids, text: str) -> None:
    """Raise if a token stands for text that the tokenizer does not know."""
    for token in set(block) & {*tokenizer.all_special_ids, tokenizer.unk_token_id}:
        name = tokenizer.convert_ids_to_tokens(token)
        raise TokenMapError(f"a part of {text!r} is unknown to the tokenizer (it gives {name!r}).")


def _slot(tokenizer: Any, blocks: list[Ids]) -> Slot:
    """Split equally long blocks into lead, path and tail, and check that the paths form a tree."""
    lengths = np.array([len(b) for b in blocks])
    if lengths.min() != lengths.max():
        odd = int(np.flatnonzero(lengths != np.bincount(lengths).argmax())[0])
        tokens = tokenizer.convert_ids_to_tokens(list(blocks[odd]))
        raise TokenMapError(f"state {odd} takes {len(tokens)} tokens, {tokens}, unlike others.")
    table = np.array(blocks, dtype=np.int64)
    vary = np.flatnonzero((table != table[0]).any(axis=0))
    if not vary.size:
        tokens = tokenizer.convert_ids_to_tokens(list(blocks[0]))
        raise TokenMapError(f"all states are written alike, as {tokens}.")
    first, stop = int(vary[0]), int(vary[-1]) + 1
    paths = table[:, first:stop]
    n, nodes, tables = len(paths), 1, []
    for level in range(paths.shape[1]):
        count = len(np.unique(paths[:, : level + 1], axis=0))
        if n % count or count % nodes or not _constant(paths[:, level], count):
            tokens = tokenizer.convert_ids_to_tokens(paths[:: max(n // 10, 1), level].tolist())
            raise TokenMapError(f"the tokens {tokens} do not split the states evenly.")
        tables.append(paths[:: n // count, level].reshape(nodes, count // nodes))
        nodes = count
    if nodes != n:
        raise TokenMapError(f"only {nodes} of {n} states have tokens of their own.")
    return Slot(tuple(blocks[0][:first]), paths, tuple(blocks[0][stop:]), tables)


def _constant(tokens: IntArray, count: int) -> bool:
    """Return whether tokens are constant on ``count`` equal stretches."""
    stretches = tokens.reshape(count, -1)
    return bool((stretches == stretches[:, :1]).all())


def _run_tail(tokenizer: Any, found: TokenMap, anchors: list[int]) -> Ids | None:
    """Return the tokens between the end of a path and the first block after a newline."""
    dim = len(found.slots)
    run = np.array(anchors, dtype=np.int64)[:, None].repeat(dim, axis=1)
    ids = _ids(tokenizer, [found.style.text([run, run])])[0]
    alone = tuple(found.layout([run]).tokens)
    body = len(alone) - len(found.prefix)
    start = len(alone) - len(found.slots[-1].tail)
    tail = ids[start : len(ids) - body]
    try:
        _no_stand_in(tokenizer, tail, "\n")
    except TokenMapError:
        return None
    return tail or None
