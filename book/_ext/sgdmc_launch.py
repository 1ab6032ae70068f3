"""Chapters as notebooks: to download, and to open on Binder or Colab.

``sgdmc_launch`` in ``_config.yml`` says where the project is published. With an empty
``repository`` it is the remote that this copy was cloned from; without one, buttons lead to the
page that tells how to run a notebook elsewhere. Nothing is requested before a button is pressed.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sphinx.application import Sphinx

ELSEWHERE = "reference/elsewhere"
INDEX_BLOCK = re.compile(r"^```\{index\}.*\n```\n*", re.MULTILINE)


def published(settings: dict[str, str], folder: Path) -> str:
    """Return the address of the project's repository, without a trailing ``.git``, or nothing."""
    address = settings["repository"]
    if not address:
        asked = subprocess.run(
            ["git", "-C", str(folder), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
            check=False,
        )
        address = asked.stdout.strip() if asked.returncode == 0 else ""
    ssh = re.fullmatch(r"git@([^:]+):(.+)", address)
    address = f"https://{ssh[1]}/{ssh[2]}" if ssh else address
    return address.removesuffix(".git") if address.startswith("https://") else ""


def links(settings: dict[str, str], repository: str, pagename: str) -> dict[str, str]:
    """Return where the buttons of a page lead, as far as that is known."""
    if not repository:
        return {}
    path = f"lab/tree/book/{pagename}.md"
    github = re.fullmatch(r"https://github\.com/([^/]+/[^/]+)", repository)
    place = f"gh/{github[1]}" if github else f"git/{quote(repository, safe='')}"
    found = {"Binder": f"{settings['binder']}/v2/{place}/{settings['branch']}?urlpath={path}"}
    if github:
        notebook = f"{settings['notebooks_branch']}/_sources/{pagename}.ipynb"
        found["Colab"] = f"{settings['colab']}/github/{github[1]}/blob/{notebook}"
    return found


def install_cell(settings: dict[str, str], repository: str) -> str:
    """Return the first cell of a notebook: it does nothing where the package is there."""
    if repository:
        source = f"git+{repository}@{settings['branch']}"
        otherwise = f'%pip install --quiet "sgdmc[book] @ {source}"'
    else:
        message = "sgdmc is missing: %pip install a copy of the project, then run this cell again."
        otherwise = f'raise ModuleNotFoundError("{message}")'
    return (
        "# Installs the package where it is missing.\n"
        "from importlib.util import find_spec\n\n"
        f'if find_spec("sgdmc") is None:\n    {otherwise}'
    )


def for_readers(executed: dict[str, Any], first_cell: str) -> dict[str, Any]:
    """Return the notebook without outputs and index marks, with the cell that installs on top."""
    cells = []
    for cell in executed["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cells.append({**cell, "source": source, "outputs": [], "execution_count": None})
        elif text := INDEX_BLOCK.sub("", source).strip():
            cells.append({**cell, "source": text})
    install = {
        "cell_type": "code",
        "id": "install",
        "metadata": {"tags": ["remove-cell"]},
        "execution_count": None,
        "outputs": [],
        "source": first_cell,
    }
    return {**executed, "nbformat": 4, "nbformat_minor": 5, "cells": [install, *cells]}


def offer_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Write the page's notebook beside its source."""
    executed = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    runs = "kernelspec" in app.env.metadata.get(pagename, {})
    if doctree is None or not runs or not executed.is_file():
        return
    settings = app.config.sgdmc_launch
    repository = published(settings, Path(app.srcdir))
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    reader = for_readers(notebook, install_cell(settings, repository))
    copy = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(json.dumps(reader, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    context["ipynb_source"] = f"{pagename}.ipynb"


def add_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Put the buttons on a page that is offered as a notebook."""
    if "ipynb_source" not in context:
        return
    settings = app.config.sgdmc_launch
    known = links(settings, published(settings, Path(app.srcdir)), pagename)
    elsewhere = context["pathto"](ELSEWHERE)
    logos = (("Binder", "logo_binder.svg"), ("Colab", "logo_colab.png"))
    buttons = [
        {
            "type": "link",
            "text": name,
            "tooltip": f"Run this chapter on {name}",
            "icon": f"_static/images/{logo}",
            "url": known.get(name, elsewhere),
        }
        for name, logo in logos
    ]
    group = {
        "type": "group",
        "tooltip": "Run this chapter elsewhere",
        "icon": "fas fa-rocket",
        "buttons": buttons,
        "label": "launch-buttons",
    }
    context["header_buttons"].insert(0, group)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above."""
    app.add_config_value("sgdmc_launch", {}, "html")
    app.connect("html-page-context", offer_notebook)  # before the theme makes its buttons
    app.connect("html-page-context", add_buttons, priority=502)  # after
    return {"parallel_read_safe": True, "parallel_write_safe": True}
