"""What a figure was made with: stored beside every stored figure."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

__all__ = ["versions"]

_PACKAGES = ("sgdmc", "numpy", "scipy", "numba", "torch", "transformers", "POT", "matplotlib")


def versions() -> dict[str, str]:
    """Return versions of Python, the packages that matter, and the processor's name.

    Examples
    --------
    >>> "numpy" in versions()
    True
    """
    found = {name: version(name) for name in _PACKAGES}
    found["python"] = platform.python_version()
    found["processor"] = _processor()
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
