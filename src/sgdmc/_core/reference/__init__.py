"""Every kernel in plain NumPy: what the book quotes and what the parity tests compare with."""

from sgdmc._core.reference.barycenter import quantile_barycenters, sinkhorn_barycenters
from sgdmc._core.reference.chain import alias_tables, count_transitions, simulate
from sgdmc._core.reference.grid import encode, min_max, parse_digits, write_digits
from sgdmc._core.reference.random import logistic, random_bits, sine_cosine
from sgdmc._core.reference.sgd import run_sgd
from sgdmc._core.reference.stationary import (
    absorption_dense,
    group_inverse_krylov,
    stationary_banded,
    stationary_dense,
)
from sgdmc._core.reference.ulam import ulam_count, ulam_step

__all__ = [
    "absorption_dense",
    "alias_tables",
    "count_transitions",
    "encode",
    "group_inverse_krylov",
    "logistic",
    "min_max",
    "parse_digits",
    "quantile_barycenters",
    "random_bits",
    "run_sgd",
    "simulate",
    "sine_cosine",
    "sinkhorn_barycenters",
    "stationary_banded",
    "stationary_dense",
    "ulam_count",
    "ulam_step",
    "write_digits",
]
