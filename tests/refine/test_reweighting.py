"""Learnt weights against known ratios of densities."""

import numpy as np
import pytest
from scipy import stats

import pofx
from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ColumnError, ConfigError, DataError, ShapeError
from pofx.refine.reweighting import Reweighting, reweight

SETTINGS = Reweighting(PolynomialClassifier(directions=0, penalty=1.0), folds=2)
"""The logarithm of a ratio of Gaussians is a polynomial, so this classifier can be right."""

SHIFT = 0.7


def gaussians(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal, and shifted along the first of two columns."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal([SHIFT, 0.0], 1.0, (n, 2))


@pytest.mark.parametrize("calibration", ["temperature", "isotonic", "none"])
def test_gaussian_ratio_is_found(calibration: str) -> None:
    q, p = gaussians(8000, 1)
    found = reweight(q, p, settings=Reweighting(SETTINGS.classifier, 2, calibration), seed=1)
    x = np.random.default_rng(2).normal(size=(5000, 2))
    off = np.log(found.weights(x)) - (SHIFT * x[:, 0] - SHIFT**2 / 2)
    assert np.sqrt(np.mean(off**2)) < (0.25 if calibration == "isotonic" else 0.12)
    assert found.weight.mean() == pytest.approx(1.0)
    assert found.clipped == 0.0
    slack = 4 * found.ess.share_error + (
        0.06 if calibration == "isotonic" else 0.03
    )  # that of the classifier beside that of the events
    assert abs(found.ess.share - np.exp(-(SHIFT**2))) < slack


def test_exponential_closes_and_unweights() -> None:
    rng = np.random.default_rng(3)
    q, p = rng.exponential(1.0, (8000, 1)), rng.exponential(0.7, (8000, 1))  # w = exp(-3 x / 7) / 0.7, at most 1 / 0.7
    found = reweight(q, p, settings=SETTINGS, seed=1)
    new = rng.exponential(1.0, (8000, 1))
    w = found.weights(new)
    mean, error = np.average(new[:, 0], weights=w), 0.7 / np.sqrt(len(p))  # the truth's own events limit it
    assert abs(mean - 0.7) < 4 * np.hypot(error, 1.0 / np.sqrt(len(q)))
    taken = found.unweight(new, seed=1, overweight=0.001)
    assert stats.kstest(new[taken.index, 0], stats.expon(scale=0.7).cdf).pvalue > 0.01
    assert abs(taken.efficiency - 0.7) < 0.07  # 1 / w_max
    again = found.unweight(new[:100], seed=1, overweight=0.001)
    assert again.index.tolist() == taken.index[taken.index < 100].tolist()


def test_context_is_part_of_the_ratio() -> None:
    rng = np.random.default_rng(4)
    c = rng.normal(size=(8000, 1))
    q, p = rng.normal(size=(8000, 1)), 0.6 * c + rng.normal(size=(8000, 1))
    found = reweight(q, p, c, c, settings=SETTINGS, seed=1)  # powers have no product of columns but along a diagonal
    sharper = reweight(q, p, c, c, settings=Reweighting(PolynomialClassifier(directions=8, penalty=1.0), 2), seed=1)
    x = rng.normal(size=(4000, 1))
    truth = 0.6 * c[:4000, 0] * x[:, 0] - 0.18 * c[:4000, 0] ** 2
    rms = [np.sqrt(np.mean((np.log(each.weights(x, c[:4000])) - truth) ** 2)) for each in (found, sharper)]
    assert rms[1] < 0.2 < rms[0]


def test_a_model_draws_for_the_truth() -> None:
    truth = np.random.default_rng(5).exponential(size=(3000, 1))
    model = pofx.Gaussian(preprocess="affine").fit(truth)
    first, second = (reweight(model, truth, settings=SETTINGS, seed=1).weight for _ in range(2))
    assert len(first) == 3000
    assert (first == second).all()
    with pytest.raises(ConfigError, match="contexts of the truth"):
        reweight(model, truth, weight=np.ones(3000))


def test_weights_of_events_count_and_clipping_is_reported() -> None:
    q, p = gaussians(6000, 6)
    true = np.exp(SHIFT * q[:, 0] - SHIFT**2 / 2)
    done = reweight(q, p, weight=true, settings=SETTINGS, seed=1)  # nothing is left to do
    assert np.sqrt(np.mean(np.log(done.weights(q)) ** 2)) < 0.12
    short = reweight(q, p, settings=Reweighting(SETTINGS.classifier, 2, clip=2.0), seed=1)
    assert short.weight.max() == 2.0
    assert short.clipped == pytest.approx(1.0 - short.weight.mean())


def test_mistakes_are_named() -> None:
    q, p = gaussians(40, 7)
    with pytest.raises(ShapeError, match="equal columns"):
        reweight(q, p[:, :1])
    with pytest.raises(DataError, match="at least 100 events"):
        reweight(q, p, settings=Reweighting("trees", folds=10))
    with pytest.raises(ShapeError, match="expected 40 rows"):
        reweight(q, p, p[:3], p)
    with pytest.raises(ConfigError, match="calibration"):
        Reweighting(calibration="platt")


def test_columns_are_matched_by_name() -> None:
    rng = np.random.default_rng(9)
    made, truth = ({"p": rng.normal(shift, 1.0, 400), "q": rng.normal(5.0, 2.0, 400)} for shift in (0.0, 1.0))
    turned = pofx.Dataset.from_arrays({name: truth[name] for name in ("q", "p")})
    settings = Reweighting("trees", folds=2)
    one = reweight(made, truth, settings=settings, seed=1)
    two = reweight(made, turned, settings=settings, seed=1)
    new = {"p": np.array([0.0, 1.0]), "q": np.array([5.0, 5.0])}
    assert [column.name for column in two.columns] == ["q", "p"]
    for found in (one, two):
        assert found.weights(new)[0] < found.weights(new)[1]
        assert found.weights({"q": new["q"], "p": new["p"]}).tolist() == found.weights(new).tolist()
    with pytest.raises(ColumnError, match="only truth has r and only generated has q"):
        reweight(made, {"p": truth["p"], "r": truth["q"]}, settings=settings)
    with pytest.raises(ColumnError, match="only x has r"):
        one.weights({"p": new["p"], "r": new["q"]})
