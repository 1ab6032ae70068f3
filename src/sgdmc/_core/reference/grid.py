"""Discretisation and digit text in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode", "min_max", "parse_digits", "write_digits"]


def min_max(
    values: NDArray[np.float64], n_threads: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Column minima and maxima of `values` (m, dim), and the flat index of the first bad entry.

    An entry is bad if it is NaN or infinite; the index is -1 if there is none, and the extremes are
    meaningful only then. Without rows they are (inf, -inf).
    """
    bad = ~np.isfinite(values).ravel()
    first = int(np.argmax(bad)) if bad.any() else -1
    return (
        np.fmin.reduce(values, axis=0, initial=np.inf),
        np.fmax.reduce(values, axis=0, initial=-np.inf),
        first,
    )


def encode(
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_states: int,
    out: NDArray[np.int16],
    n_threads: int = 1,
) -> int:
    """Write ``clip(floor((x - low) * scale), 0, n_states - 1)`` of `values` (m, dim) to `out`.

    Returns the flat index of the first entry that is NaN or infinite (its state then is arbitrary),
    or -1.
    """
    bad = ~np.isfinite(values).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.clip(np.floor((values - low) * scale), 0, n_states - 1)
    out[...] = np.where(np.isnan(scaled), 0, scaled)
    return int(np.argmax(bad)) if bad.any() else -1


def write_digits(states: NDArray[np.int16], digits: int, dim: int) -> tuple[str, int]:
    """Text of flat `states` in [0, 10**digits): ":" inside and "," after each `dim`.

    With it the index of the first state outside, and then no text, or -1.
    """
    bad = (states < 0) | (states >= 10**digits)
    if bad.any():
        return "", int(np.argmax(bad))
    text = np.empty((states.size, digits + 1), dtype=np.uint8)
    rest = states.astype(np.int64)
    for position in range(digits - 1, -1, -1):
        text[:, position] = ord("0") + rest % 10
        rest = rest // 10
    text[:, digits] = ord(":")
    text[dim - 1 :: dim, digits] = ord(",")
    return text.tobytes().decode("ascii"), -1


def parse_digits(text: str, digits: int, dim: int, out: NDArray[np.int16]) -> int:
    """Read states back from the text of `write_digits`, into `out`, flat.

    Returns the index of the first character that does not fit, or -1; the states are meaningful
    only then. The length of `text` is ``digits + 1`` times that of `out`.
    """
    plain = np.frombuffer(text.encode("ascii", errors="replace"), dtype=np.uint8)
    characters = plain.reshape(-1, digits + 1)
    separator = np.full(len(characters), ord(":"), dtype=np.uint8)
    separator[dim - 1 :: dim] = ord(",")
    values = characters[:, :digits].astype(np.int64) - ord("0")
    bad = np.empty(characters.shape, dtype=bool)
    bad[:, :digits] = (values < 0) | (values > 9)
    bad[:, digits] = characters[:, digits] != separator
    out[:] = values @ (10 ** np.arange(digits - 1, -1, -1))
    return int(np.argmax(bad)) if bad.any() else -1
