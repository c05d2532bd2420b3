"""Every wrapper against a posterior in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from linear import EXACT, LinearGaussian, NoisyQuadratic, data, posterior
from torch import nn

import pofx
from pofx.data.events import Events
from pofx.errors import CapabilityError, ConfigError, DivergenceError, PofxWarning
from pofx.networks.masked import MaskedLinear
from pofx.training.contract import Loss
from pofx.training.noise import Noise
from pofx.uncertainty.chains import Watch
from pofx.uncertainty.laplace import _hessian
from pofx.uncertainty.swag import _Path
from pofx.uncertainty.variational import _Normal
from pofx.uncertainty.weights import Weights, last_layer, swapped

PRIOR = 0.5


def draws(model: pofx.Model) -> np.ndarray:
    """(K, 3): W and b."""
    return model.fitted.body.draws.numpy()


def test_bootstrap_of_gaussians_has_the_bootstrap_error() -> None:
    x = np.random.default_rng(1).normal(size=(500, 1))
    members = 100
    model = pofx.Ensemble(pofx.Gaussian(preprocess="none"), members=members).fit(x)
    used = np.asarray(pofx.Dataset.from_arrays(x).train.arrays().x)
    mean = model.bands(lambda member: member.fitted.body.mean)
    expected = used.std() / np.sqrt(len(used))
    assert mean.error[0] == pytest.approx(expected, rel=3 / np.sqrt(2 * members))
    assert abs(mean.mean[0] - used.mean()) < 3 * expected / np.sqrt(members)


def test_an_ensemble_of_closed_forms_without_bootstrap_has_no_spread() -> None:
    model = pofx.Ensemble(pofx.Gaussian(), members=3, bootstrap=False).fit(data()[0])
    assert model.density_band([[0.1]]).error[0] == 0.0


def test_a_chain_that_diverges_says_what_helps() -> None:
    chain = pofx.SGHMC(LinearGaussian(), steps=500, step_size=1e6, precondition=False)
    with pytest.raises(DivergenceError, match="step_size below 1e"):
        chain.fit(*data(), training=EXACT.replace(max_steps=1))


@pytest.mark.slow
def test_variational_finds_the_mean_field_optimum() -> None:
    r"""The best independent normal has the posterior's mean and the variances 1 / precision_ii."""
    x, c = data()
    family = pofx.Variational(LinearGaussian(), draws=2000, prior=PRIOR, width=0.05)
    model = family.fit(x, c, training=EXACT.replace(max_steps=800, learning_rate=0.05, ema=0.99))
    mean, precision = posterior(model, x, c, PRIOR)
    body = model.fitted.body
    widths = np.concatenate([body.sigma(name).detach().numpy().ravel() for name in body.weights.names])
    assert body.once == {"nll": frozenset({"0"})}
    np.testing.assert_allclose(widths, np.diag(precision) ** -0.5, rtol=0.05)
    centre = body.weights.flat(body.inner).numpy()
    np.testing.assert_allclose(centre, mean, atol=0.15 * widths.min())
    assert np.abs(draws(model).mean(0) - centre).max() < 4 * widths.max() / np.sqrt(2000)
    np.testing.assert_allclose(draws(model).std(0), widths, rtol=0.05)


@pytest.mark.parametrize("turned", [False, True])
def test_local_noise_has_the_moments_of_drawn_weights(turned: bool) -> None:
    torch.manual_seed(1)
    layer = MaskedLinear([1, 2, 3], [1, 2, 2, 3]) if turned else torch.nn.Linear(3, 4)
    inner = torch.nn.Sequential(layer)
    body = _Normal(inner, Weights(inner), 2, 0.3)
    names, rows = list(body.weights.names), 4000
    h = torch.tensor([0.5, -1.0, 2.0]).expand(rows, 3)
    h = h.T if turned else h
    generator = torch.Generator().manual_seed(1)
    body.once["loss"] = frozenset({"0"})
    with torch.no_grad(), body.randomised("loss", names, rows, generator):
        local = inner(h).T if turned else inner(h)
    one = h[:, :1] if turned else h[:1]
    drawn = []
    for _ in range(rows):
        with torch.no_grad(), swapped(inner, body.drawn(names, generator)):
            drawn.append(inner(one).reshape(-1))
    found, expected = local, torch.stack(drawn)
    assert ((found.mean(0) - expected.mean(0)) / (expected.std(0) * (2 / rows) ** 0.5)).abs().max() < 3.5
    assert (found.std(0) / expected.std(0) - 1).abs().max() < 3.5 / rows**0.5


