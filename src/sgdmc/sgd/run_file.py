"""Runs from files: a user's training log."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.words import listed
from sgdmc.sgd.run import Run

__all__ = ["RunFileError", "load_run", "load_starts"]

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]

_RUN_COLUMNS = ("run", "chain", "seed")
_STEP_COLUMNS = ("step", "iteration", "iter", "t")
# How far steps between rows may be from their median, as a share of it.
_EVEN = 0.25
# Rows that gaps on either side leave alone, as a share of all: these are left out.
_ALONE = 0.1


class RunFileError(ValueError):
    """A file of iterates that cannot be read as one; the message says where and why."""


def load_run(path: str | Path) -> Run:
    """Read iterates from a file: the user's own training log.

    Parameters
    ----------
    path : str or Path
        ``.csv`` (with or without a header; names are kept), ``.npy``, ``.npz`` (the array named
        ``iterates``, or the only one) or ``.parquet``. Tables have one row an iterate and one
        column a coordinate; columns named ``run``, ``chain`` or ``seed`` tell several runs
        apart, one named ``step``, ``iteration``, ``iter`` or ``t`` orders the rows of a run. They
        are no coordinates, nor is the index that pandas writes. Runs whose steps begin anew, or
        leave some out, are several. Arrays have shape (T,), (T, dim) or (n_chains, T, dim).

    Returns
    -------
    Run
        ``thin`` is the number of steps between rows, where there is a column of steps.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RunFileError
        If the type is unknown, a column is not numeric, two have one name, a value is NaN or
        infinite, steps are not evenly apart, or a run has fewer than two rows; the message names
        file, row and column.
    """
    path = Path(path)
    found = _read(path)
    with _named(path):
        if isinstance(found, dict):
            return _from_columns(found, path)
        return Run.from_array(found[0], names=found[1], source=path.name)


def load_starts(path: str | Path, names: Sequence[str]) -> Array:
    """Read starts from a file of any type that :func:`load_run` knows, one a row.

    Parameters
    ----------
    path : str or Path
    names : sequence of str
        Names of the coordinates: columns called so are taken, in this order; where there are none
        of these names, all columns as they come.

    Returns
    -------
    ndarray, shape (n_starts, dim)

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RunFileError
        As :func:`load_run`, or if the file has not one column a coordinate, or no row.
    """
    path = Path(path)
    found = _read(path)
    if isinstance(found, dict):
        columns = {name: column for name, column in found.items() if not _is_index(name, column)}
        picked = list(names) if set(names) <= set(columns) else list(columns)
        values = np.stack([columns[name] for name in picked], axis=1)
    else:
        values = np.atleast_2d(found[0])
    if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
        raise RunFileError(
            f"{path.name} must have one start a row and {len(names)} columns ({listed(names)}); "
            f"got shape {values.shape}."
        )
    with _named(path):
        return np.asarray(values, dtype=np.float64)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of what is in a file begin with its name."""
    try:
        yield
    except RunFileError:
        raise
    except (ValueError, TypeError) as error:
        raise RunFileError(f"{path.name}: {error}") from error


def _read(path: Path) -> Columns | tuple[NDArray[Any], tuple[str, ...] | None]:
    """Read the columns of a table, or an array and what its coordinates are called."""
    if not path.is_file():
        raise FileNotFoundError(f"path must name a file of iterates; got '{path}', not found.")
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": _read_csv,
        ".npy": _read_npy,
        ".npz": _read_npy,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise RunFileError(
            f"path must end in {', '.join(readers)}; got '{path.name}'. Convert it to one of these."
        )
    with _named(path):
        found: Columns | tuple[NDArray[Any], tuple[str, ...] | None] = reader(path)
    return found


def _read_npy(path: Path) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded, None
    with loaded as archive:
        keys = list(archive.files)
        key = "iterates" if "iterates" in keys else keys[0] if len(keys) == 1 else None
        if key is None:
            raise RunFileError(
                f"{path.name} must hold an array named 'iterates' or just one array; got {keys}."
            )
        names = tuple(str(n) for n in archive["names"]) if "names" in keys else None
        return archive[key], names


