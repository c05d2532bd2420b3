"""Metrics: the exact truth passes, wrong surrogates fail, areas and ratios have the right errors, and the band grows where it should."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special

from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ColumnError, DataError
from pofx.metrics.calibration import pit
from pofx.metrics.scores import area, scored
from pofx.simulators.task_toys.tagger import Tagger
from pofx.tasks.classifier_surrogate.data import Tagged
from pofx.tasks.classifier_surrogate.metrics import (
    Known,
    density_pulls,
    growth,
    judge,
    outside,
    placements,
    quantile_test,
    separation,
    told_apart,
)
from pofx.tasks.classifier_surrogate.surrogate import Surrogate, bayesian_family, default_training, fit_tagged
from pofx.uncertainty.band import Band

from .jets import toy_jets


@dataclass(frozen=True)
class Shifted(Known):
    """The truth with its logits moved."""

    by: float = 0.0

    def sample(self, features, *, seed):
        return special.expit(special.logit(super().sample(features, seed=seed)) + self.by)

    def cdf(self, features, scores):
        return super().cdf(features, special.expit(special.logit(scores) - self.by))


def test_the_truth_passes_and_a_shift_does_not() -> None:
    jets = toy_jets(1500, 11)
    found = judge(Known(Tagger()), jets, seed=1, classifier=PolynomialClassifier())
    assert found.c2st.p_value > 0.01
    assert found.calibration.p_value > 0.01
    assert found.separation is not None
    assert abs(found.separation.difference.value) < 4 * found.separation.difference.error
    wrong = pit(Shifted(Tagger(), 0.4).cdf(jets.features, jets.scores))
    assert wrong.diagnosis().startswith("biased high")
    assert told_apart(Shifted(Tagger(), 1.5), jets, classifier=PolynomialClassifier(), splits=1).p_value < 0.01


def test_calibration_of_the_truth_over_seeds() -> None:
    """p-values of ten independent sets are uniform: none below 0.01/10, and not all on one side."""
    p = [pit(Known(Tagger()).cdf(j.features, j.scores)).p_value for j in (toy_jets(500, 100 + k) for k in range(10))]
    assert min(p) > 0.001
    assert 0.05 < np.mean(p) < 0.95


def test_area_difference_is_paired() -> None:
    """Its error is the scatter over data sets; shared jets make it smaller than that of two independent areas."""
    found = [separation(Known(Tagger()), toy_jets(600, 200 + k), seed=k) for k in range(40)]
    differences = np.array([f.difference.value for f in found])
    stated = np.sqrt(np.mean([f.difference.error**2 for f in found]))
    assert differences.std() == pytest.approx(stated, rel=0.35)
    assert abs(differences.mean()) < 4 * stated / np.sqrt(40)
    assert stated < np.hypot(found[0].true.error, found[0].surrogate.error)


def test_placements_are_those_of_the_area() -> None:
    rng = np.random.default_rng(1)
    s, label, w = rng.integers(0, 6, 200) / 6.0, rng.random(200) < 0.4, rng.uniform(0.5, 2, 200)
    v = placements(s, label, w)
    wanted = area(scored(s, label, w)).value
    for rows in (label, ~label):
        assert np.average(v[rows], weights=w[rows]) == pytest.approx(wanted, abs=1e-12)


def test_growth_of_known_bands() -> None:
    """Over many pairs of bands, pulls of the ratio have unit width."""
    rng, pulls = np.random.default_rng(2), []
    for _ in range(200):
        found = growth(Band(rng.normal(size=(20, 30))), Band(2.5 * rng.normal(size=(20, 30))))
        pulls.append((found.value - 2.5) / found.error)
    assert abs(np.mean(pulls)) < 0.3
    assert 0.75 < np.std(pulls) < 1.25


def test_small_surrogate_is_judged(small: Surrogate) -> None:
    jets = toy_jets(600, 12)
    found = judge(small, jets, seed=1, classifier=PolynomialClassifier())
    exact = -Known(Tagger()).log_prob(jets.features, jets.scores).mean()
    assert found.nll.value - exact < 0.1
    assert found.separation is not None
    assert found.separation.posterior is not None
    assert abs(found.separation.difference.value) < 0.05
    pulls, relative = density_pulls(small, jets, Tagger().log_prob)
    assert pulls.shape == relative.shape == (600,)
    curve = quantile_test(small, jets.take(np.arange(200)))
    direct = pit(small.cdf(jets.features[:200], jets.scores[:200]))
    assert abs(curve.bias.value - direct.bias.value) < 0.05


def test_refusals(small: Surrogate) -> None:
    jets = toy_jets(50, 13)
    with pytest.raises(DataError, match="needs labels"):
        separation(Known(Tagger()), Tagged.of(jets.features, jets.scores))
    with pytest.raises(ColumnError, match="no feature is called 'phi'"):
        outside(small, jets.features, "phi")
    moved = outside(small, jets.features, "pt", 0.5)
    low, high = small.trained_range["pt"]
    np.testing.assert_allclose(moved[:, 0], high + 0.5 * (high - low))
    np.testing.assert_array_equal(moved[:, 1:], jets.features[:, 1:])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")
def test_the_band_grows() -> None:
    """With an eighth of the jets, and beyond the momenta that were trained with."""
    family = bayesian_family(draws=20)
    training = default_training(800, seed=1).replace(progress=False)
    jets, asked = toy_jets(8000, 21), toy_jets(400, 22).features
    many, few = (fit_tagged(part, family=family, training=training) for part in (jets, jets.take(np.arange(1000))))
    inside = many.median_band(asked)
    fewer, away = growth(inside, few.median_band(asked)), growth(inside, many.median_band(outside(many, asked, "pt")))
    assert fewer.value - 2 * fewer.error > 1.2
    assert away.value - 2 * away.error > 1.0
