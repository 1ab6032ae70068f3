"""What the book needs beyond Jupyter Book: it reads offline, and its cache knows the package."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

# The parts of MathJax that pages with TeX input and CommonHTML output can ask for.
_MATHJAX_PARTS = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2")


def package_hash() -> str:
    """Return a hash of the installed package: sources, compiled core and shipped model."""
    import sgdmc

    digest = hashlib.sha256(version("sgdmc").encode())
    folders = [Path(folder) for folder in sgdmc.__path__]
    spec = importlib.util.find_spec("sgdmc._core.native")
    compiled = [Path(spec.origin)] if spec is not None and spec.origin else []
    kinds = {".py", ".json", ".safetensors", ".mplstyle"}
    files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in kinds]
    for path in (*files, *compiled):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def key_the_cache(app: Sphinx, config: Config) -> None:
    """Run the chapters again whenever the package has changed.

    Jupyter's own cache sees the cells only, so it gets a folder for each build of the package; the
    configuration value makes Sphinx read the pages again.
    """
    config.sgdmc_build = package_hash()
    build = Path(app.outdir).parent
    caches = build / ".jupyter_cache"
    config.nb_execution_cache_path = str(caches / config.sgdmc_build)
    if caches.is_dir():
        for old in sorted(caches.iterdir(), key=lambda p: p.stat().st_mtime)[:-3]:
            if old.name != config.sgdmc_build:
                shutil.rmtree(old)


def mend_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Drop the script that is declared twice."""
    if "script_files" in context:
        context["script_files"] = [
            script
            for script in context["script_files"]
            if "THEBE_JS_URL" not in str(getattr(script, "attributes", {}).get("body", ""))
            and "thebe" not in str(script)
        ]


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put MathJax beside the pages that use it."""
    if exception is not None or app.builder.format != "html":
        return
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the book needs sphinx-mathjax-offline; install 'sgdmc[book]'.")
    source = Path(spec.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in _MATHJAX_PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part, target / part)


_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="{icon}" type="image/svg+xml">
<meta http-equiv="refresh" content="0; url={first}">
</head>
<body><p><a href="{first}">{title}</a></p></body>
</html>
"""


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """Lead a folder's visitors to the first page.

    The page that is written without this names no icon, and browsers then ask the server for
    ``/favicon.ico``.
    """
    if exception is not None or app.builder.format != "html":
        return
    first = f"{app.config.root_doc}.html"
    icon = f"_static/{Path(app.config.html_favicon).name}"
    page = _INDEX.format(title=app.config.html_title, icon=icon, first=first)
    (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above."""
    app.add_config_value("sgdmc_build", "", "env")
    app.connect("config-inited", key_the_cache)
    app.connect("html-page-context", mend_page)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
