"""Build the book into book/_build/html: ``python book/build.py [--fresh]``.

Every warning is an error; chapters run with one thread a library and without a network.
``--fresh`` forgets what was built and run before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent
BUILD = BOOK / "_build"


def build(*, fresh: bool = False) -> int:
    """Build; return the exit status."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # progress bars need no widgets here
    }
    # Jupyter Book and the kernel that runs the chapters are those beside this interpreter.
    scripts = Path(sys.executable).parent
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    command = [str(scripts / "jupyter-book"), "build", str(BOOK), "-W", "-n", "--keep-going"]
    environment = {**os.environ, **quiet, "PATH": path}
    # One build at a time: tests that run side by side all ask for a fresh one.
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for made in ("html", "jupyter_execute", ".doctrees", ".jupyter_cache") if fresh else ():
            shutil.rmtree(BUILD / made, ignore_errors=True)
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(build(fresh="--fresh" in sys.argv[1:]))