def _read_csv(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        # Cells of a row may hold line breaks.
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    if not rows:
        raise RunFileError(
            f"{path.name} must hold at least two rows of numbers; got an empty file."
        )
    cells = [row for _, row in rows]
    names = _header(cells)
    body = rows[1:] if names else rows
    names = names or [f"theta{i}" for i in range(len(cells[0]))]
    _check_names(names, path)
    for line, row in body:
        if len(row) != len(names):
            raise RunFileError(
                f"{path.name} must have {len(names)} cells in each row; got {len(row)} "
                f"at line {line}."
            )
    columns: Columns = {}
    for i, name in enumerate(names):
        if name.lower() in _RUN_COLUMNS:
            columns[name] = np.array([row[i].strip() for _, row in body])
            continue
        values = np.empty(len(body))
        for r, (line, row) in enumerate(body):
            if not _is_number(row[i]):
                raise RunFileError(
                    f"{path.name}: column '{name}' must be numeric; got '{row[i].strip()}' at line "
                    f"{line}. Remove the column or the row."
                )
            values[r] = float(row[i])
        columns[name] = values
    return columns


def _header(rows: list[list[str]]) -> list[str] | None:
    """Names of the columns, if the first row holds them."""
    first = [cell.strip() for cell in rows[0]]
    if not all(_is_number(cell) for cell in first):
        return first
    # Columns that nobody named are 0, 1, … in pandas, above numbers that are not whole.
    counted = len(first) > 1 and first == [str(i) for i in range(len(first))]
    whole = all(cell.strip().lstrip("+-").isdigit() for cell in rows[min(1, len(rows) - 1)])
    return first if counted and not whole else None


def _read_parquet(path: Path) -> Columns:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise RunFileError(f"{path.name} must be a Parquet file; {error}") from error
    _check_names(table.column_names, path)
    columns: Columns = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        is_run = name.lower() in _RUN_COLUMNS
        if not is_run and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise RunFileError(
                f"{path.name}: column '{name}' must be numeric; got type {kind}. Remove the column."
            )
        values = table.column(name).to_numpy()
        columns[name] = values if is_run else values.astype(np.float64)
    return columns


def _check_names(names: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RunFileError(
            f"{path.name}: columns must have different names; got {twice} more than once."
        )


def _is_index(name: str, column: NDArray[Any]) -> bool:
    """Whether a column is the row numbers that pandas writes beside a table."""
    named = not name or name.startswith(("Unnamed: ", "__index_level_"))
    return named and bool((column == np.round(column)).all())


def _from_columns(columns: Columns, path: Path) -> Run:
    special = [name for name in columns if name.lower() in (*_RUN_COLUMNS, *_STEP_COLUMNS)]
    names = tuple(n for n in columns if n not in special and not _is_index(n, columns[n]))
    if not names:
        raise RunFileError(f"{path.name} must have a column of iterates; got only {list(columns)}.")
    if "" in names:
        raise RunFileError(f"{path.name}: every column must have a name; got one without.")
    values = np.stack([columns[name] for name in names], axis=1)
    of_runs = [columns[n].tolist() for n in special if n.lower() in _RUN_COLUMNS]
    labels = list(zip(*of_runs, strict=True)) if of_runs else [()] * len(values)
    rows_of: dict[tuple[Any, ...], list[int]] = {}
    for row, label in enumerate(labels):
        rows_of.setdefault(label, []).append(row)
    pieces = [np.array(rows) for rows in rows_of.values()]
    step_of = next((n for n in special if n.lower() in _STEP_COLUMNS), None)
    stride = 1.0
    if step_of is not None:
        pieces, stride = _by_steps(columns[step_of], pieces, f"{path.name}: column '{step_of}'")
    paths = [values[rows] for rows in pieces]
    return Run.from_paths(paths, names=names, thin=max(1, round(stride)), source=path.name)


def _by_steps(
    steps: Array, runs: list[NDArray[np.int64]], column: str
) -> tuple[list[NDArray[np.int64]], float]:
    """Order the rows of runs by their steps, and part them where steps are missing.

    Returns the rows of each piece, and the steps between two rows.
    """
    if not np.isfinite(steps).all():
        row = int(np.flatnonzero(~np.isfinite(steps))[0])
        raise RunFileError(f"{column} must be finite; got {steps[row]} in row {row}.")
    ordered = []
    for rows in runs:
        if len(np.unique(steps[rows])) == len(rows):
            ordered.append(rows[np.argsort(steps[rows], kind="stable")])
        else:
            # Steps that begin anew begin another run.
            ordered += np.split(rows, np.flatnonzero(np.diff(steps[rows]) <= 0) + 1)
    gaps = np.concatenate([np.diff(steps[rows]) for rows in ordered])
    stride = float(np.median(gaps)) if len(gaps) else 1.0
    crowded = gaps < (1 - _EVEN) * stride
    if crowded.any():
        raise RunFileError(
            f"{column} must go up evenly, as a chain does; got a step of "
            f"{gaps[crowded][0]:g} where most are {stride:g}. Keep rows that are {stride:g} apart."
        )
    far = (1 + _EVEN) * stride
    parts = [np.split(rows, np.flatnonzero(np.diff(steps[rows]) > far) + 1) for rows in ordered]
    kept = [part for of_run in parts for part in of_run if len(part) > 1 or len(of_run) == 1]
    alone = len(steps) - sum(map(len, kept))
    if alone > _ALONE * len(steps):
        raise RunFileError(
            f"{column} must go up evenly, as a chain does; got {alone} of {len(steps)} rows "
            f"with no other {stride:g} away. Record every step, or every so many."
        )
    return kept, stride


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
