"""The bottom room: compiled kernels, their plain NumPy reference, numba kernels, validation."""
