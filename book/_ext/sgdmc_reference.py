"""The reference: pages written from the package's docstrings and from its command line's help.

In a page of Markdown the line ``% sgdmc-room: chain`` becomes one section for each module of that
room, ``% sgdmc-names`` a table of the package's public names, ``% sgdmc-commands`` the help of
every command. Nothing is listed by hand, so nothing can be forgotten.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PLACE = re.compile(r"^% sgdmc-(room|names|commands)(?:: (\w+))?$", re.MULTILINE)


def modules(room: str) -> list[str]:
    """Return the modules of a room, or the room itself, that have public names."""
    package = importlib.import_module(f"sgdmc.{room}")
    names = [package.__name__]
    if hasattr(package, "__path__"):
        found = pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}.")
        names += sorted(m.name for m in found if m.name.split(".")[-1][0] != "_")
    return [name for name in names if next(objects(name), None)]


def rooms() -> list[str]:
    """Return the rooms of the package that readers may use."""
    package = importlib.import_module("sgdmc")
    return [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]


def objects(module: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the name, the documented address and the object of each public name of a module.

    A name of the package itself is documented as such: ``sgdmc.Grid``.
    """
    package, home = importlib.import_module("sgdmc"), importlib.import_module(module)
    for name in sorted(getattr(home, "__all__", dir(home)), key=str.lower):
        thing = getattr(home, name)
        listed = hasattr(home, "__all__") or (inspect.isroutine(thing) or inspect.isclass(thing))
        if not listed or name.startswith("_") or getattr(thing, "__module__", module) != module:
            continue  # private, or passed on from another module, which documents it
        top = name in package.__all__ and getattr(package, name) is thing
        yield name, f"sgdmc.{name}" if top else f"{module}.{name}", thing


@cache
def addresses() -> dict[str, str]:
    """Return the documented address of every name, by full name and, if unambiguous, by name."""
    full: dict[str, str] = {}
    short: dict[str, set[str]] = {}
    for room in rooms():
        for module in modules(room):
            for name, address, _ in objects(module):
                full[f"{module}.{name}"] = full[address] = address
                short.setdefault(name, set()).add(address)
    alone = {name: next(iter(found)) for name, found in short.items() if len(found) == 1}
    return {**alone, **full}


def _directive(thing: Any) -> tuple[str, str]:
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return "autoexception", ""
    if inspect.isclass(thing):
        return "autoclass", "   :members:\n   :member-order: bysource\n"
    return ("autofunction", "") if callable(thing) else ("autodata", "   :no-value:\n")


def room_page(room: str) -> str:
    """Return one section for each module of a room."""
    parts = []
    for module in modules(room):
        entries = [f".. automodule:: {module}\n"]
        for _, address, thing in objects(module):
            kind, options = _directive(thing)
            entries.append(f".. {kind}:: {address}\n{options}")
        body = "\n".join(entries)
        parts.append(f"## {module.removeprefix('sgdmc.')}\n\n```{{eval-rst}}\n{body}\n```\n")
    return "\n".join(parts)


def names_table() -> str:
    """Return the public names of the package, each with its docstring's first sentence."""
    package = importlib.import_module("sgdmc")
    rows = ["| name | what it is |", "| --- | --- |"]
    for name in sorted(package.__all__, key=str.lower):
        sentence = inspect.cleandoc(getattr(package, name).__doc__).split("\n\n")[0]
        # A bar would end the cell of a Markdown table, whose literals take one backtick.
        text = " ".join(sentence.split()).replace("``", "`").replace("|", "\\|")
        text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
        rows.append(f"| {{py:obj}}`sgdmc.{name}` | {text} |")
    return "\n".join(rows) + "\n"


def commands_page() -> str:
    """Return the help of each command."""
    from sgdmc import cli

    parser = cli._parser()
    chosen = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = [f"```text\n{parser.format_help()}```\n"]
    for name, command in chosen.choices.items():
        command.formatter_class = _Wide
        parts.append(f"## sgdmc {name}\n\n```text\n{command.format_help()}```\n")
    return "\n".join(parts)


class _Wide(argparse.HelpFormatter):
    """Help as wide as a page, whatever terminal the book is built in."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=88)


def write_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the generated text where a page asks for it."""

    def text(match: re.Match[str]) -> str:
        kind, room = match.groups()
        if kind == "room":
            return room_page(room)
        return names_table() if kind == "names" else commands_page()

    if docname.startswith("reference/"):
        source[0] = PLACE.sub(text, source[0])


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.TextElement
) -> nodes.Element | None:
    """Resolve names that docstrings use inside the package to where they are documented."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    owner, _, member = target.rpartition(".")
    known = addresses()
    candidates = [known.get(f"{node.get('py:module')}.{target}"), known.get(target)]
    if owner in known:
        candidates.append(f"{known[owner]}.{member}")
    for candidate in candidates:
        if candidate is not None:
            domain = env.get_domain("py")
            kind = node["reftype"]
            found = domain.resolve_xref(
                env, node["refdoc"], app.builder, kind, candidate, node, contnode
            )
            if found is not None:
                return found
    home = sys.modules.get(str(node.get("py:module")))
    # A name that exists but is not public stands as it is, without a link.
    return contnode if hasattr(home, target) else None


def list_the_index(app: Sphinx, doctree: nodes.document) -> None:
    """Add the index, which Sphinx writes, to the last part of the table of contents."""
    tables = list(doctree.findall(addnodes.toctree))
    if app.env.docname == app.config.root_doc and tables:
        tables[-1]["entries"].append(("Index", "genindex"))


def shorten_citations(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Show ``[1]`` where numpydoc wrote ``[R0123456789ab-1]`` to tell docstrings apart."""
    for reference in doctree.findall(nodes.reference):
        for text in list(reference.findall(nodes.Text)):
            short = re.sub(r"\bR[0-9a-f]{12}-", "", text)
            if short != text:
                text.parent.replace(text, nodes.Text(short))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the above."""
    app.connect("doctree-resolved", shorten_citations)
    app.connect("doctree-read", list_the_index, priority=100)  # before the contents are collected
    app.connect("source-read", write_pages)
    app.connect("missing-reference", find_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
