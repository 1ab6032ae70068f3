"""Runs and the files that they come from."""

import numpy as np
import pytest

from sgdmc.sgd.run import Run
from sgdmc.sgd.run_file import RunFileError, load_run, load_starts

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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # As pandas writes: an index, columns that nobody named, both.
        (",a,b\n0,0.0,1.0\n1,0.5,0.75\n2,0.75,0.5\n", ("a", "b")),
        ("0,1\n0.0,1.0\n0.5,0.75\n0.75,0.5\n", ("0", "1")),
        (",0,1\n0,0.0,1.0\n1,0.5,0.75\n2,0.75,0.5\n", ("0", "1")),
        ("Unnamed: 0,a,b\n7,0.0,1.0\n8,0.5,0.75\n9,0.75,0.5\n", ("a", "b")),
    ],
)
def test_what_pandas_writes(tmp_path, text, names):
    run = load_run(write(tmp_path, "log.csv", text))
    assert run.names == names
    np.testing.assert_array_equal(run.iterates[0], PATH)


def test_whole_numbers_in_the_first_row_are_an_iterate(tmp_path):
    run = load_run(write(tmp_path, "log.csv", "0,1\n2,3\n4,5\n"))
    assert run.names == ("theta0", "theta1")
    assert run.n_steps == 2
    single = load_run(write(tmp_path, "one.csv", "0\n0.5\n0.7\n"))
    assert single.n_steps == 2


def test_pandas_indices_in_parquet_are_no_coordinates(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    columns = {"a": PATH[:, 0], "b": PATH[:, 1], "__index_level_0__": [3, 4, 5]}
    parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert load_run(tmp_path / "log.parquet").names == ("a", "b")


def test_all_columns_of_runs_tell_them_apart(tmp_path):
    rows = [
        f"{seed},{run},{seed + run + t / 10}" for seed in (0, 1) for run in (0, 1) for t in (0, 1)
    ]
    run = load_run(write(tmp_path, "log.csv", "\n".join(["seed,run,a", *rows])))
    assert [p[0, 0] for p in run.paths] == [0, 1, 1, 2]


def test_steps_that_begin_anew_begin_another_run(tmp_path):
    text = "step,a\n0,1\n1,2\n2,3\n0,5\n1,6\n2,7\n3,8\n"
    run = load_run(write(tmp_path, "log.csv", text))
    assert [p[:, 0].tolist() for p in run.paths] == [[1, 2, 3], [5, 6, 7, 8]]


def test_steps_that_are_missing_part_a_run(tmp_path):
    steps = [*range(0, 30), *range(40, 60), 75, *range(90, 100)]
    text = "\n".join(["step,a", *(f"{s},{s / 2}" for s in steps)])
    run = load_run(write(tmp_path, "log.csv", text))
    assert run.lengths.tolist() == [30, 20, 10]
    for path in run.paths:
        np.testing.assert_array_equal(np.diff(path[:, 0]), 0.5)
    assert run.thin == 1


def test_strides_are_told(tmp_path):
    steps = np.cumsum([0, 390, 390, 391, 390, 389])
    text = "\n".join(["iter,a", *(f"{s},{k}" for k, s in enumerate(steps))])
    run = load_run(write(tmp_path, "log.csv", text))
    assert (run.n_chains, run.n_steps, run.thin) == (1, 5, 390)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2\n3,4\n", r"columns must have different names; got \['a'\]"),
        ("step,a\n0,1\nnan,2\n", r"column 'step' must be finite; got nan in row 1"),
        ("step,a\n1,1\n2,2\n5,3\n10,4\n20,5\n", r"'step' must go up evenly.*a step of"),
        ("t,a\n0,1\n10,1\n20,1\n25,2\n30,1\n40,1\n", r"a step of 5 where most are 10"),
        ("t,a\n0,1\n1,1\n2,1\n3,1\n4,1\n9,2\n20,2\n", r"2 of 7 rows with no other 1 away"),
        ("step,a\n0,1\n", r"at least 2 rows a run; got 1"),
        (",a\n0.5,1\n1.5,2\n", "every column must have a name"),
        (",step\n0,1\n1,2\n", "must have a column of iterates"),
    ],
)
def test_tables_that_are_no_run(tmp_path, text, message):
    with pytest.raises(RunFileError, match=message):
        load_run(write(tmp_path, "log.csv", text))


def test_starts_come_from_every_type_of_file(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    np.save(tmp_path / "a.npy", PATH)
    np.savez(tmp_path / "b.npz", PATH)
    parquet.write_table(pa.table({"b": PATH[:, 1], "a": PATH[:, 0]}), tmp_path / "c.parquet")
    lines = "\n".join(f"{k},{x},9,{y}" for k, (x, y) in enumerate(PATH))
    write(tmp_path, "d.csv", ",a,other,b\n" + lines)
    write(tmp_path, "e.csv", "\n".join(f"{x},{y}" for x, y in PATH))
    for name in ("a.npy", "b.npz", "c.parquet", "d.csv", "e.csv"):
        np.testing.assert_array_equal(load_starts(tmp_path / name, ("a", "b")), PATH)
    np.save(tmp_path / "one.npy", PATH[0])
    np.testing.assert_array_equal(load_starts(tmp_path / "one.npy", ("a", "b")), PATH[:1])
    for names in (("a",), ("a", "b", "c")):
        with pytest.raises(RunFileError, match=rf"{len(names)} columns .*; got shape \(3, 2\)"):
            load_starts(tmp_path / "e.csv", names)
    with pytest.raises(FileNotFoundError, match="not found"):
        load_starts(tmp_path / "none.csv", ("a",))
