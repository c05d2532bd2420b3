"""Models as distributions of torch and scipy and as estimators; known densities as models; sampling to files by several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_artefact import Tiny, tiny

import pofx
from pofx.errors import ArtefactError, CapabilityError, ConfigError, PofxError, ShapeError
from pofx.models.adapters import PofxDensity, from_scipy, from_torch_distribution, to_scipy, to_torch_distribution
from pofx.models.parallel import sample_to_file

# ---------------------------------------------------------------------- torch


def test_torch_distribution() -> None:
    model = tiny()
    distribution = to_torch_distribution(model)
    assert (distribution.batch_shape, distribution.event_shape) == ((), (3,))
    torch.manual_seed(1)
    x = distribution.sample((4, 5))
    assert x.shape == (4, 5, 3)
    assert distribution.sample().shape == (3,)
    torch.manual_seed(1)
    assert torch.equal(x, distribution.sample((4, 5)))
    assert not torch.equal(x, distribution.sample((4, 5)))
    assert np.array_equal(distribution.log_prob(x).numpy(), model.log_prob(x.numpy()))
    x.requires_grad_()
    distribution.log_prob(x).sum().backward()
    assert bool(torch.isfinite(x.grad).all())


def test_torch_distribution_with_contexts() -> None:
    model = tiny(context=2)
    one = to_torch_distribution(model, torch.tensor([0.1, 0.2]))
    assert one.sample((6,)).shape == (6, 3)
    many = to_torch_distribution(model, torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    assert (many.batch_shape, many.event_shape) == ((2,), (3,))
    x = many.sample((4, 5))
    assert x.shape == (4, 5, 2, 3)
    assert many.sample().shape == (2, 3)
    log_prob = many.log_prob(x)
    assert log_prob.shape == (4, 5, 2)
    expected = model.log_prob(x[..., 1, :].reshape(-1, 3), torch.tensor([0.3, 0.4]))
    assert torch.equal(log_prob[..., 1].flatten(), expected)
    assert torch.equal(many.log_prob(x[0, 0]), log_prob[0, 0])
    with pytest.raises(ShapeError):
        to_torch_distribution(model, torch.zeros(1, 2, 2))


# ---------------------------------------------------------------------- scipy


def test_scipy_object() -> None:
    model = tiny()
    frozen = to_scipy(model)
    x = frozen.rvs(100, random_state=3)
    assert np.array_equal(x, model.sample(100, seed=3))
    assert frozen.rvs(random_state=3).shape == (3,)
    assert frozen.rvs((2, 4), random_state=np.random.default_rng(1)).shape == (2, 4, 3)
    assert frozen.rvs(2, random_state=np.random.RandomState(1)).shape == (2, 3)
    assert not np.array_equal(frozen.rvs(2), frozen.rvs(2))
    assert np.array_equal(frozen.pdf(x), np.exp(model.log_prob(x)))
    assert to_scipy(tiny(context=2), [0.1, 0.2]).rvs(7, random_state=1).shape == (7, 3)


# ---------------------------------------------------------------------- scikit-learn


@pytest.fixture(scope="module")
def data() -> Any:
    return np.random.default_rng(2).multivariate_normal([1.0, -2.0], [[1.0, 0.6], [0.6, 2.0]], 600)


def test_estimator(data: Any) -> None:
    estimator = PofxDensity(pofx.Gaussian()).fit(data)
    assert estimator.score_samples(data).shape == (600,)
    assert estimator.score(data) == pytest.approx(estimator.model_.log_prob(data).mean())
    assert np.array_equal(estimator.sample(5, random_state=1), estimator.model_.sample(5, seed=1))
    assert np.array_equal(estimator.sample(5, 1), clone(estimator).fit(data).sample(5, 1))
    assert not hasattr(clone(estimator), "model_")


def test_estimator_parameters() -> None:
    estimator = PofxDensity(pofx.GaussianMixture(components=2))
    assert estimator.get_params()["family__components"] == 2
    assert estimator.get_params(deep=False) == {"family": estimator.family, "training": None}
    estimator.set_params(family__components=3, training__max_epochs=2)
    assert (estimator.family.components, estimator.training.max_epochs) == (3, 2)
    assert estimator.set_params(family=pofx.Gaussian()).family == pofx.Gaussian()
    with pytest.raises(ConfigError, match="family__lyers"):
        estimator.set_params(family__lyers=1)
    assert "SplineFlow" in repr(PofxDensity(pofx.SplineFlow()))
    assert PofxDensity().get_params()["family__layers"] > 0


def test_estimator_in_pipeline_and_grid_search(data: Any) -> None:
    piped = make_pipeline(StandardScaler(), PofxDensity(pofx.Gaussian())).fit(data)
    assert np.isfinite(piped.score(data))
    search = GridSearchCV(PofxDensity(pofx.Gaussian()), {"family__preprocess": ["affine", "none"]}, cv=2).fit(data)
    assert search.best_params_["family__preprocess"] in ("affine", "none")
    assert isinstance(search.best_estimator_.model_, pofx.Model)


def test_estimator_uses_weights(data: Any) -> None:
    weight = np.where(data[:, 0] > 1, 1.0, 0.0)
    weighted = PofxDensity(pofx.Gaussian()).fit(data, sample_weight=weight).sample(2000, 1)
    assert weighted[:, 0].mean() > PofxDensity(pofx.Gaussian()).fit(data).sample(2000, 1)[:, 0].mean() + 0.3


# ---------------------------------------------------------------------- known densities


@pytest.mark.parametrize(
    "truth",
    [
        from_scipy(scipy.stats.norm(1, 2)),
        from_scipy(scipy.stats.multivariate_normal([1.0])),
        from_scipy(scipy.stats.multivariate_normal([1.0, 2.0], [[2.0, 0.3], [0.3, 1.0]])),
        from_scipy(scipy.stats.multivariate_t([1.0, 2.0], df=5)),
        from_scipy(scipy.stats.gaussian_kde(np.random.default_rng(1).normal(size=(2, 50)))),
        from_torch_distribution(torch.distributions.Normal(1.0, 2.0)),
        from_torch_distribution(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))),
        from_torch_distribution(to_torch_distribution(tiny())),
    ],
    ids=["norm", "mvn1", "mvn2", "t", "kde", "torch1", "torch2", "model"],
)
def test_known_densities(truth: Any) -> None:
    x = truth.sample(50, seed=4)
    assert x.shape == (50, truth.features)
    assert x.dtype == np.float64
    assert np.array_equal(x, truth.sample(50, seed=4))
    assert not np.array_equal(x, truth.sample(50, seed=5))
    assert truth.sample(1, seed=1).shape == (1, truth.features)
    assert truth.sample(0, seed=1).shape == (0, truth.features)
    log_prob = truth.log_prob(x)
    assert log_prob.shape == (50,)
    assert truth.log_prob(x[7]) == pytest.approx(log_prob[7])
    assert truth.log_prob(x.reshape(5, 10, -1)).shape == (5, 10)
    with pytest.raises(ShapeError):
        truth.log_prob(np.zeros((2, truth.features + 1)))


def test_known_density_values_and_refusals() -> None:
    truth = from_scipy(scipy.stats.norm(1, 2))
    assert truth.log_prob([[0.5]]) == pytest.approx(scipy.stats.norm(1, 2).logpdf([0.5]))
    state = torch.get_rng_state()
    from_torch_distribution(torch.distributions.Normal(0.0, 1.0)).sample(3, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(CapabilityError, match="logpdf"):
        from_scipy(scipy.stats.poisson(2))
    with pytest.raises(ShapeError, match="Independent"):
        from_torch_distribution(torch.distributions.Normal(torch.zeros(2), 1.0))


# ---------------------------------------------------------------------- sampling to files


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.pofx"
    tiny(context=2).save(path)
    return path


@pytest.mark.parametrize("suffix", ["h5", "csv", "npz"])
def test_sampling_to_a_file(suffix: str, tmp_path: Path) -> None:
    model = tiny()
    path = sample_to_file(model, 5000, tmp_path / f"new.{suffix}", seed=1, chunk=1500)
    data = pofx.read(path)
    assert data.spec["x"].columns == model.layout.spec["x"].columns
    assert np.array_equal(data.arrays().x, model.sample(5000, seed=1))
    assert sample_to_file(model, 0, tmp_path / "none.npz", seed=1).exists()


def test_workers_do_not_change_a_bit(saved: Path, tmp_path: Path) -> None:
    context, arrays = np.linspace(-1, 1, 6).reshape(3, 2), []
    threads = torch.get_num_threads()
    for workers in (1, 2):
        path = sample_to_file(
            saved, 2500, tmp_path / f"{workers}.h5", seed=1, workers=workers, chunk=1, context=context
        )
        arrays.append(pofx.read(path).arrays())
    first, second = arrays
    assert np.array_equal(first.x, second.x)
    assert np.array_equal(first.x, pofx.load(saved).sample(2500, context, seed=1).reshape(-1, 3))
    assert np.array_equal(first.context.x, np.repeat(context, 2500, 0))
    assert np.array_equal(first.context.x, second.context.x)
    assert torch.get_num_threads() == threads


def test_contexts_of_one_and_of_many_rows(saved: Path, tmp_path: Path) -> None:
    model, rows = pofx.load(saved), np.random.default_rng(0).normal(size=(3000, 2))
    data = pofx.read(sample_to_file(model, None, tmp_path / "rows.h5", seed=2, context=rows)).arrays()
    assert np.array_equal(data.x, model.sample(context=rows, seed=2))
    assert np.array_equal(data.context.x, rows)
    data = pofx.read(sample_to_file(model, 2000, tmp_path / "one.h5", seed=2, context=rows[0])).arrays()
    assert np.array_equal(data.x, model.sample(2000, rows[0], seed=2))
    assert np.array_equal(data.context.x, np.broadcast_to(rows[0], (2000, 2)))


@pytest.mark.slow
def test_a_dying_worker_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    model = tiny(family=Tiny(die=True))
    with pytest.raises(PofxError, match="worker died"):
        sample_to_file(model, 4096, tmp_path / "new.h5", seed=1, workers=2, chunk=1024)
    assert list(tmp_path.iterdir()) == []


def test_sampling_to_a_file_refuses_nonsense(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.h5"
    for wrong in ({"workers": 0}, {"chunk": 0}):
        with pytest.raises(ConfigError):
            sample_to_file(saved, 5, out, seed=1, **wrong)
    with pytest.raises(ShapeError):
        sample_to_file(saved, 5, out, seed=1)
    with pytest.raises(ArtefactError):
        sample_to_file(tmp_path / "absent.pofx", 5, out, seed=1)
    assert not out.exists()
