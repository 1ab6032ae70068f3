"""The kernels in numba, with the names and signatures of the plain NumPy reference."""

from sgdmc._core.jit.barycenter import quantile_barycenters, sinkhorn_barycenters
from sgdmc._core.jit.chain import alias_tables, count_transitions, simulate
from sgdmc._core.jit.grid import encode, min_max, parse_digits, write_digits
from sgdmc._core.jit.random import logistic, random_bits, sine_cosine
from sgdmc._core.jit.sgd import run_sgd, run_sgd_with
from sgdmc._core.jit.stationary import absorption_dense, stationary_banded, stationary_dense
from sgdmc._core.jit.ulam import ulam_count, ulam_step

__all__ = [
    "absorption_dense",
    "alias_tables",
    "count_transitions",
    "encode",
    "logistic",
    "min_max",
    "parse_digits",
    "quantile_barycenters",
    "random_bits",
    "run_sgd",
    "run_sgd_with",
    "simulate",
    "sine_cosine",
    "sinkhorn_barycenters",
    "stationary_banded",
    "stationary_dense",
    "ulam_count",
    "ulam_step",
    "write_digits",
]
