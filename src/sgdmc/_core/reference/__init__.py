"""Every kernel in plain NumPy: what the book quotes and what the parity tests compare with."""

from sgdmc._core.reference.barycenter import quantile_barycenters, sinkhorn_barycenters
from sgdmc._core.reference.grid import encode, min_max, parse_digits, write_digits

__all__ = [
    "encode",
    "min_max",
    "parse_digits",
    "quantile_barycenters",
    "sinkhorn_barycenters",
    "write_digits",
]
