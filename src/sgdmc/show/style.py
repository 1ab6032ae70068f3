"""One visual language: a colour-blind safe palette (Okabe and Ito), legible on light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

__all__ = ["COLOURS", "styled"]

COLOURS = {
    "truth": "#000000",
    "llm": "#0072B2",
    "counts": "#E69F00",
    "dirichlet": "#009E73",
    "exact": "#CC79A7",
    "run": "#D55E00",
    "unvisited": "#F0E442",
    "faint": "#999999",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the package's matplotlib style.

    Examples
    --------
    >>> with styled():
    ...     import matplotlib
    ...     matplotlib.rcParams["axes.spines.top"]
    False
    """
    import matplotlib

    with resources.as_file(resources.files("sgdmc.show") / "sgdmc.mplstyle") as path:
        settings = matplotlib.rc_params_from_file(path, use_default_template=False)
    with matplotlib.rc_context(rc=dict(settings)):
        yield
