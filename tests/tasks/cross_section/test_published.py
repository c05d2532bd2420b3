"""Published measurements: the real files where ``POFX_DATA`` points to them, and files of every kind that are written here."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import uproot

from pofx.data.release import read_text_matrix
from pofx.errors import ConfigError, FormatError, ShapeError
from pofx.tasks.cross_section.covariance import Measured, analyse, bracket, scan
from pofx.tasks.cross_section.published import (
    OBSERVABLES,
    microboone_cc1munp,
    microboone_cc3d,
    t2k_joint,
    t2k_oxygen_carbon,
)

MEAN = np.array([1.0, 2.0, 4.0])
STAT = np.diag([0.01, 0.04, 0.09])
SYST = 0.01 * np.outer(MEAN, MEAN)

# ---------------------------------------------------------------------- files of a user


@pytest.fixture
def root_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.root"
    edges = np.array([0.0, 0.5, 1.0, 3.0])
    grid = np.arange(4.0)
    with uproot.recreate(path) as file:
        file["xsec"] = (MEAN * 1e-39, edges)
        file["first"], file["rest"] = (
            (MEAN[:1] * 1e-39, np.array([0.0, 1.0])),
            (MEAN[1:] * 1e-39, np.array([0.0, 1.0, 2.0])),
        )
        file["stat"], file["syst"] = (STAT * 1e-78, grid, grid), (SYST * 1e-78, grid, grid)
        file["smear"] = (np.array([[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0, 1.0]]), grid, grid)
    return path


def test_root(root_file: Path) -> None:
    found = Measured.read(root_file, mean="xsec", covariance=["stat", "syst"], smearing="smear", scale=1e39, unit="cm2")
    np.testing.assert_allclose(found.central, MEAN)
    np.testing.assert_allclose(found.covariance, STAT + SYST)
    np.testing.assert_allclose(found.smearing.sum(1), 1)
    assert found.names == ("xsec[0]", "xsec[1]", "xsec[2]")
    assert (found.unit, found.columns[0].unit) == ("cm2", "cm2")
    np.testing.assert_allclose(next(iter(found.edges.values())), [[0, 0.5], [0.5, 1], [1, 3]])
    parts = Measured.read(root_file, mean=["first", "rest"], covariance="stat", scale=1e39)
    np.testing.assert_allclose(parts.central, MEAN)
    assert parts.edges == {}
    with pytest.raises(ConfigError, match="needs the names of its mean and covariance"):
        Measured.read(root_file)
    with pytest.raises(ShapeError, match=r"expected covariances of shape \(2, 2\)"):
        Measured.read(root_file, mean="rest", covariance="stat")
    with pytest.raises(FormatError, match="no object is called 'xse'; did you mean 'xsec'"):
        Measured.read(root_file, mean="xse", covariance="stat")


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_arrays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine.{suffix}"
    arrays = {"central": MEAN, "covariance": STAT, "other": MEAN * 2, "smearing": np.eye(3), "cov3": STAT[:2]}
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
            file["bins"] = np.array(["a", "b", "c"], dtype=h5py.string_dtype())
            file["edges/p"] = np.array([[0, 1], [1, 2], [2, 3.0]])
            file.attrs["title"] = "mine"
    found = Measured.read(path)
    np.testing.assert_array_equal(found.covariance, STAT)
    np.testing.assert_array_equal(found.smearing, np.eye(3))
    assert found.names == (("a", "b", "c") if suffix == "h5" else ("bin0", "bin1", "bin2"))
    assert list(found.edges) == (["p"] if suffix == "h5" else [])
    np.testing.assert_array_equal(Measured.read(path, mean="other").central, MEAN * 2)
    with pytest.raises(FormatError, match="there is no array 'centra'; did you mean 'central'"):
        Measured.read(path, mean="centra")
    with pytest.raises(ShapeError, match="'covariance' to have 1 axes"):
        Measured.read(path, mean="covariance")
    with pytest.raises(ShapeError):
        Measured.read(path, covariance="cov3")


def test_text(tmp_path: Path) -> None:
    (tmp_path / "xsec.csv").write_text(
        'bin,unit,p_low,p_high,xsec,error\na,cm2,0,1,1,0.1\nb,cm2,1,2,2,0.2\n"c,d",cm2,2,3,4,0.3\n'
    )
    (tmp_path / "covariance.csv").write_text(
        'a,b,"c,d"\n' + "\n".join(",".join(map(repr, row)) for row in STAT.tolist())
    )
    found = Measured.read(tmp_path / "xsec.csv", mean="xsec")
    assert found.names == ("a", "b", "c,d")
    assert found.unit == "cm2"
    np.testing.assert_array_equal(found.central, MEAN)
    np.testing.assert_array_equal(found.covariance, STAT)
    np.testing.assert_array_equal(found.edges["p"], [[0, 1], [1, 2], [2, 3]])
    with pytest.raises(FormatError, match="no column 'central'; there are: bin"):
        Measured.read(tmp_path / "xsec.csv")
    with pytest.raises(FormatError, match=r"column 'bin': could not convert"):
        Measured.read(tmp_path / "xsec.csv", mean="bin")
    (tmp_path / "plain.txt").write_text("# p  sigma\n0.5 1.0\n1.5 2.0\n2.5 4.0\n")
    plain = Measured.read(tmp_path / "plain.txt", mean="1", covariance="covariance.csv", scale=10)
    np.testing.assert_array_equal(plain.central, 10 * MEAN)
    np.testing.assert_allclose(plain.covariance, 100 * STAT)
    assert plain.names == ("bin0", "bin1", "bin2")


def test_several_files(root_file: Path) -> None:
    (root_file.parent / "mean.csv").write_text("central\n1\n2\n4\n")
    found = Measured.read(root_file.parent / "mean.csv", covariance=["mine.root:stat"])
    np.testing.assert_allclose(found.covariance, STAT * 1e-78)
    with pytest.raises(FormatError, match="no such file"):
        Measured.read(root_file.parent / "mean.csv", covariance="absent.txt")


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("form", ["{} - {} | {!r}", "{} {} {!r}", "{},{},{!r}"])
def test_text_matrices_of_pairs(tmp_path: Path, start: int, whole: bool, form: str) -> None:
    matrix = STAT + SYST - 0.2
    pairs = [(i, j) for i in range(3) for j in range(3) if whole or i <= j]
    lines = [form.format(i + start, j + start, float(matrix[i, j])) for i, j in pairs]
    path = tmp_path / "covariance.txt"
    path.write_text("bin i - bin j | covariance\n" + "\n".join(lines) + "\n")
    np.testing.assert_array_equal(read_text_matrix(path), matrix)
    path.write_text("\n".join(lines[:-1]))
    assert read_text_matrix(path).shape == (len(lines) - 1, 3)  # a table then, and no covariance


def test_text_matrices_as_tables(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text("// edges\n0 1\t2.5 # comment\n\n3 4 5e-1\n6 7 8\n")
    np.testing.assert_array_equal(read_text_matrix(path), [[0, 1, 2.5], [3, 4, 0.5], [6, 7, 8]])
    path.write_text("1 2\n3\n")
    with pytest.raises(FormatError, match=r"lengths \[1, 2\]"):
        read_text_matrix(path)
    path.write_text("only words\n")
    with pytest.raises(FormatError, match="none at all"):
        read_text_matrix(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        Measured.read(tmp_path / "absent.h5")
    (tmp_path / "damaged.root").write_bytes(b"root" + bytes(100))
    with pytest.raises(FormatError):
        Measured.read(tmp_path / "damaged.root", mean="a", covariance="b")
    np.save(tmp_path / "a.npy", MEAN)
    with pytest.raises(FormatError, match="this is npy"):
        Measured.read(tmp_path / "a.npy")


# ---------------------------------------------------------------------- real releases


@pytest.mark.data
def test_t2k_joint(pofx_data: Path) -> None:
    found = t2k_joint(pofx_data / "t2k")
    assert len(found) == 116
    assert found.spectrum().rank == 116
    assert found.names[0] == "numu_cos_-1_0.2_p_0_30"
    assert found.names[58 + 1] == "numubar_cos_0.2_0.6_p_0_0.3"
    assert found.names[-1] == "numubar_cos_0.98_1_p_5_30"
    np.testing.assert_array_equal(found.edges["p"][:58], found.edges["p"][58:])
    width = np.diff(found.edges["cos"][:58], axis=1)[:, 0] * np.diff(found.edges["p"][:58], axis=1)[:, 0]
    assert 3.5 < (found.central[:58] * width).sum() < 5.5  # 1e-39 cm2 per nucleon
    relative = found.relative_errors()
    assert (relative.min(), relative.max()) == pytest.approx((0.099, 0.910), abs=0.001)


@pytest.mark.data
@pytest.mark.parametrize("regularised", [True, False])
def test_t2k_oxygen_carbon_agrees_with_the_table_of_the_release(pofx_data: Path, regularised: bool) -> None:
    folder = pofx_data / "t2k/oxygen_carbon_2004.05434"
    found = t2k_oxygen_carbon(folder, regularised)
    table = np.loadtxt(folder / f"cc0pi_xsec_O-C-ratio_{'reg' if regularised else 'noreg'}.txt")
    np.testing.assert_allclose(found.central, np.concatenate([table[:, 1], table[:, 3]]), atol=6e-4)
    np.testing.assert_allclose(found.errors, np.concatenate([table[:, 2], table[:, 4]]), atol=6e-4)
    assert found.names[29] == "carbon_cos_-1_0_p_0_30"
    assert found.spectrum().rank == 58


@pytest.mark.data
def test_microboone_cc3d_is_singular_where_its_smearing_is(pofx_data: Path) -> None:
    found = microboone_cc3d(pofx_data / "microboone")
    assert len(found) == 138
    assert found.names[-1] == "E_1.57_4_cos_0.94_1_p_1.6_2.5"
    spectrum = found.spectrum()
    (empty,) = spectrum.empty()
    left = np.linalg.svd(found.smearing)[0][:, -1] * found.errors
    assert abs(empty.vector @ left) / np.linalg.norm(left) == pytest.approx(1, abs=1e-6)
    report = analyse(found, toys=1000)
    assert sum("Empty direction" in line for line in report.statements) == 1
    assert report.lognormal is not None
    assert report.lognormal.left_out
    folded = bracket(found, {"true": 0.9 * found.central}, toys=500)[0]
    assert folded.at_least < 1  # smeared predictions have nothing in the empty direction
    wrong = bracket(found, {"unsmeared": found.central * np.linspace(0.9, 1.1, 138)}, toys=500, smeared=True)
    assert wrong[0].at_least > 1e6
    assert any("excluded" in note.lower() for note in wrong.notes)
    assert any("nearly empty directions" in note for note in wrong.notes)
    steps = scan(found, found.central * 0.9, [1e-12, 1e-6], smeared=True)
    assert steps[0]["rank"] == 137
    assert steps[1]["chi2"] < steps[0]["chi2"]


@pytest.mark.data
@pytest.mark.parametrize("observable", OBSERVABLES)
def test_microboone_cc1munp(pofx_data: Path, observable: str) -> None:
    found = microboone_cc1munp(pofx_data / "microboone", observable)
    assert found.spectrum().rank == len(found)
    (edges,) = found.edges.values()
    width = edges[:, 1] - edges[:, 0]
    flat = found.smeared(np.ones((1, len(found))))[0]
    assert flat @ width == pytest.approx(width.sum())  # folding keeps the integral
    assert "40 times" in " ".join(found.notes)
    truth = np.zeros((1, len(found)))
    truth[0, 2] = 1.0
    assert int((found.smeared(truth)[0] * width).argmax()) == 2  # most events stay where they are


@pytest.mark.data
def test_folders_and_conventions(pofx_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POFX_DATA", str(pofx_data))
    np.testing.assert_array_equal(t2k_joint().central, t2k_joint(pofx_data / "t2k").central)
    with pytest.raises(ConfigError, match="one of mumom, muangle"):
        microboone_cc1munp(observable="energy")


def test_readers_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POFX_DATA", raising=False)
    for reader in (t2k_joint, t2k_oxygen_carbon, microboone_cc3d, microboone_cc1munp):
        with pytest.raises(ConfigError, match="POFX_DATA"):
            reader()
        with pytest.raises(FormatError, match="no such file"):
            reader(tmp_path)


def test_a_t2k_like_file_whose_slices_disagree(tmp_path: Path) -> None:
    """Edges come from slices, the covariance belongs to the linear result: both must list the same numbers."""
    grid, edges = np.arange(19.0), np.array([0.0, 0.5, 30.0])
    path = tmp_path / "JointNuMuAntiNuMuCC0piXsecDataRelease.root"
    values = np.linspace(1, 2, 18) * 1e-39
    with uproot.recreate(path) as file:
        for flavour in ("NuMu", "AntiNuMu"):
            file[f"h{flavour}CC0piXsecLinearResult"] = (values, grid)
            for k in range(9):
                wrong = 1.5 if (flavour, k) == ("AntiNuMu", 3) else 1.0
                file[f"hXsec{flavour}CC0piDataSlice_{k}"] = (values[2 * k : 2 * k + 2] * wrong, edges)
        for part in ("Stat", "Syst"):
            file[f"JointNuMuAntiNuMuCC0piXsecCovMatrix{part}"] = (np.eye(36) * 1e-80, np.arange(37.0), np.arange(37.0))
    with pytest.raises(FormatError, match="bin 24 is"):
        t2k_joint(tmp_path)