def test_weights_used_twice_are_drawn_once_per_batch() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(1, 1))
    body = _Normal(inner, Weights(inner), 2, 0.3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), body.randomised("loss", list(body.weights.names), 5, generator) as calls:
        first, second = inner(torch.ones(5, 1)), inner(torch.ones(5, 1))
    assert calls.once() == frozenset()
    assert bool((first == second).all())
    assert "forward" not in vars(inner[0])


def test_laplace_is_exact_for_a_gaussian_likelihood() -> None:
    x, c = data()
    model = pofx.Laplace(LinearGaussian(), draws=4000, prior=PRIOR).fit(x, c, training=EXACT)
    _, precision = posterior(model, x, c, PRIOR)
    covariance = np.linalg.inv(precision)
    found = np.cov(draws(model).T)
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / 4000)
    assert np.abs((found - covariance) / error).max() < 3.5


def test_the_hessian_is_that_of_the_mean_loss() -> None:
    x, c = data(50)
    model = pofx.Laplace(LinearGaussian(), draws=2, prior=1e6).fit(x, c, training=EXACT.replace(max_steps=2))
    _, precision = posterior(model, x, c, 1e6)

    class Source:
        def sweep(self):
            split = pofx.Dataset.from_arrays(x, context=c).train.arrays()
            yield model.fitted.prepare(split)[0].replace(index=torch.arange(len(split)))

    found = _hessian(model.fitted.body, LinearGaussian().loss, Source(), 1).numpy()
    np.testing.assert_allclose(found * float(model.fitted.body.size), precision, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("wrapper", [pofx.SGHMC, pofx.AdamMCMC])
def test_chains_sample_the_posterior(wrapper: type) -> None:
    """From every thinned position, with the error that the chain's own autocorrelation gives."""
    x, c = data()
    changes = {"step_size": 0.05, "friction": 0.3} if wrapper is pofx.SGHMC else {"sigma": 0.05}
    family = wrapper(LinearGaussian(), draws=400, steps=800, burn_in=1 / 3, prior=PRIOR, **changes)
    model = family.fit(x, c, training=EXACT.replace(max_steps=100))
    mean, precision = posterior(model, x, c, PRIOR)
    whitened = (draws(model) - mean) @ np.linalg.cholesky(precision)
    blocks = np.concatenate([whitened, whitened**2 - 1], 1).reshape(20, 20, 6).mean(1)
    pulls = blocks.mean(0) / (blocks.std(0, ddof=1) / np.sqrt(len(blocks)))
    assert np.abs(pulls).max() < 4  # the largest of six, at 19 degrees of freedom: p = 0.005
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=0.6)


def test_swag_has_the_stationary_variance_of_descent() -> None:
    r"""w' = w - r (k w + g): variance r^2 V / (1 - (1 - r k)^2), V that of the mean gradient of a batch."""
    curvature, rate, batch, n = 2.0, 0.05, 8, 80
    expected = rate**2 / batch / (1 - (1 - rate * curvature) ** 2)
    family = pofx.SWAG(NoisyQuadratic(curvature), steps=1200, every=3, rate=rate, rank=200, draws=400)
    model = family.fit(np.zeros((n, 1)) + np.arange(n)[:, None], training=EXACT.replace(batch_size=batch, max_steps=50))
    found = model.fitted.body.square.mean()
    assert float(found) == pytest.approx(expected, rel=0.05)
    assert draws(model).var(0).mean() == pytest.approx(float(found), rel=0.05)


