"""The Gaussian copula: any marginals, the correlations of normal scores, declared ranges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pofx import Dataset, GaussianCopula
from pofx.errors import CapabilityError, ConfigError, DataError
from pofx.simulators import Conditional, DependentBeta, Lognormal, VonMisesChain, correlation_matrix

BETA = DependentBeta([2.0, 0.7, 3.0], [2.0, 0.8, 1.0])
LOGNORMAL = Lognormal.from_moments([1.0, 2.0, 3.0], correlation_matrix(3) * np.outer([0.3, 0.8, 2.0], [0.3, 0.8, 2.0]))

pytestmark = pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")


@pytest.mark.parametrize("truth", [BETA, LOGNORMAL], ids=["beta", "lognormal"])
def test_learns_a_gaussian_copula_of_any_marginals(truth) -> None:
    model = GaussianCopula().fit(Dataset.from_arrays(truth.sample(20_000, 1), columns=truth.columns()))
    fresh = truth.sample(10_000, 2)
    assert np.mean(truth.log_prob(fresh) - model.log_prob(fresh)) < 0.02
    sample = model.sample(10_000, seed=1)
    assert min(stats.ks_2samp(a, b).pvalue for a, b in zip(sample.T, fresh.T, strict=True)) > 1e-3
    assert np.isfinite(truth.log_prob(sample)).all()  # nothing outside the declared range
    np.testing.assert_allclose(stats.spearmanr(sample).statistic, stats.spearmanr(fresh).statistic, atol=0.03)


def test_conditional_is_joint_over_context() -> None:
    truth = Conditional(BETA)
    x, context = truth.sample(20_000, 1)
    data = Dataset.from_arrays(x, context, columns=truth.columns(), context_columns=truth.context_columns())
    model = GaussianCopula().fit(data)
    fresh, given = truth.sample(10_000, 2)
    assert np.mean(truth.log_prob(fresh, given) - model.log_prob(fresh, given)) < 0.02


def test_outside_a_declared_range_there_is_no_density() -> None:
    model = GaussianCopula().fit(Dataset.from_arrays(BETA.sample(2000, 1), columns=BETA.columns()))
    assert model.log_prob([[0.5, 0.5, 1.2], [0.5, 0.5, 0.5]])[0] == -np.inf


def test_scores_are_standard_normal() -> None:
    x = LOGNORMAL.sample(5000, 1)
    model = GaussianCopula().fit(Dataset.from_arrays(x, columns=LOGNORMAL.columns()).with_split((1, 0, 0)))
    z = model.encode(x)["z"].numpy()
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.03)
    body = model.fitted.body
    np.testing.assert_allclose((body.normal.root @ body.normal.root.T).diagonal(), 1, rtol=1e-12)


def test_singular_correlation_needs_shrinkage() -> None:
    x = LOGNORMAL.sample(500, 1)
    x[:, 2] = 3 * x[:, 0] - 1
    with pytest.raises(DataError, match=r"1 of 3 directions.*x0.*x2|1 of 3 directions.*x2.*x0"):
        GaussianCopula().fit(x)
    assert np.isfinite(GaussianCopula(shrinkage="oas").fit(x).log_prob(x)).all()


def test_periodic_columns_are_refused() -> None:
    truth = VonMisesChain(2)
    with pytest.raises(CapabilityError, match="periodic"):
        GaussianCopula().fit(Dataset.from_arrays(truth.sample(500, 1), columns=truth.columns()))


@pytest.mark.parametrize("bad", [{"knots": 3}, {"shrinkage": "much"}])
def test_settings_are_checked(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        GaussianCopula(**bad)
