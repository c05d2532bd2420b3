"""LHC Olympics: derived features against another way to compute them, regions, real arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from public_cases import LHCO, lhco_features
from public_files import save

import pofx
from pofx.data import ReadOptions, describe
from pofx.data.public.lhco import dijets, regions
from pofx.errors import ColumnError, FormatError


def test_dijets_against_four_vectors(tmp_path: Path) -> None:
    """The invariant mass from rapidities and transverse masses, event by event in Python floats."""
    arrays = lhco_features(200, np.random.default_rng(5))
    data = pofx.read(save(tmp_path / "a.h5", arrays), options=ReadOptions(stream=True))
    made = dijets(data)
    found = made.arrays()
    np.testing.assert_array_equal(found.context.x[:, 0], arrays["df/block0_values"][:, 14])
    for row, values in zip(found.x, arrays["df/block0_values"], strict=True):
        jets = [dict(zip(LHCO[:7], values[k : k + 7], strict=True)) for k in (0, 7)]
        light, heavy = sorted(jets, key=lambda jet: jet["mj1"])
        mt, y, phi = zip(*(_transverse(jet) for jet in jets), strict=True)
        pt = [np.hypot(jet["pxj1"], jet["pyj1"]) for jet in jets]
        square = sum(jet["mj1"] ** 2 for jet in jets) + 2 * (
            mt[0] * mt[1] * np.cosh(y[0] - y[1]) - pt[0] * pt[1] * np.cos(phi[0] - phi[1])
        )
        wanted = [np.sqrt(square) / 1e3, light["mj1"] / 1e3, (heavy["mj1"] - light["mj1"]) / 1e3]
        wanted += [jet["tau2j1"] / (1e-5 + jet["tau1j1"]) for jet in (light, heavy)]
        np.testing.assert_allclose(row, wanted, rtol=1e-9, atol=1e-12)


def _transverse(jet: dict[str, float]) -> tuple[float, float, float]:
    """Transverse mass, rapidity, azimuth."""
    mt = np.sqrt(jet["mj1"] ** 2 + jet["pxj1"] ** 2 + jet["pyj1"] ** 2)
    return mt, np.arcsinh(jet["pzj1"] / mt), np.arctan2(jet["pyj1"], jet["pxj1"])


def test_regions(tmp_path: Path) -> None:
    made = dijets(pofx.read(save(tmp_path / "a.h5", lhco_features(300, np.random.default_rng(6)))))
    low, high = np.quantile(made.arrays().x[:, 0], [0.3, 0.6])
    signal, sideband = regions(made, low, high)
    assert (len(signal), len(signal) + len(sideband)) == (90, 300)
    mjj = signal.arrays().x[:, 0]
    assert ((mjj > low) & (mjj < high)).all()
    with pytest.raises(ColumnError, match="'mjj'"):
        regions(pofx.Dataset.from_arrays(np.eye(4)))
    with pytest.raises(ColumnError, match="pxj1"):
        dijets(made)


def test_no_label(tmp_path: Path) -> None:
    """The extra background comes without one."""
    arrays = lhco_features(20, np.random.default_rng(7))
    arrays["df/block0_values"] = arrays["df/block0_values"][:, :14]
    arrays["df/axis0"] = arrays["df/block0_items"] = arrays["df/block0_items"][:14]
    data = pofx.read(save(tmp_path / "a.h5", arrays))
    assert data.context_spec is None
    assert dijets(data).context_spec is None
    assert pofx.read(pofx.write(tmp_path / "b.h5", data, format="lhco-features")).names == data.names


def test_negative_momenta_are_refused(tmp_path: Path) -> None:
    values = np.zeros((9, 2101))
    values[4, 3] = -2.0
    path = save(tmp_path / "a.h5", {"df/block0_values": values})
    with pytest.raises(pofx.errors.DataError, match=r"row 4.*transverse momenta must not be negative"):
        pofx.read(path)


@pytest.mark.data
def test_published_dijets(pofx_data: Path) -> None:
    path = pofx_data / "lhco/lhco_rd_signal_region.npz"
    with pytest.raises(FormatError, match=r"lhco-dijets.*say which with key=: train .60000, 6., val"):
        pofx.read(path)
    assert "lhco-dijets" in describe(path).note
    for key, events, signal in (("train", 60000, 395), ("val", 60000, 369)):
        found = pofx.read(path, key=key, options=ReadOptions(format="lhco-dijets"))
        assert len(found) == events
        assert found.arrays().context.x.sum() == signal
        assert len(regions(found).signal) == events
