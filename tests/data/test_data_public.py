"""Real files of experiments, where ``POFX_DATA`` points to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pofx import data
from pofx.data import ReadOptions
from pofx.errors import DataError, FormatError, ShapeError

pytestmark = pytest.mark.data
T2K = "t2k/JointNuMuAntiNuMuCC0piXsecDataRelease.root"
MEANS = ["hNuMuCC0piXsecLinearResult", "hAntiNuMuCC0piXsecLinearResult"]
PARTS = ["JointNuMuAntiNuMuCC0piXsecCovMatrixStat", "JointNuMuAntiNuMuCC0piXsecCovMatrixSyst"]


def test_t2k_release(pofx_data: Path) -> None:
    release = data.read_release(pofx_data / T2K, MEANS, PARTS, scale=1e39)
    assert release.mean.shape == (116,)
    assert release.labels[58] == "hAntiNuMuCC0piXsecLinearResult[0]"
    assert np.linalg.cond(release.covariance) == pytest.approx(1.65e7, rel=0.01)
    assert np.linalg.eigvalsh(release.covariance).min() > 0
    errors = np.sqrt(np.diag(release.covariance)) / release.mean
    assert (errors.min(), np.median(errors), errors.max()) == pytest.approx((0.10, 0.19, 0.91), abs=0.01)
    assert np.abs(release.correlation - np.eye(116)).max() == pytest.approx(0.452, abs=0.001)
    stat = data.read_matrix(pofx_data / T2K, PARTS[0])
    np.testing.assert_array_equal(stat, stat.T)
    edges = data.read_histogram(pofx_data / T2K, "hXsecNuMuCC0piDataSlice_3").edges[0]
    np.testing.assert_allclose(edges, [0, 0.3, 0.4, 0.5, 0.6, 0.8, 30])


def test_release_errors(pofx_data: Path) -> None:
    path = pofx_data / T2K
    with pytest.raises(FormatError, match=r"no object is called 'hNuMuCC0piXsecLinearResul'; did you mean"):
        data.read_histogram(path, "hNuMuCC0piXsecLinearResul")
    with pytest.raises(FormatError, match="it is a TH1D"):
        data.read_matrix(path, MEANS[0])
    with pytest.raises(ShapeError, match=r"expected covariances of shape \(58, 58\)"):
        data.read_release(path, MEANS[0], PARTS)
    with pytest.raises(FormatError, match=r"no tree in this file; .*read_histogram"):
        data.read(path)
    assert {e.name: (e.what, e.shape) for e in data.describe(path).entries}[PARTS[0]] == (
        "TMatrixTSym<double>",
        (116, 116),
    )


def test_microboone_release(pofx_data: Path) -> None:
    path = pofx_data / "microboone/MicroBooNE_CCInc3D_data_release.root"
    release = data.read_release(path, "MicroBooNE_CCInc3D_data", "MicroBooNE_CCInc3D_unfcov")
    assert release.mean.shape == (138,)
    assert np.linalg.matrix_rank(release.covariance) < 138
    assert data.read_matrix(path, "MicroBooNE_CCInc3D_Ac").shape == (138, 138)
    other = pofx_data / "microboone/CCNp_data_MC_cov_dataRelease.root"
    observables = ["mumom", "pmom", "muangle", "pangle", "thetamup"]
    joint = data.read_release(
        other, [f"DataXsec_{o}" for o in observables], [f"CovarianceMatrix_{o}" for o in observables]
    )
    assert joint.covariance.shape == (len(joint.mean), len(joint.mean))
    assert len(data.read(pofx_data / "microboone/real_bins.txt")) == 138


def test_t2k_oxygen_carbon(pofx_data: Path) -> None:
    folder = pofx_data / "t2k/oxygen_carbon_2004.05434"
    result = folder / "linear_reg_results_C_nuisance.root"
    release = data.read_release(result, "LinResult", "covmatrixCbin", covariance_path=folder / "covmatrix_reg.root")
    assert release.mean.shape == (29,)
    assert np.diag(release.correlation) == pytest.approx(1)
    assert data.read(folder / "Binning.txt").arrays().x.shape == (29, 4)


def test_lhco_and_geant4(pofx_data: Path) -> None:
    path = pofx_data / "lhco/lhco_rd_signal_region.npz"
    with pytest.raises(FormatError, match=r"say which with key=: train .60000, 6., val"):
        data.read(path)
    events = data.read(path, key="train", context="train_0")
    assert len(events) == 60000
    assert events.arrays().x.dtype == np.float32
    calo = pofx_data / "geant4_calogan/gamma_1_20GeV.h5"
    for stream in (False, True):
        layers = ["layer_0", "layer_1", "layer_2"]
        showers = data.read(calo, key=[*layers, "energy"], context="energy", options=ReadOptions(stream=stream))
        assert [showers.spec[name].shape for name in layers] == [(1, 3, 96), (1, 12, 12), (1, 12, 6)]
        assert showers.context_spec is not None
        assert sum(len(e) for e in showers.train.shuffled(500)) == 6400
    crystals = data.read(pofx_data / "geant4_pbwo4/photon_1_20GeV.npz", context="energy")
    assert crystals.spec["showers"].shape == (1, 16, 16, 24)


def test_root_trees(pofx_data: Path) -> None:
    folder = pofx_data / "skhep"
    with pytest.raises(DataError, match=r"'Type' holds text.*columns='!Type'"):
        data.read(folder / "uproot-Zmumu.root")
    assert len(data.read(folder / "uproot-Zmumu.root", columns="!Type").names) == 19
    clouds = ReadOptions(clouds={"muons": ["Muon_Px", "Muon_Py"]})
    muons = data.read(folder / "uproot-HZZ.root", columns="muons", context="NMuon", options=clouds).arrays()
    np.testing.assert_array_equal(muons.mask.sum(1), muons.context.x[:, 0])
    ntuple = folder / "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"
    muons = data.read(
        ntuple, columns="mu", context="nMuon", options=ReadOptions(clouds={"mu": ["Muon_pt", "Muon_eta"]})
    ).arrays()
    np.testing.assert_array_equal(muons.mask.sum(1), muons.context.x[:, 0])
    for path in sorted(folder.glob("*.root")):
        assert "events" in str(data.describe(path)).lower()
