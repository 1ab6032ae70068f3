"""Stationary laws and spectral gaps against quantecon, LAPACK, scipy and deeptime."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from benchmarks.common import (
    Row,
    division_seconds,
    flop_seconds,
    in_turn,
    machine_limits,
    show,
    timed,
)
from scipy.sparse.linalg import eigs, spsolve

from sgdmc.chain.spectrum import spectral_gap, stationary_distribution


def dense_chain(n: int) -> np.ndarray:
    P = np.random.default_rng(0).random((n, n)) ** 4
    return P / P.sum(axis=1, keepdims=True)


def banded_chain(n: int, width: int, lazy: float = 0.0) -> sp.csr_array:
    """A chain in a box with a weak pull to the middle, in a random environment."""
    offsets = np.arange(-width, width + 1)
    rng = np.random.default_rng(0)
    place = np.linspace(-1, 1, n)
    bands = [1 + 0.1 * rng.random(n) - 0.02 * np.sign(k) * place for k in offsets]
    P = sp.csr_array(sp.diags_array(bands, offsets=offsets, shape=(n, n)))
    P = sp.csr_array(sp.diags_array(1 / P.sum(axis=1)) @ P)
    return sp.csr_array((1 - lazy) * P + lazy * sp.eye_array(n))


def by_lu(P: np.ndarray) -> np.ndarray:
    n = len(P)
    A = np.eye(n) - P.T
    A[-1] = 1.0
    return np.linalg.solve(A, np.eye(n)[-1])


def by_sparse_lu(P: sp.csr_array) -> np.ndarray:
    """`pi` up to scale, its last component set to one."""
    A = sp.csc_array((sp.eye_array(P.shape[0]) - P).T)[:-1]
    pi = np.append(spsolve(sp.csc_array(A[:, :-1]), -A[:, [-1]].toarray().ravel()), 1.0)
    return pi / pi.sum()


def dense(n: int) -> Iterator[Row]:
    from quantecon.markov.gth_solve import gth_solve

    P = dense_chain(n)
    # BLAS's threads spin for some 20 ms after a solve: the one-threaded peer stands between.
    lapack, peer, ours = in_turn(
        lambda: by_lu(P), lambda: gth_solve(P), lambda: stationary_distribution(P)
    )
    pi = stationary_distribution(P)
    np.testing.assert_allclose(pi, gth_solve(P), rtol=1e-12)
    bound = flop_seconds(2 * n**3 / 3)
    task = f"stationary distribution, dense n = {n}"
    yield Row(task, "quantecon", peer, ours, 8, "flops of BLAS", bound)
    yield Row(task, "LU solve", lapack, ours, 1, "flops of BLAS", bound)


def banded(n: int, width: int, *, with_deeptime: bool) -> Iterator[Row]:
    P = banded_chain(n, width)
    peer, ours = in_turn(lambda: by_sparse_lu(P), lambda: stationary_distribution(P))
    pi = stationary_distribution(P)
    assert np.abs(pi - by_sparse_lu(P)).max() < 1e-8 * pi.max()
    assert pi.min() > 0  # which cannot be said of the solver's
    task = f"stationary distribution, {2 * width + 1} bands, n = {n:.0e}"
    # A state's entries wait for the division by the sum of the one before.
    bound = n * division_seconds()
    yield Row(task, "scipy sparse LU", peer, ours, 10, "dependent divisions", bound)
    if with_deeptime:
        from deeptime.markov.tools.analysis import stationary_distribution as deeptime_stationary

        # Inverse iteration by sparse LU, once; ARPACK, seconds, if that left negative entries.
        theirs = timed(lambda: deeptime_stationary(P, check_inputs=False))
        note = "one repeat of deeptime"
        yield Row(task, "deeptime", theirs, ours, 100, "dependent divisions", bound, note)


def gap(n: int, width: int) -> Row:
    P = banded_chain(n, width, lazy=0.2)
    transposed = sp.csc_array(P.T)

    def peer() -> np.ndarray:
        return eigs(transposed, k=2, sigma=1 + 1e-10, return_eigenvectors=False)

    theirs, ours = in_turn(peer, lambda: spectral_gap(P))
    expected = 1 - np.sort(np.abs(peer()))[0]
    np.testing.assert_allclose(spectral_gap(P), expected, rtol=1e-4)
    return Row(
        f"spectral gap, {2 * width + 1} bands, n = {n:.0e}", "ARPACK shift-invert", theirs, ours, 2
    )


def rows(*, full: bool = False) -> Iterator[Row]:
    yield from dense(1000)
    yield from banded(10_000, 1, with_deeptime=True)
    yield from banded(10_000, 10, with_deeptime=full)
    # deeptime had not ended after 200 s at a fifth of these states.
    yield from banded(100_000, 2, with_deeptime=False)
    yield gap(10_000, 2)
    yield gap(10_000, 10)
    if full:
        yield gap(100_000, 5)


if __name__ == "__main__":
    show(rows(), machine_limits())
