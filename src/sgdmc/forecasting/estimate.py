"""From observed runs to a kernel."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core.words import counted
from sgdmc.chain.calibration import calibrate_rows
from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.coupling import choose_coordinates, choose_field
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.gradient import GradientKernel
from sgdmc.forecasting.held import FieldKernel, hold_to_field
from sgdmc.forecasting.joint import joint_kernel
from sgdmc.forecasting.lag import choose_lag
from sgdmc.forecasting.paths import covering
from sgdmc.forecasting.rows import ROW_ESTIMATORS, BlockRows, llm_blocks
from sgdmc.forecasting.select import choose_method
from sgdmc.forecasting.stepped import STEPPED, SteppedKernel, stepped_kernel
from sgdmc.forecasting.var import lagged_pairs, var1_fit
from sgdmc.sgd.run import Run
from sgdmc.transport.completion import complete

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = [
    "COMPLETIONS",
    "METHODS",
    "FewStepsWarning",
    "complete_kernel",
    "estimate_kernel",
    "recalibrate_kernel",
]

METHODS = ("llm", *ROW_ESTIMATORS, *STEPPED, "gradient-gp", "auto")
COMPLETIONS = ("barycenter", "increments", "quantiles", "probe", "nearest", None)
# Of barycenters: masked rows of exact kernels are then 0.058 bins off in gaps of 15, and 0.054 with
# a half of it in twice the time; rows that are estimated are farther off.
_TOLERANCE = 2e-3
# States between which they are solved for, at least: of 1000, rows between every eighth are then
# .004 to .08 bins (W1, mean of a kernel) from those that are solved for themselves.
_KNOTS = 125
# Observed steps in all, below which forecasts are mostly the prior's.
_FEW = 20
RowKernel = TypeVar("RowKernel", bound=Kernel | FieldKernel)
Coupling = Literal["auto", "blocks", "rotated", "field", "joint"]


class FewStepsWarning(UserWarning):
    """A handful of steps was observed: forecasts are mostly what was believed before them."""


def estimate_kernel(
    run: Run,
    *,
    method: str = "llm",
    model: str | LanguageModel = "shipped",
    digits: int | Literal["auto"] = "auto",
    lag: int | Literal["auto"] = "auto",
    coupling: Coupling = "auto",
    convex: bool | None = None,
    completion: str | None = "barycenter",
    basis: ArrayLike | None = None,
    cover: ArrayLike | None = None,
    horizon: int | None = None,
    reg: float | None = None,
    mirror: bool = True,
    recalibrate: bool = True,
    max_context: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: bool = False,
) -> Kernel | SteppedKernel | GradientKernel | FieldKernel:
    """Estimate SGD's kernel from observed runs.

    Parameters
    ----------
    run : Run
        One or several runs, from :func:`sgdmc.run_sgd` or :func:`sgdmc.load_run`.
    method : str
        ``"llm"`` reads rows off a causal language model; ``"counts"`` (maximum likelihood) and
        ``"dirichlet"`` (posterior mean) count; ``"ar1"`` and ``"ar1-kde"`` fit a line a coordinate
        with Gaussian or kernel-density residuals; ``"var1"``, ``"knn"`` and ``"local-linear"``
        step all coordinates jointly; ``"gradient-gp"`` follows a Gaussian process for the loss's
        gradient; ``"auto"`` takes whichever foretells held-out steps best.
    model : str or LanguageModel
        For ``"llm"``: ``"shipped"``, a folder, a Hub id, or a loaded model.
    digits : int or "auto"
        States a coordinate are ``10**digits``, 1 to 3. ``"auto"``: 3 for ``"llm"``, ``"ar1"`` and
        ``"ar1-kde"``, 2 for the counting methods, whose rows would stay empty otherwise.
    lag : int or "auto"
        Recorded steps that one kernel step stands for; see
        :func:`sgdmc.forecasting.lag.choose_lag`.
    coupling : {"auto", "blocks", "rotated", "field", "joint"}
        ``"blocks"``: one chain a coordinate as it is; ``"rotated"``: in the eigen-coordinates of a
        VAR(1) fit; ``"field"``: rows scatter around means that follow a Gaussian process for the
        loss's gradient, one for all coordinates; ``"auto"``: for ``"llm"`` with ``recalibrate`` the
        field; otherwise the better of the first two by how a coupled law explains the steps;
        ``"joint"``, for ``"llm"``: coordinates interleaved in one text. Stepped methods are joint
        anyway.
    convex : bool, optional
        For the field and ``"gradient-gp"``: whether the loss is convex, where that is known. By
        default the runs decide, and one that saw a single basin seldom can. ``False`` is for a loss
        with several: SGD is then taken to stay where nothing is known. In a few directions of a
        network's parameters there is often but one, though its loss is not convex. Where the runs
        leave it open, forecasts take it to be, and their intervals leave room for that it is not,
        the more the farther a start is from the runs.
    completion : str or None
        How rows that no run visited are filled: ``"barycenter"`` (debiased Sinkhorn),
        ``"increments"``, ``"quantiles"``, ``"nearest"``, ``"probe"`` (what the language model says
        of that state), or None (the chain stays where it is there).
    basis : array_like, shape (dim, dim), or "pca", optional
        Directions (columns) used instead of the VAR(1) eigenvectors.
    cover : array_like, shape (m, dim), optional
        Points that the grid has to span beside the run: the starts of later forecasts.
    horizon : int, optional
        Steps that forecasts will look ahead, for ``lag="auto"``; the run's length by default.
    reg : float, optional
        Entropic regularisation of the barycenter, in squared grid widths; by default matched to
        the width of the visited rows.
    mirror : bool
        For ``"llm"``: average with the mirrored series.
    recalibrate : bool
        For ``"llm"``: hold the rows to the observed steps, to a field of their means (see
        `coupling`) or each coordinate to its own
        (:func:`sgdmc.chain.calibration.calibrate_rows`); draws of a joint kernel likewise
        (:func:`sgdmc.forecasting.joint.joint_kernel`).
    max_context : int, optional
        For ``"llm"``: use at most so many tokens of context.
    device, dtype : str, optional
        For ``"llm"``: where and in which precision; ``cuda`` if there is one, else ``cpu``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Kernel
        For the methods that estimate rows.
    SteppedKernel
        For ``"var1"``, ``"knn"`` and ``"local-linear"``, and for ``coupling="joint"``.
    GradientKernel
        For ``"gradient-gp"``.
    FieldKernel
        With ``coupling="field"``, or where ``"auto"`` chose it.

    Warns
    -----
    FewStepsWarning
        If fewer than 20 steps were observed in all.

    Raises
    ------
    TypeError
        If ``run`` is not a Run, or ``convex`` neither a bool nor None.
    ValueError
        If an option is not one of the above, the lag is not shorter than the longest run, or the
        run does not fit into the model's context.
    """
    if not isinstance(run, Run):
        raise TypeError(
            f"run must be a Run; got {type(run).__name__}. Use Run.from_array or load_run."
        )
    _check(method, completion, coupling, digits, lag, convex)
    n_observed = int((run.lengths - 1).sum())
    if n_observed < _FEW:
        warnings.warn(
            f"run holds {counted(n_observed, 'step')} in all: forecasts are mostly what was "
            "believed before it was seen. Observe more steps.",
            FewStepsWarning,
            stacklevel=2,
        )
    if method == "auto":
        return _best(
            run,
            digits=digits,
            lag=lag,
            horizon=horizon,
            options={
                "model": model,
                "coupling": coupling,
                "convex": convex,
                "completion": completion,
                "basis": basis,
                "cover": cover,
                "reg": reg,
                "mirror": mirror,
                "recalibrate": recalibrate,
                "max_context": max_context,
                "device": device,
                "dtype": dtype,
            },
        )
    n_digits = digits if digits != "auto" else (2 if method in ("counts", "dirichlet") else 3)
    paths = tuple(np.ascontiguousarray(p) for p in run.paths)
    if lag == "auto":
        n_lag, why_lag = choose_lag(run, digits=n_digits, horizon=horizon)
    else:
        n_lag, why_lag = int(lag), f"lag {lag} as asked"
    if n_lag >= int(run.lengths.max()):
        raise ValueError(
            f"lag must be shorter than the longest run ({int(run.lengths.max())} iterates); "
            f"got {n_lag}. Use a smaller lag."
        )
    if method == "gradient-gp":
        return GradientKernel.fit(
            paths, lag=n_lag, names=run.names, notes=(why_lag,), convex=convex
        )
    if method in STEPPED:
        return stepped_kernel(paths, method=method, lag=n_lag, names=run.names, notes=(why_lag,))
    if coupling == "joint":
        return _joint(
            run,
            n_lag,
            n_digits,
            why_lag,
            model,
            mirror,
            recalibrate,
            max_context,
            device,
            dtype,
            cover,
        )
    held = (method == "llm" and recalibrate) or coupling == "field"
    field = None
    if coupling == "field":
        field = GradientField.fit(paths, convex=convex)
    elif coupling == "auto" and basis is None and held:
        field = choose_field(paths, convex=convex)
    coordinates, chosen, why_coupling = choose_coordinates(
        paths, n_lag, coupling="auto" if coupling == "field" else coupling, basis=basis
    )
    rotated = [coordinates.forward(p) for p in paths]
    points = None if cover is None else coordinates.forward(cover)
    grid = Grid.fit(covering(np.concatenate(rotated), points), digits=n_digits)
    notes = [why_lag, why_coupling]
    if method == "llm":
        found, note = llm_blocks(
            rotated, grid, n_lag, model, mirror, max_context, device, dtype, progress
        )
        notes.append(note)
    else:
        states = [grid.encode(z) for z in rotated]
        found = [
            ROW_ESTIMATORS[method]([s[:, i] for s in states], grid.n_states, n_lag)
            for i in range(run.dim)
        ]
    # Rows are held as the model tells them, and filled after.
    asked = "probe" if held and method == "llm" else completion
    kernel = Kernel(
        blocks=np.stack([_fill(b, asked, reg) for b in found]),
        observed=np.stack([_visited(grid, rotated, i, n_lag) for i in range(run.dim)]),
        off_state_mass=np.stack([block.off_state_mass for block in found]),
        grid=grid,
        lag=n_lag,
        method=method,
        completion=asked or "none",
        coupling=chosen,
        coordinates=coordinates,
        names=run.names,
        paths=paths,
        notes=tuple(notes),
    )
    if not held:
        return kernel
    fitted = recalibrate_kernel(kernel, field=field)
    return (
        fitted if asked == completion else complete_kernel(fitted, completion=completion, reg=reg)
    )


def recalibrate_kernel(
    kernel: Kernel, *, field: GradientField | None = None
) -> Kernel | FieldKernel:
    """Hold the rows of a kernel to the steps that its runs made.

    Rows are moved and scaled so that the observed steps have no trend left and the right spread
    (:func:`sgdmc.chain.calibration.calibrate_rows`); steps weigh the inverse of their noise.

    Parameters
    ----------
    kernel : Kernel
        From :func:`estimate_kernel` with ``recalibrate=False``.
    field : GradientField, optional
        Of the same runs: rows then keep their scatter alone, and means follow the field
        (:func:`sgdmc.forecasting.held.hold_to_field`).

    Returns
    -------
    Kernel
        Without a field.
    FieldKernel
        With one.
    """
    if field is not None:
        return hold_to_field(kernel, field)
    weights = var1_fit(*lagged_pairs(kernel.paths, kernel.lag), lag=kernel.lag).weights
    rotated = [kernel.coordinates.forward(p) for p in kernel.paths]
    grid, fits = kernel.grid, []
    for i, (block, seen) in enumerate(zip(kernel.blocks, kernel.observed, strict=True)):
        positions = [(z[:, i] - grid.low[i]) * grid.scale[i] for z in rotated]
        fits.append(calibrate_rows(positions, kernel.lag, block, seen, weights=weights))
    done = "; ".join(f"bend {fit.bend:.2f}, spread × {fit.spread:.2f}" for fit in fits)
    return replace(
        kernel,
        blocks=np.stack([fit.rows for fit in fits]),
        notes=(*kernel.notes, f"rows held to the observed steps: {done}"),
    )


def _best(
    run: Run,
    *,
    digits: int | Literal["auto"],
    lag: int | Literal["auto"],
    horizon: int | None,
    options: dict[str, Any],
) -> Kernel | SteppedKernel | GradientKernel | FieldKernel:
    """Estimate with the method that foretells held-out steps best."""
    n_lag = choose_lag(run, digits=3, horizon=horizon)[0] if lag == "auto" else int(lag)

    def fit(part: Run, name: str) -> Kernel | SteppedKernel | GradientKernel | FieldKernel:
        own = dict(options)
        if own["completion"] == "probe" and name != "llm":
            own["completion"] = "barycenter"
        with warnings.catch_warnings():
            # The whole run was judged before its parts are.
            warnings.simplefilter("ignore", FewStepsWarning)
            return estimate_kernel(part, method=name, digits=digits, lag=n_lag, **own)

    candidates = [name for name in METHODS if name not in ("auto", "counts")]
    chosen, reason = choose_method(run, n_lag, fit, candidates)
    kernel = fit(run, chosen)
    return replace(kernel, notes=(*kernel.notes, reason))


def complete_kernel(
    kernel: RowKernel, *, completion: str | None, reg: float | None = None
) -> RowKernel:
    """Fill the rows that no run visited anew, keeping the others.

    Parameters
    ----------
    kernel : Kernel or FieldKernel
        From :func:`estimate_kernel`.
    completion : str or None
        ``"barycenter"``, ``"increments"``, ``"quantiles"``, ``"nearest"`` or ``"entropic"``; None:
        the chain stays where it is in a row that no run visited.
    reg : float, optional
        As in :func:`estimate_kernel`.

    Returns
    -------
    Kernel

    Raises
    ------
    TypeError
        If the kernel has no rows.
    ValueError
        If ``completion`` is unknown, or a coordinate has no visited state.
    """
    if not isinstance(kernel, Kernel | FieldKernel):
        raise TypeError(
            f"kernel must have rows to fill; got a {type(kernel).__name__} of method "
            f"'{kernel.method}', which steps parameters."
        )
    if isinstance(kernel, FieldKernel):
        rows = complete_kernel(kernel.rows, completion=completion, reg=reg)
        return replace(kernel, rows=rows)
    blocks = [
        _completed(block, seen, completion, reg)
        for block, seen in zip(kernel.blocks, kernel.observed, strict=True)
    ]
    return replace(kernel, blocks=np.stack(blocks), completion=completion or "none")


def _check(
    method: str,
    completion: str | None,
    coupling: str,
    digits: int | str,
    lag: int | str,
    convex: bool | None,
) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}.")
    if completion not in COMPLETIONS:
        raise ValueError(f"completion must be one of {COMPLETIONS}; got {completion!r}.")
    if completion == "probe" and method != "llm":
        raise ValueError(f"completion 'probe' asks a language model; method is {method!r}.")
    if coupling not in get_args(Coupling):
        raise ValueError(f"coupling must be one of {get_args(Coupling)}; got {coupling!r}.")
    if coupling == "joint" and method not in ("llm", "gradient-gp", *STEPPED):
        raise ValueError(f"coupling 'joint' asks a language model; method is {method!r}.")
    if digits not in ("auto", 1, 2, 3):
        raise ValueError(f"digits must be 1, 2, 3 or 'auto'; got {digits!r}.")
    if convex is not None and not isinstance(convex, bool | np.bool_):
        raise TypeError(f"convex must be True, False or None; got {convex!r}.")
    if lag != "auto" and (not isinstance(lag, int | np.integer) or lag < 1):
        raise ValueError(f"lag must be an integer of at least 1 or 'auto'; got {lag!r}.")


def _joint(
    run: Run,
    lag: int,
    digits: int,
    why_lag: str,
    model: str | LanguageModel,
    mirror: bool,
    recalibrate: bool,
    max_context: int | None,
    device: str | None,
    dtype: str | None,
    cover: ArrayLike | None,
) -> SteppedKernel:
    """A joint kernel on the grid of the model's digits."""
    from sgdmc.llm.model import load_model

    language_model = load_model(model, device=device, dtype=dtype)
    read_digits = next((d for d in range(digits, 4) if language_model.supports(d)), digits)
    notes = (why_lag, f"joint kernel, drawn from {language_model.describe()}")
    return joint_kernel(
        tuple(run.paths),
        Grid.fit(covering(run.values, cover), digits=read_digits),
        lag=lag,
        model=language_model,
        names=run.names,
        mirror=mirror,
        recalibrate=recalibrate,
        max_context=max_context,
        notes=notes,
    )


def _fill(block: BlockRows, completion: str | None, reg: float | None) -> NDArray[np.float64]:
    if completion == "probe":
        # The model's grid may end before the kernel's does.
        asked = block.known if block.probed is None else block.probed
        return _completed(block.rows, asked, "barycenter", reg)
    return _completed(block.rows, block.known, completion, reg)


def _completed(
    rows: NDArray[np.float64], known: NDArray[np.bool_], completion: str | None, reg: float | None
) -> NDArray[np.float64]:
    if known.all():
        return rows
    if completion is None:
        return np.where(known[:, None], rows, np.eye(len(rows)))
    stride = max(1, len(rows) // _KNOTS)
    return complete(
        rows, known, method=completion, reg=reg, stride=stride, tol=_TOLERANCE, backend="cpp"
    )


def _visited(grid: Grid, rotated: list[NDArray[np.float64]], i: int, lag: int) -> NDArray[np.bool_]:
    seen = np.zeros(grid.n_states, dtype=bool)
    for z in rotated:
        seen[grid.encode(z)[: max(0, len(z) - lag), i]] = True
    return seen
