"""The live figures: they follow their sliders, agree with the package, and need no server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page

from sgdmc._core import backend
from sgdmc._core.reference.random import bounded, random_bits

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Chapter, kind of figure, and its sliders.
FIGURES = [
    ("sgd_markov_chain", "coin", ("gamma", "steps")),
    ("long_run", "stationary", ("gamma", "batch")),
    ("seeing_kernel", "ulam", ("gamma", "bins")),
    ("how_much_context", "two-state", ("rho", "length")),
]


PATIENT = 120_000  # milliseconds, for a machine that is busy with other tests


def _new_page(browser: Browser, **options: Any) -> Page:
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENT)
    return page


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = _new_page(browser, viewport={"width": 1000, "height": 900})
    yield page
    page.context.close()


def _open(page: Page, base_url: str, chapter: str, kind: str) -> Locator:
    page.goto(urljoin(base_url, f"chapters/{chapter}.html"), wait_until="domcontentloaded")
    figure = page.locator(f'.live[data-figure="{kind}"]')
    figure.locator(".live-drawing > svg").wait_for()
    return figure


def _facts(figure: Locator) -> dict[str, float]:
    pairs = figure.locator(".live-facts div").evaluate_all(
        "rows => rows.map(r => [r.querySelector('dt').textContent,"
        " r.querySelector('dd').dataset.value])"
    )
    return {name: float(value) for name, value in pairs}


def _drawing(figure: Locator) -> str:
    return str(figure.locator(".live-drawing").inner_html())


def _move(figure: Locator, key: str, index: int) -> None:
    figure.locator(f'input[data-key="{key}"]').evaluate(
        "(input, index) => { input.value = index; input.dispatchEvent(new Event('input')); }", index
    )


def _data(figure: Locator) -> Any:
    return json.loads(figure.locator("script").text_content() or "{}")


@pytest.mark.parametrize(("chapter", "kind", "keys"), FIGURES, ids=lambda v: str(v))
def test_each_slider_moves_the_drawing_and_its_readout(
    page: Page, base_url: str, chapter: str, kind: str, keys: tuple[str, ...]
) -> None:
    figure = _open(page, base_url, chapter, kind)
    assert figure.locator(".live-fallback").count() == 0
    assert figure.get_attribute("role") == "group"
    assert figure.locator(".live-drawing > svg").get_attribute("aria-label")
    sliders = figure.locator("input")
    found = sliders.evaluate_all("inputs => inputs.map(i => i.dataset.key)")
    assert tuple(found) == keys
    for key in keys:
        slider = figure.locator(f'input[data-key="{key}"]')
        label = figure.locator(f'label[for="{slider.get_attribute("id")}"]')
        before = (_drawing(figure), _facts(figure), slider.get_attribute("aria-valuetext"))
        start, last = int(slider.input_value()), int(slider.get_attribute("max") or 0)
        slider.focus()
        page.keyboard.press("ArrowRight" if start < last else "ArrowLeft")  # without a mouse
        after = (_drawing(figure), _facts(figure), slider.get_attribute("aria-valuetext"))
        assert before[0] != after[0], key
        assert before[1] != after[1], key
        assert before[2] != after[2], key
        assert str(after[2]) in str(label.text_content())
        for place in (0, last, start):
            _move(figure, key, place)
            assert "NaN" not in _drawing(figure)
            assert all(value == value for value in _facts(figure).values())


def test_random_numbers_are_those_of_the_package(page: Page, base_url: str) -> None:
    _open(page, base_url, "long_run", "stationary")
    for seed, chain, bound in ((1, 0, 50), (12345678901234567, 39, 7), (2**63, 2, 1000)):
        drawn = page.evaluate(
            "([seed, chain, bound]) => { const s = new sgdmcLive.Stream(BigInt(seed), chain);"
            " return Array.from({length: 200}, () => s.index(bound)); }",
            [str(seed), chain, bound],
        )
        assert drawn == bounded(random_bits(seed, chain, 0, 200), bound).tolist()


@pytest.mark.parametrize(("step_index", "batch_index"), [(9, 0), (15, 2)])
def test_simulation_on_the_page_is_that_of_the_package(
    page: Page, base_url: str, step_index: int, batch_index: int
) -> None:
    figure = _open(page, base_url, "long_run", "stationary")
    _move(figure, "gamma", step_index)
    _move(figure, "batch", batch_index)
    facts, data = _facts(figure), _data(figure)
    label = figure.locator('input[data-key="gamma"]').get_attribute("aria-valuetext")
    x, y, best = np.array(data["x"]), np.array(data["y"]), data["minimiser"]
    step, batch, h = float(str(label)), 2**batch_index, np.mean(x**2)
    burn, keep = int(np.ceil(5 / (step * h))), int(np.ceil(20 / (step * h))) + 100
    n_chains = data["n_chains"]
    path = np.empty((n_chains, burn + keep + 1, 1))
    start = np.full((n_chains, 1), best)
    records = np.ascontiguousarray(np.stack([x, y], axis=1))
    backend("cpp").run_sgd(
        "least_squares",
        records,
        0.0,
        start,
        step,
        burn + keep,
        batch,
        True,
        data["seed"],
        1,
        path,
        1,
    )
    tail = path[:, burn + 1 :]
    assert facts["standard deviation, simulated"] == pytest.approx(tail.std(), rel=1e-9)
    # About twenty relaxation times a chain: a standard deviation is known to a few per cent.
    assert facts["exact"] == pytest.approx(facts["standard deviation, simulated"], rel=0.1)


def test_first_order_holds_for_small_steps_and_the_limit_is_where_variance_ends(
    page: Page, base_url: str
) -> None:
    figure = _open(page, base_url, "long_run", "stationary")
    _move(figure, "gamma", 0)
    small = _facts(figure)
    assert small["first order"] == pytest.approx(small["exact"], rel=0.03)
    _move(figure, "gamma", 24)
    large = _facts(figure)
    assert large["exact"] == np.inf
    assert large["largest stable γ"] < 1.28


def test_more_bins_bring_the_matrix_closer(page: Page, base_url: str) -> None:
    figure = _open(page, base_url, "seeing_kernel", "ulam")
    errors = []
    for index in (0, len(_data(figure)["bins"]) - 1):
        _move(figure, "bins", index)
        facts = _facts(figure)
        errors.append(
            facts["standard deviation of the matrix"] / facts["deviation of SGD"] - 1,
        )
        assert facts["spectral gap of the matrix"] == pytest.approx(facts["gap of SGD"], rel=0.25)
    assert errors[0] > 1 > 0.1 > errors[1] > 0


def test_counting_follows_its_law_for_every_gap(page: Page, base_url: str) -> None:
    figure = _open(page, base_url, "how_much_context", "two-state")
    for index in (9, 19, 29):  # ρ of ½, 1 and 1½
        _move(figure, "rho", index)
        facts = _facts(figure)
        assert facts["spectral gap"] == pytest.approx(1 - abs(1 - (index + 1) / 20))
        # Over 200 paths; the loss is a quarter of a χ² with one degree of freedom.
        assert facts["times 4t"] == pytest.approx(1, abs=5 * np.sqrt(2 / 200))


def test_coin_chain_settles_at_its_variance(page: Page, base_url: str) -> None:
    figure = _open(page, base_url, "sgd_markov_chain", "coin")
    _move(figure, "gamma", 49)
    facts = _facts(figure)
    assert facts["variance in the long run"] == pytest.approx(1 / 3)
    assert facts["variance"] == pytest.approx(1 / 3, rel=1e-5)


def test_figures_move_without_a_server(page: Page, built_book: Path) -> None:
    page.goto((built_book / "chapters" / "long_run.html").as_uri(), wait_until="domcontentloaded")
    figure = page.locator('.live[data-figure="stationary"]')
    figure.locator(".live-drawing > svg").wait_for()
    before = _drawing(figure)
    _move(figure, "gamma", 3)
    assert _drawing(figure) != before


def test_without_javascript_a_sentence_stands_in(browser: Browser, base_url: str) -> None:
    page = _new_page(browser, java_script_enabled=False)
    for chapter, kind, _ in FIGURES:
        page.goto(urljoin(base_url, f"chapters/{chapter}.html"), wait_until="domcontentloaded")
        assert page.locator(f'.live[data-figure="{kind}"] .live-fallback').is_visible()
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_ground(browser: Browser, base_url: str, scheme: str) -> None:
    page = _new_page(browser, color_scheme=scheme)
    figure = _open(page, base_url, "long_run", "stationary")
    ratios = figure.evaluate(
        """root => {
          const luminance = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => {
              const v = c / 255;
              return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const painted = (node) => {
            const paint = getComputedStyle(node).backgroundColor;
            return /^rgba\\(.*, 0\\)$/.test(paint) ? painted(node.parentElement) : paint;
          };
          const ground = luminance(painted(root));
          return [...root.querySelectorAll('.live-line, .live-tick, dd')].map((node) => {
            const style = getComputedStyle(node);
            const paint = node.matches('.live-line') ? style.stroke
              : node.matches('.live-tick') ? style.fill : style.color;
            const line = luminance(paint);
            return (Math.max(line, ground) + 0.05) / (Math.min(line, ground) + 0.05);
          });
        }"""
    )
    page.context.close()
    assert min(ratios) >= 3  # WCAG 2.1, contrast of graphical objects
