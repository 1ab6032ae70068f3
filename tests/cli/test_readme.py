"""The README's figures are those of the stored results, and its commands exist."""

import re
from pathlib import Path

from benchmarks.readme import render

ROOT = Path(__file__).resolve().parents[2]


def test_tables_come_from_the_stored_json():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render(text) == text, "run `python -m benchmarks.readme`"


def test_make_targets_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z-]+)", text))
    assert {"demo", "test", "install", "book", "bench", "lint", "clean"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_pictures_and_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
