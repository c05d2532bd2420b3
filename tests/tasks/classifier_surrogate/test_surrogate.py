"""The surrogate: its distribution function, density, quantiles and samples agree; it is saved; wrong input is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, special, stats

import pofx
from pofx.errors import ArtefactError, CapabilityError, ColumnError, ConfigError, RangeWarning, ShapeError
from pofx.tasks.classifier_surrogate.baselines import BinnedTagger, gaussian_logit
from pofx.tasks.classifier_surrogate.data import Tagged
from pofx.tasks.classifier_surrogate.surrogate import Surrogate, bayesian_family, fit_surrogate, fit_tagged

from .jets import toy_jets

JETS = toy_jets(40, 5)


def test_density_is_the_slope_of_the_distribution_function(small: Surrogate) -> None:
    jet = JETS.features[:1]
    ends = special.logit(small.quantiles(jet, [0.2, 0.9])[0])
    logits, width = np.linspace(*ends, 4001, retstep=True)
    s = special.expit(logits)
    density = np.exp(small.log_prob(np.repeat(jet, len(s), 0), s)) * s * (1 - s)
    inside = integrate.simpson(density, dx=width)
    low, high = (small.cdf(jet, special.expit(end))[0] for end in ends)
    assert inside == pytest.approx(high - low, abs=1e-4)
    assert (low, high) == pytest.approx((0.2, 0.9), abs=2e-3)


def test_bands_and_their_means(small: Surrogate) -> None:
    c, s = JETS.features, JETS.scores
    band = small.band(c, 0.4)
    assert band.values.shape == (6, 40)
    np.testing.assert_allclose(band.mean, 1 - small.cdf(c, 0.4), atol=1e-12)
    np.testing.assert_allclose(small.density_band(c, s).mean, np.exp(small.log_prob(c, s)), rtol=1e-5)
    weight = np.linspace(1, 2, 40)
    whole = small.efficiency(c, 0.4, weight)
    np.testing.assert_allclose(whole.values, np.average(band.values, axis=1, weights=weight))
    assert whole.error > 0
    middle = small.median_band(c)
    np.testing.assert_allclose(middle.mean, 0.5, atol=0.05)
    np.testing.assert_allclose(np.median(middle.values, axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(small.spread(c), middle.error)


def test_samples_follow_the_distribution_function(small: Surrogate) -> None:
    drawn = small.sample(JETS.features[:2], 4000, seed=3)
    assert drawn.shape == (2, 4000)
    u = small.cdf(np.repeat(JETS.features[:1], 4000, 0), drawn[0])
    assert stats.kstest(u, "uniform").pvalue > 0.01
    one = small.sample(JETS.features[:2], seed=3, draw=2)
    np.testing.assert_array_equal(one, small.sample(JETS.features[:2], seed=3, draw=2))
    assert one.shape == (2,)


def test_no_jet_matters_to_another(small: Surrogate) -> None:
    whole = small.band(JETS.features, 0.4).values
    np.testing.assert_array_equal(small.band(JETS.features[7:9], 0.4).values, whole[:, 7:9])
    quantiles = small.quantiles(JETS.features[:3], [0.1, 0.5])
    np.testing.assert_array_equal(small.quantiles(JETS.features[1:2], [0.1, 0.5]), quantiles[1:2])


def test_saved_and_loaded(small: Surrogate, tmp_path: Path) -> None:
    small.save(tmp_path / "tagger.pofx")
    again = Surrogate.load(tmp_path / "tagger.pofx")
    assert (again.names, again.score) == (("pt", "eta", "mass", "signal"), "score")
    np.testing.assert_array_equal(again.band(JETS.features, 0.4).values, small.band(JETS.features, 0.4).values)
    assert again.trained_range["pt"] == small.trained_range["pt"]
    assert 200 <= again.trained_range["pt"][0] < 201
    pofx.Gaussian().fit(JETS.features[:, :2]).save(tmp_path / "other.pofx")
    with pytest.raises(ArtefactError, match="this is no surrogate"):
        Surrogate.load(tmp_path / "other.pofx")


def test_features_by_name_and_wrong_input(small: Surrogate) -> None:
    named = dict(zip(small.names, JETS.features.T, strict=True))
    np.testing.assert_array_equal(small.cdf(named, 0.3), small.cdf(JETS.features, 0.3))
    with pytest.raises(ColumnError, match="there is no mass"):
        small.cdf({k: v for k, v in named.items() if k != "mass"}, 0.3)
    with pytest.raises(ShapeError, match=r"expected shape \(n, 4\)"):
        small.cdf(JETS.features[:, :2], 0.3)
    with pytest.raises(ConfigError, match="scores: expected numbers between 0 and 1"):
        small.band(JETS.features, 1.0)
    with pytest.raises(ShapeError, match="one per jet"):
        small.cdf(JETS.features, [0.1, 0.2])
    with pytest.raises(ConfigError, match="levels: expected probabilities"):
        small.quantiles(JETS.features, [0.0, 0.5])
    with pytest.raises(ConfigError, match="draw: expected a number from 0 to 5"):
        small.sample(JETS.features, seed=1, draw=6)
    with pytest.warns(RangeWarning, match="pt"):
        small.band([[5000.0, 0.0, 170.0, 1.0]], 0.4)


def test_families_without_a_distribution_function() -> None:
    with pytest.raises(CapabilityError, match="distribution function of the score, which GAN does not have"):
        fit_tagged(JETS, family=pofx.GAN())
    with pytest.raises(CapabilityError, match="which Ensemble does not have"):
        fit_tagged(JETS, family=pofx.Ensemble(pofx.MixtureDensityNetwork()))
    with pytest.raises(ConfigError, match="expected a family out of"):
        bayesian_family("gan")


def test_flow_matching_is_a_surrogate_too() -> None:
    """Few steps: what counts is that quantiles and distribution function belong together."""
    family = pofx.Variational(
        pofx.FlowMatching(network=pofx.networks.residual.ResidualMLP(width=16, layers=1)), draws=2
    )
    training = pofx.Training(max_epochs=None, max_steps=60, seed=1, progress=False)
    found = fit_tagged(toy_jets(1000, 2), family=family, training=training)
    levels = np.array([0.1, 0.5, 0.9])
    quantiles = found.quantiles(JETS.features[:2], levels)
    for place, level in enumerate(levels):
        np.testing.assert_allclose(found.cdf(JETS.features[:2], quantiles[:, place]), level, atol=3e-3)


def test_gaussian_logit_against_least_squares() -> None:
    """The baseline is linear regression of the logit: the same numbers as numpy's."""
    jets = toy_jets(2000, 3)
    plain = Tagged.of(jets.features[:, 1:2], jets.scores)
    found = gaussian_logit(plain)
    data = plain.dataset().train.arrays()
    x, y = np.asarray(data.context.x), special.logit(np.asarray(data.x)[:, 0])
    design = np.c_[np.ones(len(x)), x]
    slope, residual = np.linalg.lstsq(design, y, rcond=None)[:2]
    width = np.sqrt(residual[0] / len(y))
    at = np.array([[-1.0], [2.0]])
    expected = special.ndtr((special.logit(0.3) - np.c_[np.ones(2), at] @ slope) / width)
    np.testing.assert_allclose(found.cdf(at, 0.3), expected, atol=1e-6)


