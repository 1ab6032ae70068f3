"""Runs and the files that they come from."""

import numpy as np
import pytest

from sgdmc.sgd.run import Run, RunFileError, load_run

PATH = np.array([[0.0, 1.0], [0.5, 0.75], [0.75, 0.5]])


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_shapes_of_arrays():
    assert Run.from_array([1.0, 2.0]).iterates.shape == (1, 2, 1)
    assert Run.from_array(PATH).iterates.shape == (1, 3, 2)
    assert Run.from_array(np.stack([PATH, PATH])).n_chains == 2
    run = Run.from_array(PATH)
    np.testing.assert_array_equal(run.range, [0.75, 0.5])
    np.testing.assert_array_equal(run.tail(0.3)[0], PATH[-1:])
    np.testing.assert_array_equal(run.head(1).iterates[0], PATH[:2])


def test_runs_of_different_length_are_padded():
    run = Run.from_paths([PATH, PATH[:2]], names=("a", "b"))
    assert run.iterates.shape == (2, 3, 2)
    assert np.isnan(run.iterates[1, 2]).all()
    assert [len(p) for p in run.paths] == [3, 2]
    assert len(run.values) == 5


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.zeros((2, 2, 2, 2)), ValueError, r"iterates must have shape"),
        (np.zeros((1, 2)), ValueError, r"at least 2 rows a run; got 1 in run 0"),
        (["a", "b"], TypeError, "iterates must be real numbers"),
        (np.array([1j, 2j]), TypeError, "iterates must be real numbers"),
        (np.zeros((3, 0)), ValueError, "at least one run of one coordinate"),
    ],
)
def test_bad_arrays(values, kind, message):
    with pytest.raises(kind, match=message):
        Run.from_array(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_says_where(bad):
    values = np.stack([PATH, PATH])
    values[1, 2, 1] = bad
    with pytest.raises(ValueError, match=r"must be finite; got .* at run 1, row 2, column 'b'"):
        Run.from_array(values, names=("a", "b"))


def test_csv_keeps_names_and_splits_runs(tmp_path):
    path = write(
        tmp_path, "log.csv", "run,step,weight,bias\n0,1,2,3\n0,0,1,2\n1,0,5,6\n1,1,7,8\n1,2,9,10\n"
    )
    run = load_run(path)
    assert run.names == ("weight", "bias")
    assert run.n_chains == 2
    np.testing.assert_array_equal(run.paths[0], [[1, 2], [2, 3]])  # ordered by step
    np.testing.assert_array_equal(run.paths[1], [[5, 6], [7, 8], [9, 10]])
    assert run.source == "log.csv"


def test_csv_without_header(tmp_path):
    run = load_run(write(tmp_path, "log.csv", "1,2\n3,4\n"))
    assert run.names == ("theta0", "theta1")
    np.testing.assert_array_equal(run.iterates[0], [[1, 2], [3, 4]])


def test_all_formats_agree(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    np.save(tmp_path / "a.npy", PATH)
    np.savez(tmp_path / "b.npz", iterates=PATH, names=np.array(["a", "b"]))
    parquet.write_table(pa.table({"a": PATH[:, 0], "b": PATH[:, 1]}), tmp_path / "c.parquet")
    write(tmp_path, "d.csv", "a,b\n" + "\n".join(f"{x},{y}" for x, y in PATH))
    for name in ("a.npy", "b.npz", "c.parquet", "d.csv"):
        run = load_run(tmp_path / name)
        np.testing.assert_array_equal(run.iterates[0], PATH)
        if name != "a.npy":
            assert run.names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"column 'b' must be numeric; got 'x' at line 3"),
        ("a,b\n1,2\n3\n", r"must have 2 cells in each row; got 1 at line 3"),
        ("a,b\n1,2\n", r"at least 2 rows a run; got 1"),
        ("a,b\n1,2\n3,nan\n", r"must be finite; got nan at run 0, row 1, column 'b'"),
        ("", "got an empty file"),
        ("step\n1\n2\n", "must have a column of iterates"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(RunFileError, match=message):
        load_run(write(tmp_path, "log.csv", text))


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        load_run(tmp_path / "missing.csv")
    with pytest.raises(RunFileError, match=r"path must end in \.csv, \.npy, \.npz, \.parquet"):
        load_run(write(tmp_path, "log.txt", "1,2"))
    np.savez(tmp_path / "two.npz", a=PATH, b=PATH)
    with pytest.raises(RunFileError, match="an array named 'iterates' or just one array"):
        load_run(tmp_path / "two.npz")
    with pytest.raises(RunFileError, match="must be a Parquet file"):
        load_run(write(tmp_path, "x.parquet", "nothing"))
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": ["x", "y"]}), tmp_path / "words.parquet")
    with pytest.raises(RunFileError, match="column 'a' must be numeric; got type string"):
        load_run(tmp_path / "words.parquet")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(RunFileError, match=r"objects\.npy"):
        load_run(tmp_path / "objects.npy")


def test_constant_columns_are_legal(tmp_path):
    run = load_run(write(tmp_path, "log.csv", "a,b\n1,5\n2,5\n3,5\n"))
    assert run.range[1] == 0
