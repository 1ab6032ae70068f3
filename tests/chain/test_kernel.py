"""Kernels push and draw laws as matrix products say."""

import numpy as np
import pytest
import scipy.sparse as sp

from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import Coordinates, JointKernel, Kernel, lag_schedule

N = 10


def make_kernel(**changes):
    rng = np.random.default_rng(0)
    path = np.column_stack([np.linspace(0, 7, 30), np.linspace(7, 0, 30)])
    fields = {
        "blocks": rng.dirichlet(np.ones(N), size=(2, N)),
        "observed": np.ones((2, N), dtype=bool),
        "off_state_mass": np.zeros((2, N)),
        "grid": Grid.fit(path, digits=1),
        "lag": 3,
        "method": "counts",
        "completion": "none",
        "coupling": "blocks",
        "coordinates": Coordinates.identity(2),
        "names": ("a", "b"),
        "paths": (path,),
        "notes": ("a note",),
    }
    return Kernel(**{**fields, **changes})


def test_lag_schedule():
    assert lag_schedule(0, 4) == (0, 0.0)
    assert lag_schedule(8, 4) == (2, 0.0)
    assert lag_schedule(9, 4) == (2, 0.25)
    with pytest.raises(ValueError, match="n_steps must be at least 0; got -1"):
        lag_schedule(-1, 4)


def test_push_is_a_matrix_power():
    kernel = make_kernel()
    laws = np.zeros((2, 2, N))
    laws[0, :, 3] = laws[1, :, 8] = 1.0
    out = kernel.push(laws, 6)
    for i in range(2):
        power = np.linalg.matrix_power(kernel.blocks[i], 2)
        np.testing.assert_allclose(out[0, i], power[3])
        np.testing.assert_allclose(out[1, i], power[8])
    between = kernel.push(laws, 7)
    np.testing.assert_allclose(between, out * 2 / 3 + kernel.push(laws, 9) / 3, atol=1e-14)


def test_draws_follow_the_pushed_law():
    kernel = make_kernel()
    start = np.array([[3.0, 3.0]])
    draws = kernel.advance(start, n_steps=3, n_chains=20_000, rng=np.random.default_rng(1))
    states = kernel.grid.encode(draws)
    present = kernel.grid.encode(start)[0]
    for i in range(2):
        seen = np.bincount(states[0, :, i], minlength=N) / 20_000
        # Stratified draws: every cumulative frequency is within one draw of the law.
        gap = np.abs(np.cumsum(seen - kernel.blocks[i, present[i]])).max()
        assert gap <= 1.0 / 20_000 + 1e-12
    # Coordinates are drawn independently.
    centred = states[0] - states[0].mean(axis=0)
    correlation = (centred[:, 0] * centred[:, 1]).mean() / centred.std(axis=0).prod()
    assert abs(correlation) < 4 / np.sqrt(20_000)


def test_horizon_zero_is_the_start():
    kernel = make_kernel()
    start = np.array([[3.3, 1.1]])
    draws = kernel.advance(start, n_steps=0, n_chains=4, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(draws, np.repeat(start[:, None], 4, axis=1))


def test_rotated_coordinates_map_there_and_back():
    basis = np.array([[1.0, 1.0], [0.5, -2.0]])
    turn = Coordinates(basis, np.array([3.0, -1.0]))
    theta = np.random.default_rng(2).normal(size=(5, 4, 2))
    np.testing.assert_allclose(turn.backward(turn.forward(theta)), theta, atol=1e-12)
    np.testing.assert_allclose(turn.forward(turn.offset + basis[:, 1]), [0, 1], atol=1e-12)
    assert not turn.is_identity
    with pytest.raises(ValueError, match="basis must be invertible"):
        Coordinates(np.ones((2, 2)), np.zeros(2))


def test_saved_kernels_come_back(tmp_path):
    kernel = make_kernel()
    kernel.save(tmp_path / "kernel")
    loaded = Kernel.load(tmp_path / "kernel")
    assert [p.name for p in tmp_path.iterdir()] == ["kernel.npz"]
    np.testing.assert_array_equal(loaded.blocks, kernel.blocks)
    assert loaded.grid == kernel.grid
    assert (loaded.lag, loaded.names, loaded.notes) == (3, ("a", "b"), ("a note",))
    np.testing.assert_array_equal(loaded.paths[0], kernel.paths[0])


def test_joint_kernel_of_independent_blocks_agrees_with_blocks():
    kernel = make_kernel()
    joint = JointKernel(
        sp.csr_array(np.kron(kernel.blocks[0], kernel.blocks[1])), kernel.grid, 3, ("a", "b")
    )
    start = np.array([[3.0, 5.0]])
    draws = joint.advance(start, n_steps=7, n_chains=5000, rng=np.random.default_rng(0))
    other = kernel.advance(start, n_steps=7, n_chains=5000, rng=np.random.default_rng(0))
    for i in range(2):
        seen, expected = (
            np.bincount(kernel.grid.encode(d)[0, :, i], minlength=N) / 5000 for d in (draws, other)
        )
        assert np.abs(seen - expected).max() < 5 * np.sqrt(0.25 / 5000)


def test_joint_kernel_never_loses_mass_in_silence():
    n = N * N
    matrix = sp.lil_array((n + 1, n + 1))
    matrix[:, n] = 1.0
    joint = JointKernel(matrix.tocsr(), make_kernel().grid, 1, ("a", "b"))
    with pytest.raises(ValueError, match=r"kernel must keep the chain on its grid; 1 of the law"):
        joint.advance(np.zeros((1, 2)), n_steps=1, n_chains=3, rng=np.random.default_rng(0))