def test_swag_keeps_the_moments_of_its_path() -> None:
    inner = torch.nn.Linear(2, 2)
    body = _Path(inner, Weights(inner), 3, rank=4)
    path = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    for number, position in enumerate(path, 1):
        body.weights.put(position, inner)
        body.note(number)
    torch.testing.assert_close(body.mean, path.mean(0))
    torch.testing.assert_close(body.square, path.var(0, correction=0))
    kept = torch.stack([path[k] - path[: k + 1].mean(0) for k in (8, 9, 6, 7)])
    torch.testing.assert_close(body.deviations, kept)


def test_last_layer_and_patterns() -> None:
    body = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Linear(2, 1))
    assert last_layer(body) == ("1.weight", "1.bias")
    with pytest.raises(ConfigError, match="head"):
        Weights(body, ("head.*",))
    with pytest.raises(CapabilityError, match="Ensemble"):
        Weights(torch.nn.Identity())


@pytest.mark.parametrize("wrapper", [pofx.Variational, pofx.SGHMC, pofx.AdamMCMC, pofx.SWAG, pofx.Laplace])
def test_closed_forms_are_sent_to_the_ensemble(wrapper: type) -> None:
    with pytest.raises(CapabilityError, match="Ensemble"):
        wrapper(pofx.Gaussian()).fit(data()[0])


def test_only_a_family_is_wrapped_and_only_once() -> None:
    with pytest.raises(ConfigError, match="expected a family"):
        pofx.Ensemble("spline-flow")
    with pytest.raises(ConfigError, match="already"):
        pofx.Ensemble(pofx.SWAG(pofx.SplineFlow()))


class _Counted(LinearGaussian):
    """Counts how often its loss is evaluated with gradients."""

    calls: ClassVar[int] = 0
    noisy: ClassVar[bool] = False

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        type(self).calls += torch.is_grad_enabled()
        if self.noisy:
            noise.normal("z", 1)
        return super().loss(body, events, noise)


class _CountedNoisy(_Counted):
    noisy: ClassVar[bool] = True


@pytest.mark.parametrize(("family", "per_step"), [(_Counted, 1), (_CountedNoisy, 2)])
def test_a_chain_evaluates_a_fixed_energy_once_per_position(family: type[_Counted], per_step: int) -> None:
    family.calls = 0
    x, c = data()
    pofx.AdamMCMC(family(), steps=40, draws=4).fit(x, c, training=EXACT.replace(max_steps=1))
    assert family.calls == 1 + 40 * per_step + (per_step == 1)


def test_a_chain_notices_that_its_events_differ_from_step_to_step() -> None:
    x, index = torch.arange(6.0)[:, None], torch.arange(6)
    turned = index.flip(0)
    same, other = Watch(), Watch()
    same.see(Events({"x": x}, index=index))
    same.see(Events({"x": x[turned]}, index=index[turned]))
    assert not same.random
    other.see(Events({"x": x}, index=index))
    other.see(Events({"x": x + 0.1}, index=index))
    assert other.random


class _Stopped(LinearGaussian):
    """Ctrl-C at this evaluation of the loss with gradients."""

    calls: ClassVar[int] = 0
    last: ClassVar[int] = 10**9

    def loss(self, body: nn.Module, events: Events, noise: Noise) -> Loss:
        type(self).calls += torch.is_grad_enabled()
        if self.calls == self.last:
            raise KeyboardInterrupt
        return super().loss(body, events, noise)


def test_a_chain_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    x, c = data()
    family = pofx.AdamMCMC(_Stopped(), steps=40, draws=4)
    whole = draws(family.fit(x, c, training=EXACT.replace(max_steps=5)))
    training = EXACT.replace(max_steps=5, checkpoint=str(tmp_path / "chain.ckpt"), checkpoint_every=1)
    _Stopped.calls, _Stopped.last = 0, 30
    with pytest.warns(PofxWarning, match="interrupted"):
        family.fit(x, c, training=training)
    _Stopped.last = 10**9
    np.testing.assert_array_equal(draws(family.fit(x, c, training=training, resume="must")), whole)
