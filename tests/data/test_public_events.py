"""OmniFold's observables, clouds of varying size: closed forms, and what damaged rows say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from public_cases import jetclass, neutrinos, omnifold, pilarnet
from public_files import jagged, save

import pofx
from pofx.data import ReadOptions
from pofx.data.public.omnifold import observables
from pofx.errors import ColumnError, DataError, NonFiniteError


def test_observables(tmp_path: Path) -> None:
    arrays = omnifold(50, np.random.default_rng(1))
    made = observables(pofx.read(save(tmp_path / "a.npz", arrays))).arrays()
    for side, found in (("gen", made.x), ("sim", made.context.x)):
        jets, sdm = arrays[f"{side}_jets"], arrays[f"{side}_sdms"]
        np.testing.assert_array_equal(found[:, 0], jets[:, 3])
        np.testing.assert_array_equal(found[:, 1], arrays[f"{side}_mults"])
        np.testing.assert_allclose(np.exp(found[:, 3]), (sdm / jets[:, 0]) ** 2)
        np.testing.assert_allclose(found[:, 5] * arrays[f"{side}_widths"], arrays[f"{side}_tau2s"])
    with pytest.raises(ColumnError, match="'gen' and 'sim'"):
        observables(pofx.Dataset.from_arrays(np.eye(3)))


def test_observables_that_do_not_exist(tmp_path: Path) -> None:
    """A groomed mass of zero on either side: the whole event is named, or left out."""
    arrays = omnifold(50, np.random.default_rng(1))
    arrays["gen_sdms"][7] = arrays["sim_widths"][9] = 0.0
    data = pofx.read(save(tmp_path / "a.npz", arrays))
    with pytest.raises(NonFiniteError, match=r"row 7, column 'ln_rho'"):
        observables(data)
    kept = observables(data, nan="drop")
    assert (len(kept), kept.dropped) == (48, 2)


def test_rows_of_points(tmp_path: Path) -> None:
    arrays = pilarnet(7, np.random.default_rng(1))
    path = save(tmp_path / "a.h5", arrays)
    data = pofx.read(path).arrays()
    np.testing.assert_array_equal(data.mask.sum(1), [len(row) // 8 for row in arrays["point"]])
    np.testing.assert_array_equal(data.x[3][data.mask[3]], arrays["point"][3].reshape(-1, 8)[:, :4])
    few = pofx.read(path, options=ReadOptions(points=2)).arrays()
    np.testing.assert_array_equal(few.x, data.x[:, :2])
    arrays["point"][2][3] = -1.0
    with pytest.raises(DataError, match=r"row 2.*negative.*-1"):
        pofx.read(save(path, arrays))
    arrays["point"][5] = arrays["point"][5][:-3]
    with pytest.raises(DataError, match=r"row 5.*expected 8 numbers per entry"):
        pofx.read(save(path, arrays))


def test_constituents(tmp_path: Path) -> None:
    arrays = jetclass(7, np.random.default_rng(1))
    found = pofx.read(save(tmp_path / "a.root", dict(arrays))).arrays()
    for i, rows in enumerate(arrays["part_px"]):
        np.testing.assert_array_equal(found.x[i, :, 0][found.mask[i]], rows)
    np.testing.assert_array_equal(found.context.fields["label"][:, 1], arrays["label_Hbb"])
    arrays["part_py"] = jagged([row * np.nan for row in arrays["part_py"]])
    with pytest.raises(NonFiniteError, match="part_py"):
        pofx.read(save(tmp_path / "b.root", dict(arrays)))
    del arrays["part_py"]
    with pytest.raises(pofx.errors.FormatError, match=r"part_py.* is missing"):
        pofx.read(save(tmp_path / "c.root", arrays), options=ReadOptions(format="jetclass"))


def test_truncated_tree(tmp_path: Path) -> None:
    path = save(tmp_path / "a.root", jetclass(7, np.random.default_rng(1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(pofx.errors.FormatError):
        pofx.read(path)


def test_jets_of_top_pairs(tmp_path: Path) -> None:
    """The mask is the number of jets; members are named."""
    arrays = neutrinos(2)(9, np.random.default_rng(1))
    context = pofx.read(save(tmp_path / "a.h5", arrays)).arrays().context
    np.testing.assert_array_equal(context.masks["jets"].sum(1), arrays["delphes/njets"])
    np.testing.assert_array_equal(context.fields["leptons"][:, 5], arrays["delphes/leptons"]["pt"][:, 1])
    del arrays["delphes/MET"]
    with pytest.raises(pofx.errors.FormatError, match="delphes/MET is missing"):
        pofx.read(save(tmp_path / "b.h5", arrays), options=ReadOptions(format="nu2-flows"))