def test_table_in_bins_against_counting() -> None:
    jets = toy_jets(5000, 4)
    table = BinnedTagger(jets, bins=3, least=10)
    pt, eta, mass, signal = jets.features.T
    third = [np.quantile(v, [1 / 3, 2 / 3]) for v in (pt, eta, mass)]
    here = (pt >= third[0][1]) & (eta < third[1][0]) & (mass >= third[2][0]) & (mass < third[2][1]) & (signal == 1)
    asked = jets.features[here][:1]
    value, error = table.efficiency(asked, 0.6)
    share, n = (jets.scores[here] > 0.6).mean(), here.sum()
    assert value[0] == pytest.approx(share)
    assert error[0] == pytest.approx(np.sqrt((share * n + 0.5) / (n + 1) * (1 - (share * n + 0.5) / (n + 1)) / n))
    assert table.cdf(asked, 0.6)[0] == pytest.approx(((1 - share) * n + 0.5) / (n + 1))
    drawn = table.sample(np.repeat(asked, 2000, 0), seed=1)
    assert np.isin(drawn, jets.scores[here]).all()
    grid = (np.arange(100_000) + 0.5) / 100_000
    density = np.exp(table.log_prob(np.repeat(asked, len(grid), 0), grid))
    assert density.mean() == pytest.approx(1.0, abs=2e-3)
    assert table.log_prob(asked, [1.0]) == -np.inf
    lonely = BinnedTagger(jets, bins=3, least=10_000)
    assert lonely.lonely == 54
    assert lonely.efficiency(asked, 0.6)[0] == pytest.approx((jets.scores > 0.6).mean())
    flavours = BinnedTagger(jets, bins=3, least=1000)
    assert flavours.efficiency(asked, 0.6)[0] == pytest.approx((jets.scores[signal == 1] > 0.6).mean())


def test_weights_are_duplicated_jets() -> None:
    """In a table without bins, whose edges duplicated jets would move."""
    jets, double = toy_jets(600, 6), 1 + np.arange(600) % 2
    weighted = BinnedTagger(Tagged.of(jets.features, jets.scores, weight=double.astype(float)), bins=1, least=1)
    repeated = BinnedTagger(jets.take(np.repeat(np.arange(600), double)), bins=1, least=1)
    for cut in (0.1, 0.5, 0.9):
        values = [table.efficiency(JETS.features, cut)[0] for table in (weighted, repeated)]
        np.testing.assert_allclose(*values)


def test_fit_from_arrays() -> None:
    found = fit_surrogate(JETS.features[:, 1], JETS.scores, family=pofx.Gaussian(preprocess="standardise"))
    assert found.names == ("feature0",)
    assert len(found.members) == 1
    with pytest.raises(ConfigError, match="at least two draws"):
        _ = found.band([[0.0]], 0.5).error
