"""What a mean and a covariance allow to say, against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, ShapeError
from pofx.simulators.densities import Lognormal, t2k_like
from pofx.tasks.cross_section.covariance import UNTESTABLE, Measured, analyse, bracket, scan

SIZES = np.array([1e-39, 3e-38, 2.0, 5.0, 1.0])


def consistent(p, expected):
    """A share of throws against its exact probability: within the central 99.99 % interval."""
    low, high = stats.binom.interval(0.9999, p.trials, expected)
    return low <= p.count <= high


def singular(central=None):
    """Five bins of very different sizes; the third is the sum of the first two, in units of their sizes, the last two are proportional."""
    rng = np.random.default_rng(3)
    root = rng.normal(0, 0.1, (3, 3))
    relation = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 2]], float)
    covariance = relation @ root @ root.T @ relation.T * np.outer(SIZES, SIZES)
    mean = np.array([1, 1, 2, 3, 6]) * SIZES if central is None else central
    return Measured(mean, covariance, tuple(Column(name) for name in "abcde"))


def test_empty_directions_are_found_and_named():
    measured = singular()
    found = analyse(measured, toys=100)
    assert found.spectrum.rank == 3
    assert len(found.empty) == 2
    e = measured.errors
    truth = (
        np.stack([np.array([1, 1, -1, 0, 0]) / SIZES, np.array([0, 0, 0, 2, -1]) / SIZES]) * e
    )  # null vectors of C times the errors
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    vectors = np.stack([direction.vector for direction in found.empty])
    np.testing.assert_allclose(np.linalg.svd(truth @ vectors.T)[1], 1.0, atol=1e-10)  # the same plane
    named = {name for direction in found.empty for name, _ in direction.bins}
    assert named == set("abcde")
    assert any("rank 3 of 5" in line for line in found.statements)
    assert sum("Empty direction" in line for line in found.statements) == 2
    assert found.statements[0] == UNTESTABLE


def test_a_bin_without_error_is_an_empty_direction():
    measured = Measured([1.0, 2.0], [[0.04, 0], [0, 0]])
    found = analyse(measured, toys=100)
    (direction,) = found.empty
    assert direction.bins == (("bin1", 1.0),)
    row = bracket(measured, {"shifted": [1.2, 2.2]}, toys=100)[0]
    assert row.chi2 == pytest.approx(1.0)
    assert (row.ndf, row.empty) == (1, 1)
    assert row.outside == pytest.approx(0.1)  # of the central value, for lack of an error


def test_rank_and_condition_of_a_regular_covariance():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T
    measured = Measured(np.full(6, 50.0), covariance * 1e-78)
    found = analyse(measured, toys=10)
    error = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(error, error)
    np.testing.assert_allclose(found.spectrum.values, np.linalg.svd(correlation)[1][::-1])
    assert found.spectrum.condition == pytest.approx(np.linalg.cond(correlation))
    assert found.spectrum.rank == 6
    assert found.empty == ()


def test_rounded_covariances_raise_the_tolerance_and_impossible_ones_are_refused():
    rng = np.random.default_rng(5)
    root = rng.normal(size=(8, 4))
    exact = root @ root.T
    rounded = np.float32(exact).astype(float)
    spectrum = Measured(np.ones(8), rounded).spectrum()
    assert np.linalg.eigvalsh(rounded)[0] < -1e-9
    assert spectrum.rank == 4
    with pytest.raises(DataError, match=r"not a covariance.*eigenvalue -0\.5"):
        analyse(Measured([1, 1], [[1, 1.5], [1.5, 1]]))
    assert Measured([1, 1], [[1, 1.5], [1.5, 1]]).spectrum(0.5).rank == 1


def test_shares_below_zero_are_those_of_the_normal_law():
    measured = Measured([1.0, 0.5, -0.2], np.diag([0.25, 0.25, 0.04]))
    found = analyse(measured, toys=20_000, seed=2)
    exact = stats.norm.cdf([-2.0, -1.0, 1.0])
    np.testing.assert_allclose(found.exact_by_bin, exact)
    assert all(consistent(p, q) for p, q in zip(found.below_zero_by_bin, exact, strict=True))
    assert consistent(found.below_zero, 1 - np.prod(1 - exact))
    assert any("1 central values are not positive" in line for line in found.statements)


def test_the_gaussian_p_value_is_that_of_chi2():
    truth = t2k_like()
    mean, covariance = (part[..., :20] for part in truth.moments())
    measured = Measured(mean, covariance[:20])
    predictions = {"near": mean + 0.5 * measured.errors, "far": mean * np.linspace(0.9, 1.2, 20)}
    found = bracket(measured, predictions, toys=20_000, seed=1)
    for row in found:
        offset = predictions[row.name] - mean
        chi2 = offset @ np.linalg.solve(covariance[:20], offset)
        assert row.chi2 == pytest.approx(chi2, rel=1e-9)
        assert row.p_chi2 == pytest.approx(stats.chi2.sf(chi2, 20))
        assert consistent(row.p_gaussian, row.p_chi2)
        assert (row.empty, row.outside, row.at_least) == (0, 0, 0)


def test_the_lognormal_p_value_of_independent_bins_against_quadrature():
    """One bin: the p-value is the probability of a lower density, which has a closed form; two bins: a grid."""
    mean, variance = np.array([1.0]), np.array([[0.5]])
    row = bracket(Measured(mean, variance), {"low": [0.3]}, toys=40_000, seed=4)[0]
    scale = np.log1p(0.5)
    law = stats.lognorm(np.sqrt(scale), scale=np.exp(-scale / 2))
    mode = np.exp(-scale / 2 - scale)
    high = mode**2 / 0.3  # the density is symmetric about log(mode) in log x, up to the factor that makes it its mode
    assert law.pdf(high) == pytest.approx(law.pdf(0.3))
    assert consistent(row.p_lognormal, law.cdf(0.3) + law.sf(high))
    assert row.p_chi2 == pytest.approx(2 * stats.norm.sf(0.7 / np.sqrt(0.5)))

    measured = Measured([1.0, 2.0], np.diag([0.3, 0.8]))
    exact = Lognormal.from_moments(measured.central, measured.covariance)
    row = bracket(measured, {"high": [2.0, 0.8]}, toys=40_000, seed=5)[0]
    u = (np.arange(600) + 0.5) / 600
    s = np.log1p(np.array([0.3, 0.8 / 4]))
    x = [stats.lognorm(np.sqrt(si), scale=m * np.exp(-si / 2)).ppf(u) for si, m in zip(s, (1.0, 2.0), strict=True)]
    logp = exact.log_prob(np.stack(np.meshgrid(*x, indexing="ij"), -1).reshape(-1, 2))
    assert consistent(row.p_lognormal, (logp <= exact.log_prob([[2.0, 0.8]])[0]).mean())
    assert (row.low, row.high) == (min(row.p_there, row.p_lognormal.value), max(row.p_there, row.p_lognormal.value))


def test_a_negative_prediction_is_impossible_for_a_lognormal():
    row = bracket(Measured([1.0, 2.0], np.diag([0.3, 0.8])), [[-0.1, 2.0]], toys=1000)[0]
    assert row.p_lognormal.count == 0
    assert row.p_lognormal.upper_limit() == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert row.p_gaussian.count > 0


def test_a_lognormal_of_all_bins_has_the_published_moments():
    truth = t2k_like()
    mean, covariance = truth.moments()
    found = analyse(Measured(mean, covariance), toys=10).lognormal
    assert found.complete
    matched_mean, matched_covariance = found.density.moments()
    np.testing.assert_allclose(matched_mean, mean)
    np.testing.assert_allclose(matched_covariance, covariance, rtol=1e-9)
    assert found.weakest > 0.1


def test_bins_for_which_no_lognormal_exists_fall_back():
    anticorrelated = Measured([1.0, 1.0, 1.0], [[1.44, -1.2, 0], [-1.2, 1.21, 0], [0, 0, 0.09]])  # 1 + cov/(m m) = -0.2
    found = analyse(anticorrelated, toys=10)
    assert found.lognormal.reason == "1 + cov/(mean mean) is -0.2 for bin0 and bin1"
    assert 2 in found.lognormal.logarithmic  # the best measured bin comes first
    assert set(found.lognormal.logarithmic) != {0, 1, 2}
    assert set(found.lognormal.bins) | set(found.lognormal.left_out) == {0, 1, 2}
    assert any("No lognormal of all bins exists" in line for line in found.statements)
    part = anticorrelated.marginal(found.lognormal.bins)
    mean, covariance = found.lognormal.density.moments()
    np.testing.assert_allclose(mean, part.central)
    np.testing.assert_allclose(covariance, part.covariance)
    row = bracket(anticorrelated, [1.1, 1.0, 1.3], toys=100)[0]
    assert row.bins == len(found.lognormal.bins)
    expected = (np.array([1.1, 1.0, 1.3]) - 1)[list(found.lognormal.bins)]
    assert row.chi2_there == pytest.approx(expected @ np.linalg.solve(part.covariance, expected))


def test_no_bracket_where_errors_are_small_or_means_negative():
    precise = analyse(Measured([1.0, 2.0], np.diag([1e-4, 1e-4])), toys=10)
    assert precise.lognormal is None
    assert "agree" in precise.statements[-1]
    negative = Measured([-1.0, -2.0], np.diag([0.1, 0.1]))
    assert analyse(negative, toys=10).lognormal is None
    row = bracket(negative, [-1.0, -2.0], toys=10)[0]
    assert row.p_lognormal is None
    assert (row.low, row.high) == (row.p_there, row.p_there)


def test_singular_chi2_by_three_routes():
    measured = singular()
    inside = measured.central + measured.covariance @ (np.array([3.0, -2.0, 1.0, 2.0, 1.0]) / SIZES)
    chi2 = (inside - measured.central)[[0, 1, 3]]
    chi2 = chi2 @ np.linalg.solve(measured.covariance[np.ix_([0, 1, 3], [0, 1, 3])], chi2)
    pseudo = bracket(measured, {"inside": inside}, toys=2000)
    dropped = bracket(measured, {"inside": inside}, toys=2000, singular="drop")
    for found in (pseudo, dropped):
        assert found[0].chi2 == pytest.approx(chi2, rel=1e-6)
        assert (found[0].ndf, found[0].empty) == (3, 2)
        assert found[0].at_least < 1e-3
        assert any("rank 3 of 5" in note for note in found.notes)
    assert pseudo[0].bins == 3  # the lognormal: without the redundant bins
    assert pseudo[0].chi2_there == pytest.approx(chi2, rel=1e-6)
    assert any("Left out, because they follow from the others" in note for note in dropped.notes)
    with pytest.raises(DataError, match="singular: rank 3 of 5; empty: "):
        bracket(measured, {"inside": inside}, toys=10, singular="refuse")
    with pytest.raises(ConfigError, match="pseudo-inverse, drop or refuse"):
        bracket(measured, {"inside": inside}, toys=10, singular="whatever")


def test_components_along_empty_directions_are_reported():
    measured = singular()
    e = measured.errors
    null = np.array([1, 1, -1, 0, 0]) / SIZES * e
    null /= np.linalg.norm(null)
    outside = measured.central + 0.3 * null * e
    found = bracket(measured, {"outside": outside}, toys=10)
    assert found[0].outside == pytest.approx(0.3)
    assert found[0].chi2 == pytest.approx(0.0, abs=1e-6)
    assert found[0].at_least == pytest.approx(0.09 / measured.spectrum().tolerance)
    assert any(
        "deviates by 0.3 errors along directions in which the measurement does not vary" in n for n in found.notes
    )


def test_predictions_are_smeared_once():
    matrix = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.0]])
    measured = Measured([1.0, 2.0], np.diag([0.01, 0.04]), smearing=matrix)
    x = np.array([1.0, 2.5, 0.5])
    by_release = bracket(measured, {"x": x}, toys=50)
    by_hand = bracket(measured, {"x": matrix @ x}, toys=50, smeared=True)
    assert by_release[0].chi2 == pytest.approx(by_hand[0].chi2)
    assert "multiplied by the release's smearing matrix" in by_release.notes[1]
    assert "taken as smeared already" in by_hand.notes[1]
    with pytest.raises(ShapeError, match=r"expected 3 bins, as the measurement has; got 2"):
        bracket(measured, {"x": matrix @ x}, toys=50)


def test_scan_over_tolerances():
    measured = Measured([1.0, 1.0], [[1.0, 0.999], [0.999, 1.0]])
    rows = scan(measured, {"p": [1.5, 0.5]}, [1e-12, 1e-2])
    assert [row["rank"] for row in rows] == [2, 1]
    assert rows[0]["chi2"] == pytest.approx(0.5 / 0.001)
    assert rows[1]["chi2"] == pytest.approx(0.0, abs=1e-12)


def test_results_are_reproducible_and_independent_of_their_company():
    truth = t2k_like()
    measured = Measured(*truth.moments())
    x = measured.central * 1.1
    alone, beside = (
        bracket(measured, {"x": x}, toys=500, seed=3),
        bracket(measured, {"y": x * 2, "x": x}, toys=500, seed=3),
    )
    assert alone[0] == beside[1]
    assert bracket(measured, {"x": x}, toys=500, seed=4)[0] != alone[0]


def test_notes_and_names_of_edges_as_people_give_them():
    made = Measured([1.0], [[1.0]], notes="one sentence", edges={"p/GeV": np.array([[0.0, 1.0]])})
    assert made.notes == ("one sentence",)
    assert list(made.edges) == ["p_GeV"]


def test_tables_in_words():
    text = str(bracket(singular(), {"nominal": singular().central}, toys=100))
    assert text.splitlines()[0].split()[:4] == ["prediction", "chi2", "/", "ndf"]
    assert UNTESTABLE in text
    assert "leaves 2 direction(s) out" in text
    assert "5 bins" in str(analyse(singular(), toys=10))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([1.0, 2.0], np.eye(3)), ShapeError, r"covariance: expected shape \(2, 2\)"),
        (([1.0, np.nan], np.eye(2)), NonFiniteError, r"central: NaN or infinity at \(1,\)"),
        (([1.0, 2.0], [[1, 0.5], [0.2, 1]]), DataError, "not symmetric; between bins 0 and 1"),
        (([1.0, 2.0], [[-1, 0], [0, 1]]), DataError, "bin 0 has the variance -1"),
        (([1.0, 2.0], np.eye(2), (Column("a"),)), ShapeError, "columns: expected 2"),
        (([1.0, 2.0], np.eye(2), (Column("a"), Column("a"))), ColumnError, "'a' is there more than once"),
        (([1.0, 2.0], np.eye(2), (), np.eye(3)), ShapeError, "smearing: expected 2 rows"),
        (([], np.zeros((0, 0))), ShapeError, r"central: expected shape \(bins,\)"),
    ],
)
def test_unusable_measurements(arguments, error, match):
    with pytest.raises(error, match=match):
        Measured(*arguments)


@pytest.mark.parametrize(
    ("predictions", "error", "match"),
    [
        ({"a": [1.0, 2.0, 3.0]}, ShapeError, "prediction 'a': expected 2 bins, as the measurement has; got 3"),
        ([[1.0, np.inf]], NonFiniteError, "predictions"),
        ({}, DataError, "at least one"),
        ({"a": [[1.0, 2.0]]}, ShapeError, r"prediction 'a': expected shape \(bins,\)"),
    ],
)
def test_unusable_predictions(predictions, error, match):
    with pytest.raises(error, match=match):
        bracket(Measured([1.0, 2.0], np.eye(2)), predictions, toys=10)


@pytest.mark.parametrize("options", [{"toys": 0}, {"toys": 2.5}, {"tolerance": 1.0}, {"tolerance": -1e-3}])
def test_unusable_options(options):
    with pytest.raises(ConfigError):
        analyse(Measured([1.0, 2.0], np.eye(2)), **options)
