"""Laws after any joint state, and draws from them."""

from __future__ import annotations

import numpy as np
import pytest

from sgdmc.llm.joint import JointReader
from sgdmc.llm.tokens import token_map

FAMILIES = ["llama2", "mistral", "gemma", "qwen", "gpt2", "llama3", "shipped-like"]


def reader(family, name, **options):
    digits = 3 if name == "shipped-like" else 2
    states = np.random.default_rng(4).integers(0, 10**digits, (6, 2))
    return states, JointReader(states, model=family(name), digits=digits, **options)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("probe_as", ["continuation", "run"])
def test_rows_equal_brute_force(family, brute, name, probe_as):
    states, joint = reader(family, name, probe_as=probe_as)
    lm, tm = family(name), joint.map
    present = np.array([[1, 99], [52, 47]])
    given = np.array([[7], [8]])
    first, second = joint.rows(present), joint.rows(present, given)
    for i, state in enumerate(present):
        runs = [states, state[None]] if probe_as == "run" else [np.vstack((states, state))]
        text = tm.style.text(runs)
        row, off = brute(lm, text, tm.slots[0])
        np.testing.assert_allclose(first[0][i], row, atol=1e-5)
        assert first[1][i] == pytest.approx(off, abs=1e-5)
        row, off = brute(lm, text + tm.style.write(int(given[i, 0]), False), tm.slots[1])
        np.testing.assert_allclose(second[0][i], row, atol=1e-5)
        assert second[1][i] == pytest.approx(off, abs=1e-5)


@pytest.mark.parametrize("name", ["llama3", "shipped-like"])
@pytest.mark.parametrize("probe_as", ["continuation", "run"])
def test_steps_invert_the_rows_at_the_uniforms_drawn(family, name, probe_as):
    _, joint = reader(family, name, probe_as=probe_as)
    present = np.random.default_rng(0).integers(0, joint.n_states, (40, 2))
    drawn = joint.step(present, rng=11)
    uniforms = np.random.default_rng(11).random((40, 2))

    def invert(rows, heights):
        return (rows.cumsum(axis=1) <= heights[:, None]).sum(axis=1)

    first = invert(joint.rows(present)[0], uniforms[:, 0])
    second = invert(joint.rows(present, drawn[:, :1])[0], uniforms[:, 1])
    np.testing.assert_array_equal(drawn, np.stack((first, second), axis=1))


@pytest.mark.parametrize("name", ["llama2", "gemma", "gpt2"])
def test_steps_follow_the_joint_law_digit_by_digit(family, name):
    states = np.random.default_rng(4).integers(0, 10, (6, 2))
    joint = JointReader(states, model=family(name), digits=1)
    present = np.tile([[3, 8]], (4000, 1))
    drawn = joint.step(present, rng=5)
    first = joint.rows(present[:1])[0][0]
    both = np.stack([joint.rows(present[:1], [[a]])[0][0] for a in range(10)]) * first[:, None]
    counts = np.zeros((10, 10))
    np.add.at(counts, (drawn[:, 0], drawn[:, 1]), 1)
    spread = np.sqrt(both * (1 - both) / 4000)
    assert np.abs(counts / 4000 - both).max() < 5 * spread.max()


def test_steps_do_not_depend_on_the_chunk(family):
    present = np.random.default_rng(0).integers(0, 100, (50, 2))
    drawn = [reader(family, "llama2", chunk=chunk)[1].step(present, rng=3) for chunk in (8, 512)]
    np.testing.assert_array_equal(*drawn)


def test_one_generator_covers_successive_steps(family):
    _, joint = reader(family, "shipped-like")
    present = np.array([[1, 2], [3, 4]])
    rng = np.random.default_rng(0)
    once = joint.step(joint.step(present, rng=rng), rng=rng)
    rng = np.random.default_rng(0)
    again = joint.step(joint.step(present, rng=rng), rng=rng)
    np.testing.assert_array_equal(once, again)


def test_mirror_is_an_even_mixture(family):
    states, joint = reader(family, "shipped-like", mirror=True)
    one = JointReader(states, model=family("shipped-like"))
    two = JointReader(999 - states, model=family("shipped-like"))
    present = np.array([[1, 999], [520, 470]])
    rows, off = joint.rows(present)
    here, there = one.rows(present), two.rows(999 - present)
    np.testing.assert_allclose(rows, (here[0] + there[0][:, ::-1]) / 2, atol=1e-7)
    np.testing.assert_allclose(off, (here[1] + there[1]) / 2, atol=1e-7)
    drawn = joint.step(np.tile(present[:1], (2000, 1)), rng=1)
    mean = rows[0] @ np.arange(1000)
    spread = np.sqrt(rows[0] @ (np.arange(1000) - mean) ** 2 / 2000)
    assert abs(drawn[:, 0].mean() - mean) < 4 * spread


def test_three_coordinates(family, brute):
    lm = family("shipped-like")
    states = np.random.default_rng(4).integers(0, 1000, (4, 3))
    joint = JointReader(states, model=lm)
    tm = token_map(lm, digits=3, dim=3)
    present, given = np.array([[1, 2, 3]]), np.array([[4, 5]])
    text = tm.style.text([np.vstack((states, present))]) + "004:005:"
    row, _ = brute(lm, text, tm.slots[2])
    np.testing.assert_allclose(joint.rows(present, given)[0][0], row, atol=1e-5)
    assert joint.step(present, rng=0).shape == (1, 3)


def test_a_long_run_is_cut_to_the_context(family):
    states = np.random.default_rng(4).integers(0, 1000, (300, 2))
    with pytest.raises(ValueError, match="states must fit the context"):
        JointReader(states, model=family("shipped-like"))
    joint = JointReader(states, model=family("shipped-like"), max_context=100)
    rows, _ = joint.rows(np.array([[1, 2]]))
    last = JointReader(states[-47:], model=family("shipped-like")).rows(np.array([[1, 2]]))[0]
    np.testing.assert_allclose(rows, last, atol=1e-6)


@pytest.mark.parametrize(
    ("present", "given", "message"),
    [
        ([[1, 2, 3]], None, r"present must have shape \(m, 2\)"),
        ([[1, 1000]], None, "present must lie in 0..999; got 1000 at 0"),
        ([[1, 2]], [[1, 2]], r"given must have shape \(1, j\) with j < 2"),
    ],
)
def test_errors(family, present, given, message):
    _, joint = reader(family, "shipped-like")
    with pytest.raises(ValueError, match=message):
        joint.rows(np.array(present), None if given is None else np.array(given))


def test_chains_in_the_same_state_are_asked_once(family, monkeypatch):
    _, joint = reader(family, "shipped-like", probe_as="run")
    many = np.tile([[1, 999], [520, 470]], (20, 1))
    context, asked = joint._contexts[0], []
    append = type(context).append

    def counting(self, tokens, lines):
        asked.append(len(tokens))
        return append(self, tokens, lines)

    monkeypatch.setattr(type(context), "append", counting)
    drawn = joint.step(many, rng=7)
    assert drawn.shape == many.shape
    assert asked[0] == 1  # the newline that opens every chain's run
    assert asked[1] == 2
    assert max(asked) <= len(many)
