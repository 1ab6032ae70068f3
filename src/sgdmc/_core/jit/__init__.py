"""The kernels in numba, with the names and signatures of the plain NumPy reference."""
