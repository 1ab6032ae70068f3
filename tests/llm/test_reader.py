"""Packed rows equal brute force: every branch as its own full forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from sgdmc.llm.reader import joint_state_laws, next_state_laws
from sgdmc.llm.tokens import token_map

DIGIT_FAMILIES = ["llama2", "llama2-no-bos", "mistral", "gemma", "gemma3", "qwen", "gpt2"]
FAMILIES = [*DIGIT_FAMILIES, "llama3", "shipped-like"]


def column(states):
    return np.asarray(states)[:, None]


def equal(got, wanted, where=""):
    """Compare a row and its off-state mass with brute force."""
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-5, rtol=0, err_msg=str(where))
    assert got[1] == pytest.approx(wanted[1], abs=1e-5), where


@pytest.mark.parametrize("name", FAMILIES)
def test_every_position_equals_brute_force(family, brute, texts, name):
    lm = family(name)
    assert lm.packed
    digits = 3 if name == "shipped-like" else 2
    states = np.random.default_rng(3).integers(0, 10**digits, 9)
    laws = next_state_laws(states, model=lm, digits=digits)
    tm = token_map(lm, digits=digits)
    assert laws[0].shape == (9, 10**digits)
    for t, text in enumerate(texts(tm, [column(states)])):
        equal((laws[0][t], laws[1][t]), brute(lm, text, tm.slots[0]), f"position {t}")


@pytest.mark.parametrize("name", DIGIT_FAMILIES)
def test_two_levels_of_refinement_equal_brute_force(family, brute, texts, name):
    lm = family(name)
    states = np.array([523, 519, 98])
    laws = next_state_laws(states, model=lm, digits=3)
    tm = token_map(lm, digits=3)
    for t, text in enumerate(texts(tm, [column(states)])):
        equal((laws[0][t], laws[1][t]), brute(lm, text, tm.slots[0]), f"position {t}")


@pytest.mark.parametrize("name", ["llama2", "gemma", "gpt2"])
@pytest.mark.parametrize("depth", [0, 1])
def test_unrefined_nodes_spread_their_mass_evenly(family, brute, texts, name, depth):
    lm = family(name)
    states = np.array([523, 519, 98])
    laws = next_state_laws(states, model=lm, digits=3, depth=depth)
    tm = token_map(lm, digits=3)
    for t, text in enumerate(texts(tm, [column(states)])):
        equal((laws[0][t], laws[1][t]), brute(lm, text, tm.slots[0], depth))


@pytest.mark.parametrize(("refine", "reach"), [("observed", 0), ("neighbours", 1)])
def test_refinement_near_the_next_state(family, refine, reach):
    lm = family("llama2")
    states = np.array([523, 500, 98, 999])
    full, _ = next_state_laws(states, model=lm, digits=3)
    near, off = next_state_laws(states, model=lm, digits=3, refine=refine)
    for t, centre in enumerate([*states[1:], states[-1]]):
        wanted = full[t].copy().reshape(10, 10, 10)
        for first in range(10):
            for second in range(10):
                if abs(10 * first + second - centre // 10) > reach:
                    wanted[first, second] = wanted[first, second].mean()
            if abs(first - centre // 100) > reach:
                wanted[first] = wanted[first].mean()
        np.testing.assert_allclose(near[t], wanted.ravel(), atol=1e-6)
    assert np.all((off > 0) & (off < 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_equal_brute_force(family, brute, texts, name):
    lm = family(name)
    states = np.array([0, 1, 1, 2, 0, 2, 1])
    laws = next_state_laws(states, model=lm, n_states=3)
    tm = token_map(lm, n_states=3)
    for t, text in enumerate(texts(tm, [column(states)])):
        equal((laws[0][t], laws[1][t]), brute(lm, text, tm.slots[0]))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_several_runs_in_one_context(family, brute, texts, name, kind):
    lm = family(name)
    what = {"digits": 3 if name == "shipped-like" else 2} if kind == "numbers" else {"n_states": 3}
    tm = token_map(lm, **what)
    rng = np.random.default_rng(5)
    runs = [rng.integers(0, tm.n_states, size) for size in (4, 1, 3)]
    laws = next_state_laws(runs, model=lm, **what)
    for t, text in enumerate(texts(tm, [column(run) for run in runs])):
        equal((laws[0][t], laws[1][t]), brute(lm, text, tm.slots[0]), f"position {t}")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("probe_as", ["continuation", "run"])
def test_probes_follow_the_whole_series(family, brute, name, probe_as):
    lm = family(name)
    digits = 3 if name == "shipped-like" else 2
    tm = token_map(lm, digits=digits)
    states = np.array([52, 51, 47, 3, 99, 50])
    probes = np.array([0, 47, 98])
    laws = next_state_laws(states, model=lm, digits=digits, probe=probes, probe_as=probe_as)
    for i, probe in enumerate(probes):
        if probe_as == "run":
            text = tm.style.text([column(states), column([probe])])
        else:
            text = tm.style.text([column([*states, probe])])
        equal((laws[0][i], laws[1][i]), brute(lm, text, tm.slots[0]), f"probe {probe}")


@pytest.mark.parametrize("chunk", [1, 7, 4096])
@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma", "gpt2"])
def test_chunks_change_nothing(family, name, chunk):
    lm = family(name)
    states = np.random.default_rng(1).integers(0, 100, 8)
    wanted = next_state_laws(states, model=lm, digits=2)
    got = next_state_laws(states, model=lm, digits=2, chunk=chunk)
    np.testing.assert_allclose(got[0], wanted[0], atol=2e-6)
    np.testing.assert_allclose(got[1], wanted[1], atol=2e-6)


def test_mirror_averages_with_the_mirrored_series(family):
    lm = family("llama2")
    states = np.array([5, 2, 3, 9])
    here, off = next_state_laws(states, model=lm, digits=1)
    there, lost = next_state_laws(9 - states, model=lm, digits=1)
    both = next_state_laws(states, model=lm, digits=1, mirror=True)
    np.testing.assert_allclose(both[0], (here + there[:, ::-1]) / 2)
    np.testing.assert_allclose(both[1], (off + lost) / 2)
    probes = next_state_laws(states, model=lm, digits=1, probe=[2, 7], mirror=True)
    left = next_state_laws(states, model=lm, digits=1, probe=[2, 7])
    right = next_state_laws(9 - states, model=lm, digits=1, probe=[7, 2])
    np.testing.assert_allclose(probes[0], (left[0] + right[0][:, ::-1]) / 2)
    labels = next_state_laws(states % 3, model=lm, n_states=3, mirror=True)
    other = [next_state_laws(s, model=lm, n_states=3)[0] for s in (states % 3, 2 - states % 3)]
    np.testing.assert_allclose(labels[0], (other[0] + other[1][:, ::-1]) / 2)


@pytest.mark.parametrize(("name", "digits"), [("llama2", 2), ("gpt2", 3), ("shipped-like", 3)])
@pytest.mark.parametrize("probe", [None, [7, 52, 99]])
def test_a_squeezed_mirror_image_is_read_and_carried_back(family, name, digits, probe):
    lm, n = family(name), 10**digits
    runs = [np.array([52, 51, 97, 3]), np.array([99, 0])]
    half = n // 2

    def image(states):
        return half + (6 * (half - np.asarray(states)) - 3) // 8

    asked = None if probe is None else image(probe)
    here, off = next_state_laws(runs, model=lm, digits=digits, probe=probe)
    there, lost = next_state_laws([image(r) for r in runs], model=lm, digits=digits, probe=asked)
    # By hand: a state of the image is four thirds of a state, in falling order from the middle.
    thirds = 4 * (half - np.arange(n))[:, None] - np.arange(1, 5)
    share = np.zeros((n, n))
    at = np.clip(half + thirds // 3, 0, n - 1)
    np.add.at(share, (np.arange(n)[:, None], at), 0.25)
    both = next_state_laws(runs, model=lm, digits=digits, probe=probe, mirror=True, squeeze=0.75)
    np.testing.assert_allclose(both[0], (here + there @ share) / 2, atol=1e-9)
    np.testing.assert_allclose(both[0].sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(both[1], (off + lost) / 2)


@pytest.mark.parametrize("name", ["llama2", "llama3", "shipped-like"])
def test_rows_of_a_sliding_window_see_its_second_half_or_more(family, brute, texts, name):
    lm = family(name)
    rng = np.random.default_rng(8)
    runs = [rng.integers(0, 1000, size) for size in (9, 2, 14)]
    tm = token_map(lm, digits=3)
    block, limit = tm.slots[0].width, 12 * tm.slots[0].width + 4
    rows, _ = next_state_laws(runs, model=lm, digits=3, depth=0, max_context=limit)
    flat = np.concatenate(runs)
    breaks = np.cumsum([len(run) for run in runs])[:-1]
    assert rows.shape == (25, 1000)
    for t in (0, 6, 12, 13, 15, 18, 24):
        contexts = {}
        for length in range(4, 17) if t else (1,):  # which length of context gives this row?
            start = t + 1 - length
            if start < 0:
                break
            inside = breaks[(breaks > start) & (breaks <= t)] - start
            text = tm.style.text(np.split(column(flat[start : t + 1]), inside))
            contexts[length] = np.abs(brute(lm, text, tm.slots[0], 0)[0] - rows[t]).max()
        length = min(contexts, key=contexts.get)
        assert contexts[length] < 1e-5
        assert length >= min(t + 1, (limit // 2 - 4) // block - 1)
    with pytest.raises(ValueError, match=r"max_context must be at least \d+ tokens"):
        next_state_laws(runs, model=lm, digits=3, max_context=5)


@pytest.mark.parametrize("name", FAMILIES)
def test_joint_rows_equal_brute_force(family, brute, name):
    lm = family(name)
    digits = 3 if name == "shipped-like" else 2
    rng = np.random.default_rng(2)
    runs = [rng.integers(0, 10**digits, (size, 2)) for size in (3, 2)]
    first, second = joint_state_laws(runs, model=lm, digits=digits)
    tm = token_map(lm, digits=digits, dim=2)
    assert first[0].shape == (5, tm.n_states)
    assert second[0].shape == (3, tm.n_states)
    row = 0
    for r, run in enumerate(runs):
        for t in range(len(run)):
            text = tm.style.text([*runs[:r], run[: t + 1]])
            at = t + r * 3
            equal((first[0][at], first[1][at]), brute(lm, text, tm.slots[0]), (r, t))
            if t + 1 < len(run):
                text += tm.style.write(int(run[t + 1, 0]), False)
                equal((second[0][row], second[1][row]), brute(lm, text, tm.slots[1]), (r, t))
                row += 1


def test_rows_are_laws_and_off_state_mass_is_a_probability(family):
    rows, off = next_state_laws(np.arange(100), model=family("qwen"), digits=3)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    assert rows.min() >= 0
    assert np.all((off >= 0) & (off <= 1))


def test_progress_bar_names_model_and_device(family, capsys):
    next_state_laws(np.arange(50), model=family("llama2"), digits=2, progress=True)
    shown = " ".join(capsys.readouterr().out.split())  # a narrow terminal wraps
    assert "llama2, float32 on cpu, context 152 of 512 tokens" in shown
    assert "positions/s" in shown


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"states": [0.5], "digits": 2}, TypeError, "states must be integer"),
        ({"states": [[1, 2], [3]], "digits": 2, "probe": [1.5]}, TypeError, "probe must be"),
        ({"states": [], "digits": 2}, ValueError, "states must hold at least one state"),
        ({"states": [1, 100], "digits": 2}, ValueError, "states must lie in .*; got 100 at 1"),
        ({"states": [[1], [5, -1]], "digits": 2}, ValueError, "got -1 at 1 of run 1"),
        ({"states": [1], "digits": 2, "probe": [100]}, ValueError, "probe must lie in"),
        ({"states": [1]}, ValueError, "exactly one of n_states and digits"),
        ({"states": [1], "digits": 2, "n_states": 3}, ValueError, "exactly one of n_states"),
        ({"states": [1], "digits": 4}, ValueError, "digits must be at most 3"),
        ({"states": [1], "n_states": 11}, ValueError, "n_states must be at most 10"),
        ({"states": [1], "n_states": 1}, ValueError, "n_states must be at least 2"),
        ({"states": [1], "digits": 2, "refine": "some"}, ValueError, "refine must be one of"),
        ({"states": [1], "digits": 2, "depth": 2}, ValueError, "depth must be at most 1"),
        ({"states": [1], "digits": 2, "chunk": 0}, ValueError, "chunk must be at least 1"),
        ({"states": [1], "digits": 2, "probe_as": "x"}, ValueError, "probe_as must be one of"),
        ({"states": [1], "digits": 2, "squeeze": 0.5}, ValueError, "squeeze must be 1 with"),
        ({"states": [1], "digits": 2, "mirror": True, "squeeze": 0}, ValueError, "be positive"),
        ({"states": [1], "digits": 2, "mirror": True, "squeeze": 1.5}, ValueError, "at most 1"),
        ({"states": [1], "digits": 2, "squeeze": "x"}, TypeError, "squeeze must be a number"),
        (
            {"states": [1], "n_states": 3, "mirror": True, "squeeze": 0.5},
            ValueError,
            "squeeze must be 1 for labels",
        ),
        ({"states": [5] * 400, "digits": 2}, ValueError, "must fit the context of llama2, 512"),
        (
            {"states": [5] * 400, "digits": 2, "max_context": 600},
            ValueError,
            "max_context must be at least .* up to 512 tokens",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_fault_and_the_remedy(family, arguments, error, message):
    arguments = dict(arguments)
    with pytest.raises(error, match=message):
        next_state_laws(arguments.pop("states"), model=family("llama2"), **arguments)


def test_joint_states_must_be_alike(family):
    with pytest.raises(ValueError, match="one number of coordinates"):
        joint_state_laws([np.zeros((2, 2), int), np.zeros((2, 3), int)], model=family("llama2"))
    with pytest.raises(ValueError, match="states must have 2 axes"):
        joint_state_laws(np.zeros(4, int), model=family("llama2"))
