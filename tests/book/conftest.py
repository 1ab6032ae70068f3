"""The built book, a local server for it, and Chromium to read it with."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "book" / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep quiet: tests look at responses, not at the log."""


def _extension(name: str) -> ModuleType:
    path = ROOT / "book" / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def book_extension() -> ModuleType:
    """What keys the book's cache."""
    return _extension("sgdmc_book")


@pytest.fixture(scope="session")
def reference_extension() -> ModuleType:
    """What writes the reference."""
    return _extension("sgdmc_reference")


@pytest.fixture(scope="session")
def launch_extension() -> ModuleType:
    """What makes notebooks and buttons."""
    return _extension("sgdmc_launch")


@pytest.fixture
def git_folder(tmp_path: Path) -> Path:
    """An empty repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


@pytest.fixture(scope="session")
def built_book() -> Path:
    """The book, built from the present sources (seconds where the cache is warm)."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "book" / "build.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return HTML


@pytest.fixture(scope="session")
def base_url(built_book: Path) -> Iterator[str]:
    """Address of a local server of the built book."""
    handler = functools.partial(_Handler, directory=str(built_book))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None and os.environ.get("CI") != "true":
        pytest.skip("Chromium is not installed")
    assert CHROMIUM is not None, "Chromium must be installed in CI; apt-get install chromium."
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()
