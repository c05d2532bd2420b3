"""Damaged files and odd arrays raise a ``PofxError`` or nothing."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzzing import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pofx.data as pofx_data
from pofx.errors import PofxError

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_files(tmp_path: Path, seed: int) -> None:
    for case in cases(80, seed):
        path = case.write(tmp_path)
        for function in (pofx_data.describe, lambda p, case=case: pofx_data.read(p, **case.arguments)):
            with contextlib.suppress(PofxError):
                str(function(path))


@QUICK
@given(st.text(alphabet='0123456789.,;\t\n\r" eE+-naN#abc\u03c6', max_size=80))
def test_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    with contextlib.suppress(PofxError):
        pofx_data.read(path)


@QUICK
@given(
    st.sampled_from(["npz", "npy", "h5"]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
    st.integers(0, 3000),
)
def test_any_bytes(tmp_path: Path, suffix: str, changes: list[tuple[int, int]], end: int) -> None:
    path = pofx_data.write(tmp_path / f"t.{suffix}", np.arange(30.0).reshape(10, 3))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[: max(end, 1)])
    with contextlib.suppress(PofxError):
        pofx_data.read(path)


@QUICK
@given(hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_any_array(tmp_path: Path, array: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy, about its own format 3.0
        np.save(tmp_path / "t.npy", array)
        np.savez(tmp_path / "t.npz", x=array)
    for make in (
        lambda: pofx_data.Dataset.from_arrays(array),
        lambda: pofx_data.read(tmp_path / "t.npy"),
        lambda: pofx_data.read(tmp_path / "t.npz"),
    ):
        with contextlib.suppress(PofxError):
            x = make().arrays().fields
            assert all(value.dtype in (np.float32, np.float64) and np.isfinite(value).all() for value in x.values())
