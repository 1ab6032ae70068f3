"""Checks of arguments, shared by all rooms: each returns the argument in the form kernels need.

Messages read ``<name> must <rule>; got <value> at <index>. <what to do>.``; `TypeError` for the
wrong kind, `ValueError` for the wrong value, and NaN is looked for before signs and sums.
"""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sgdmc._core import backend

__all__ = [
    "as_choice",
    "as_floats",
    "as_generator",
    "as_int",
    "as_positive",
    "as_square",
    "as_states",
    "as_threads",
    "as_transition_matrix",
    "checked_transition_matrix",
    "finite_or_raise",
    "output_or_new",
    "raise_unless_stochastic",
    "seed_from",
    "state_dtype",
]

ROW_SUM_TOLERANCE = 1e-6


def as_generator(rng: Any = None) -> np.random.Generator:
    """Generator made from a seed, a `SeedSequence`, a `Generator` (returned as it is) or None.

    Raises
    ------
    TypeError
        If `rng` is none of these (a legacy `RandomState`, a float).
    ValueError
        If a seed is negative.

    Examples
    --------
    >>> bool(as_generator(3).random() == as_generator(3).random())
    True
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng must be a non-negative seed; got {rng}. Choose 0 or more.")
        return np.random.default_rng(int(rng))
    raise TypeError(
        "rng must be an int, a numpy SeedSequence, a numpy Generator or None; "
        f"got {type(rng).__name__}. Pass an integer seed."
    )


def seed_from(rng: Any = None) -> int:
    """Seed in [0, 2**64) for the counter-based kernels, drawn once from `rng`."""
    return int(as_generator(rng).integers(0, 2**64, dtype=np.uint64))


def as_threads(n_threads: int | None) -> int:
    """Number of threads: `n_threads`, or the processors this process may use if it is None."""
    if n_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return as_int("n_threads", n_threads, minimum=1)


def as_int(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Integer within bounds (Python or NumPy; no bool, no float).

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If `value` is outside ``[minimum, maximum]``.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}. Pass an int.")
    number = int(value)
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {number}. Raise it.")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}; got {number}. Lower it.")
    return number


def as_positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Finite float that is positive (or, with `zero`, non-negative).

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If `value` is NaN, infinite or of the wrong sign.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r}. Pass a float.")
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite; got {number}. Pass a finite number.")
    if number < 0 or (number == 0 and not zero):
        rule = "non-negative" if zero else "positive"
        raise ValueError(f"{name} must be {rule}; got {number}. Raise it.")
    return number


def as_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few words.

    Raises
    ------
    ValueError
        If `value` is not among `choices`.
    """
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}. Choose one of them.")
    return str(value)


