"""The toy tagger: its density integrates to one, its distribution function is the integral, samples follow it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from pofx.errors import ConfigError, ShapeError
from pofx.simulators.task_toys.tagger import Tagger

JETS = np.array(
    [[250.0, -1.7, 80.0, 0.0], [600.0, 0.2, 175.0, 0.0], [300.0, 2.4, 160.0, 1.0], [780.0, 0.0, 171.0, 1.0]]
)


@pytest.mark.parametrize("row", range(len(JETS)))
def test_closed_forms_against_quadrature(row: int) -> None:
    toy, jet = Tagger(), JETS[row : row + 1]

    def density(logit: float) -> float:
        s = special.expit(logit)
        return float(np.exp(toy.log_prob([s], jet)[0])) * s * (1 - s)

    assert integrate.quad(density, -25, 25, limit=400, epsabs=1e-12)[0] == pytest.approx(1.0, abs=1e-9)
    for level in (0.02, 0.5, 0.93):
        end = float(special.logit(toy.quantile(level, jet)[0]))
        below = integrate.quad(density, -30, end, limit=400, epsabs=1e-12)[0]
        assert below == pytest.approx(level, abs=1e-9)
        assert toy.cdf([special.expit(end)], jet)[0] == pytest.approx(level, abs=1e-12)


def test_samples_follow_the_distribution_function() -> None:
    events = Tagger().sample(20_000, 1)
    u = Tagger().cdf(events.x[:, 0], events.context.x)
    assert stats.kstest(u, "uniform").pvalue > 0.01
    label = events.context.x[:, 3] > 0.5
    assert stats.kstest(u[label], "uniform").pvalue > 0.01
    assert events.x[label].mean() > events.x[~label].mean() + 0.3
    assert stats.kstest(1 / events.context.x[:, 0], stats.uniform(1 / 800, 1 / 200 - 1 / 800).cdf).pvalue > 0.01


def test_smearing_is_not_normal() -> None:
    """Excess kurtosis and skewness of the logit of one jet: what a Gaussian in logit space misses."""
    jets = np.tile(JETS[3], (50_000, 1))
    logits = special.logit(Tagger().scores(jets, np.random.default_rng(1)))
    assert stats.kurtosis(logits) > 1.0
    assert stats.skew(logits) < -0.5


def test_refusals() -> None:
    assert Tagger().log_prob([0.0, 1.0, 1.2], np.tile(JETS[0], (3, 1))).tolist() == [-np.inf] * 3
    with pytest.raises(ConfigError, match="expected low below high; got 500"):
        Tagger(500, 300)
    with pytest.raises(ShapeError, match=r"jets: expected shape \(n, 4\)"):
        Tagger().log_prob([0.5], [[1.0, 2.0]])
