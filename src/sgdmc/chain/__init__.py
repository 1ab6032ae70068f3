"""Finite chains: grids, kernels, transitions, spectra, distances between laws."""
