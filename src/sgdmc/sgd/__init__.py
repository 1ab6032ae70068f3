"""The process: problems, runs, simulation, exact kernels."""