def as_floats(
    name: str, values: Any, *, ndim: int | None = None, finite: bool = True
) -> NDArray[np.float64]:
    """C-contiguous float64 array; copies only where type, order or strides demand it.

    Raises
    ------
    TypeError
        If `values` are not real numbers.
    ValueError
        If the number of axes is not `ndim`, or (with `finite`) an entry is NaN or infinite.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers; got {array.dtype}. Convert it first.")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes; got shape {array.shape}. Reshape it.")
    result = np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)
    if finite:
        finite_or_raise(name, result)
    return result


def finite_or_raise(name: str, values: NDArray[Any]) -> None:
    """Raise `ValueError` naming the first entry that is NaN or infinite."""
    bad = ~np.isfinite(values)
    if bad.any():
        where = np.unravel_index(int(np.argmax(bad)), values.shape)
        raise ValueError(
            f"{name} must be finite; got {values[where]} at {_index(where)}. "
            "Remove or repair that entry."
        )


def as_states(name: str, states: Any, *, ndim: tuple[int, ...] = (1, 2)) -> NDArray[Any]:
    """C-contiguous integer array of state indices; int16, int32 and int64 are not copied.

    Whether the states lie in range is left to the kernel, which checks while it reads.

    Raises
    ------
    TypeError
        If `states` are not integers.
    ValueError
        If the number of axes is not among `ndim`.
    """
    array = np.asarray(states)
    if array.size == 0 and array.dtype == np.float64:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integer state indices; got {array.dtype}. "
            "Encode values with Grid.encode first."
        )
    if array.ndim not in ndim:
        wanted = " or ".join(str(k) for k in ndim)
        raise ValueError(f"{name} must have {wanted} axes; got shape {array.shape}. Reshape it.")
    if array.dtype not in (np.int16, np.int32, np.int64):
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name} must fit in int64; got {array.max()}. Check the indices.")
        array = array.astype(np.int32 if array.dtype.itemsize < 4 else np.int64)
    return np.ascontiguousarray(array).reshape(array.shape)


def state_dtype(n_states: int) -> type[np.int16] | type[np.int32]:
    """Dtype of state indices: int16 up to 32768 states, int32 beyond."""
    return np.int16 if n_states <= 2**15 else np.int32


def as_transition_matrix(
    P: Any, *, name: str = "P"
) -> NDArray[np.float64] | scipy.sparse.csr_array:
    """Row-stochastic matrix, dense float64 or CSR, its rows scaled to sum to one exactly as can be.

    Always a copy.

    Raises
    ------
    TypeError
        If `P` does not hold real numbers.
    ValueError
        If `P` is empty or not square, an entry is NaN, infinite or negative, or a row's sum is more
        than 1e-6 away from one.
    """
    matrix = checked_transition_matrix(P, name=name)[0]
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    result: Any
    if scipy.sparse.issparse(P):
        result = matrix.copy()
        result.data /= np.repeat(sums, np.diff(result.indptr))
        result.sum_duplicates()
    else:
        result = matrix / sums[:, None]
    transitions: NDArray[np.float64] | scipy.sparse.csr_array = result
    return transitions


def checked_transition_matrix(P: Any, *, name: str = "P") -> tuple[Any, int, int]:
    """`P` as dense float64 or CSR with 32-bit indices, not copied if it is that; and bandwidths.

    The latter are the largest ``i - j`` and ``j - i`` of a sparse matrix. One pass over the
    entries; rows sum to one within 1e-6, and duplicate entries of a CSR matrix stay.

    Raises
    ------
    TypeError
        If `P` does not hold real numbers.
    ValueError
        As for `as_transition_matrix`.
    """
    sparse = scipy.sparse.issparse(P)
    matrix = as_square(P, name=name)
    if sparse:
        indices = matrix.indices.astype(np.int32, copy=False)
        starts = matrix.indptr.astype(np.int32, copy=False)
        found = backend("cpp").check_sparse_rows(matrix.data, indices, starts, ROW_SUM_TOLERANCE)
        if indices is not matrix.indices or starts is not matrix.indptr:
            matrix = scipy.sparse.csr_array((matrix.data, indices, starts), shape=matrix.shape)
    else:
        found = backend("cpp").check_full_rows(matrix, ROW_SUM_TOLERANCE)
    if not found[0]:
        raise_unless_stochastic(matrix, name=name)
    return matrix, int(found[1]), int(found[2])


def as_square(P: Any, *, name: str = "P") -> Any:
    """`P` as dense float64 or CSR, not copied if it is that; its entries are not looked at.

    Raises
    ------
    TypeError
        If `P` does not hold real numbers.
    ValueError
        If `P` is empty or not square.
    """
    matrix: Any
    sparse = scipy.sparse.issparse(P)
    if type(P) is scipy.sparse.csr_array and P.dtype == np.float64:
        matrix = P
    elif sparse:
        matrix = scipy.sparse.csr_array(P, dtype=np.float64)
    else:
        matrix = as_floats(name, P, finite=False)
    shape = matrix.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix; got shape {shape}. Reshape it.")
    return matrix


def raise_unless_stochastic(matrix: Any, *, name: str = "P") -> None:
    """Name the fault of a matrix, dense or CSR, that was found not to be row-stochastic.

    Raises
    ------
    ValueError
        If an entry is NaN, infinite or negative, or a row's sum is more than 1e-6 away from one.
    """
    sparse = scipy.sparse.issparse(matrix)
    if sparse:  # duplicate entries added
        matrix = matrix.copy()
        matrix.sum_duplicates()
    data = matrix.data if sparse else matrix
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    if not (np.isfinite(sums).all() and (data.size == 0 or data.min() >= 0)):
        nonfinite = ~np.isfinite(data)
        rule = "finite" if nonfinite.any() else "non-negative"
        first = int(np.argmax(nonfinite if nonfinite.any() else data < 0))
        if sparse:
            row = int(np.searchsorted(matrix.indptr, first, side="right")) - 1
            where = (row, int(matrix.indices[first]))
        else:
            where = (first // matrix.shape[1], first % matrix.shape[1])
        raise ValueError(
            f"{name} must be {rule}; got {data.flat[first]} at {where}. Repair that entry."
        )
    off = np.abs(sums - 1.0)
    if off.max() > ROW_SUM_TOLERANCE:
        row = int(np.argmax(off > ROW_SUM_TOLERANCE))
        raise ValueError(
            f"{name} must have rows that sum to 1; got {sums[row]:.12g} at row {row}. "
            "Normalise the rows, or complete the ones that were never visited."
        )


def output_or_new(
    name: str, out: Any, shape: tuple[int, ...], dtype: Any, *, zero: bool = False
) -> NDArray[Any]:
    """Give `out`, checked, or a new array of this shape and dtype.

    Raises
    ------
    TypeError
        If `out` is not an array of `dtype`.
    ValueError
        If `out` has another shape, is not C-contiguous or not writeable.
    """
    if out is None:
        return np.zeros(shape, dtype) if zero else np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.dtype != np.dtype(dtype):
        kind = getattr(out, "dtype", type(out).__name__)
        raise TypeError(f"{name} must be an array of {np.dtype(dtype)}; got {kind}. Allocate one.")
    if out.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {out.shape}. Allocate it so.")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"{name} must be C-contiguous and writeable; got strides {out.strides}. "
            "Allocate it with numpy.empty."
        )
    return out


def _index(where: tuple[Any, ...]) -> str:
    indices = tuple(int(i) for i in where)
    return f"index {indices[0]}" if len(indices) == 1 else f"index {indices}"
