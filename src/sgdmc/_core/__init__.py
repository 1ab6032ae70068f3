"""The bottom room: compiled kernels, their plain NumPy reference, numba kernels, validation.

Each kernel is found by one name in three places: `native` (C++), `reference` (plain NumPy) and
`jit` (numba), with the same signature and the same result.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["BACKENDS", "backend"]

BACKENDS = {"cpp": "native", "numba": "jit", "numpy": "reference"}


def backend(name: str) -> Any:
    """Module that holds the kernels of one backend.

    Parameters
    ----------
    name : {"cpp", "numba", "numpy"}
        Compiled C++, numba, or plain NumPy.

    Returns
    -------
    module
        `sgdmc._core.native`, `.jit` or `.reference`; numba is imported only when it is asked for.

    Raises
    ------
    ValueError
        If `name` is not one of the three.

    Examples
    --------
    >>> backend("numpy").__name__
    'sgdmc._core.reference'
    """
    if name not in BACKENDS:
        raise ValueError(
            f"backend must be one of 'cpp', 'numba', 'numpy'; got {name!r}. Choose one of them."
        )
    return import_module(f"{__name__}.{BACKENDS[name]}")
