"""Constant-step SGD as a Markov chain: its kernel, read off a language model, and forecasts.

Importing this package loads neither torch nor transformers nor matplotlib.
"""

from importlib.metadata import version

from sgdmc.chain.distances import bhattacharyya, kl_divergence, total_variation, wasserstein1
from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import JointKernel, Kernel
from sgdmc.chain.spectrum import (
    mixing_time,
    relaxation_time,
    spectral_gap,
    stationary_distribution,
)
from sgdmc.chain.transitions import count_transitions, simulate_chain
from sgdmc.forecasting.estimate import complete_kernel, estimate_kernel
from sgdmc.forecasting.exact import exact_kernel
from sgdmc.forecasting.forecast import Forecast, forecast
from sgdmc.forecasting.held import load_kernel
from sgdmc.forecasting.scaling import fit_power_law, in_context_curve
from sgdmc.forecasting.scores import score_forecast
from sgdmc.forecasting.trial_report import TrialSpec
from sgdmc.forecasting.trials import run_trials
from sgdmc.llm.reader import next_state_laws
from sgdmc.sgd.custom import NumbaProblem, TorchProblem
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.network import AffineSubspaceProblem, MLPProblem
from sgdmc.sgd.problems import (
    LeastSquares,
    LogisticRegression,
    SineRegression,
    make_least_squares,
    make_logistic_regression,
    make_sine_regression,
)
from sgdmc.sgd.run import DivergedError, Run
from sgdmc.sgd.run_file import load_run
from sgdmc.sgd.simulate import run_sgd
from sgdmc.transport.barycenter import debiased_barycenter

__version__ = version("sgdmc")

__all__ = [
    "AffineSubspaceProblem",
    "DivergedError",
    "Forecast",
    "Grid",
    "JointKernel",
    "Kernel",
    "LeastSquares",
    "LogisticRegression",
    "MLPProblem",
    "NumbaProblem",
    "Run",
    "SineRegression",
    "TorchProblem",
    "TrialSpec",
    "bhattacharyya",
    "complete_kernel",
    "count_transitions",
    "debiased_barycenter",
    "estimate_kernel",
    "exact_kernel",
    "fit_power_law",
    "forecast",
    "in_context_curve",
    "kl_divergence",
    "load_kernel",
    "load_run",
    "make_least_squares",
    "make_logistic_regression",
    "make_sine_regression",
    "mixing_time",
    "next_state_laws",
    "relaxation_time",
    "run_sgd",
    "run_trials",
    "score_forecast",
    "simulate_chain",
    "spectral_gap",
    "stationary_distribution",
    "total_variation",
    "ulam_kernel",
    "wasserstein1",
]
