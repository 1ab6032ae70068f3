"""Rows read off a model are the reader's own, after a new line each."""

import numpy as np
import pytest

from sgdmc.forecasting.rows import llm_block
from sgdmc.llm.model import load_model
from sgdmc.llm.reader import next_state_laws


@pytest.mark.parametrize("mirror", [True, False])
def test_rows_are_the_readers_own(mirror):
    lm = load_model("shipped")
    rng = np.random.default_rng(2)
    series = [np.clip(500 + np.cumsum(rng.normal(0, 30, size)), 150, 850).astype(np.int64)
              for size in (40, 25)]  # fmt: skip
    edges = np.arange(1001.0)
    block = llm_block(series, edges=edges, read_edges=edges, lag=1, model=lm, mirror=mirror)
    assert block.probed.all()
    probe = np.array([160, 400, 600, 999])
    rows, off = next_state_laws(
        series, model=lm, digits=3, probe=probe, probe_as="run", mirror=mirror
    )
    np.testing.assert_allclose(block.rows[probe], rows, atol=1e-5)
    np.testing.assert_allclose(block.off_state_mass[probe], off, atol=1e-5)
