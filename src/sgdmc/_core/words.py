"""Counts and lists in words, for reports."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "listed"]

# Names that are written out.
_MOST = 4


def counted(n: int, noun: str) -> str:
    """Write a number of things: ``1 run``, ``3 runs``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Write names out, the first ones of many."""
    if len(names) <= _MOST:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST - 1])} and {len(names) - _MOST + 1} more"
