"""The one place where numba is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`numba.njit` with the GIL released and no fast-math: results match the other backends.

    NumPy's division is used (no exception at zero), and the machine code is cached on disk.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
