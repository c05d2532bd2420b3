"""Models where users expect a distribution of torch or scipy or an estimator of scikit-learn, and known densities as if they were models.

>>> import scipy.stats
>>> truth = from_scipy(scipy.stats.multivariate_normal([0.0, 1.0]))
>>> truth.sample(3, seed=1).shape, truth.log_prob(truth.sample(3, seed=1)).shape
((3, 2), (3,))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor
from torch.distributions import Distribution, constraints

from pofx.errors import CapabilityError, ConfigError, ShapeError
from pofx.models.base import Family
from pofx.models.model import Model
from pofx.registry import family_class
from pofx.training.noise import derive_seed
from pofx.training.settings import Training

__all__ = [
    "KnownDensity",
    "PofxDensity",
    "ScipyDensity",
    "TorchDensity",
    "from_scipy",
    "from_torch_distribution",
    "to_scipy",
    "to_torch_distribution",
]

Array = np.ndarray[Any, Any]


def to_torch_distribution(model: Model, context: Any = None) -> TorchDensity:
    """A ``torch.distributions.Distribution`` with ``log_prob`` and ``sample``.

    Parameters
    ----------
    model : a model with one vector field.
    context : None, ``(c,)`` (no batch axis) or ``(m, c)`` (a batch of m distributions, one per row).

    >>> distribution = to_torch_distribution(model)  # doctest: +SKIP
    >>> distribution.log_prob(distribution.sample((100,))).mean()  # doctest: +SKIP
    """
    return TorchDensity(model, context)


def to_scipy(model: Model, context: Any = None) -> ScipyDensity:
    """An object with the methods of a frozen scipy distribution: ``logpdf``, ``pdf`` and ``rvs``; ``context`` of shape ``(c,)``."""
    return ScipyDensity(model, context)


class TorchDensity(Distribution):
    """See :func:`to_torch_distribution`. Draws follow ``torch.manual_seed``; ``log_prob`` is differentiable in its argument."""

    arg_constraints = {}  # noqa: RUF012 (torch's own convention)
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, model: Model, context: Any = None) -> None:
        self.model = model
        self.context = None if context is None else torch.as_tensor(context, dtype=torch.float64)
        if self.context is not None and self.context.ndim > 2:
            raise ShapeError(f"expected a context of shape (c,) or (m, c); got {tuple(self.context.shape)}")
        batch = torch.Size() if self.context is None else self.context.shape[:-1]
        super().__init__(batch, torch.Size(model.layout.spec[model.layout.only].shape), validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """``sample_shape + batch_shape + event_shape``, float64."""
        shape = torch.Size(sample_shape)
        drawn = torch.as_tensor(self.model.sample(math.prod(shape), self.context, seed=_torch_seed()))
        if self.batch_shape:
            drawn = drawn.movedim(0, 1)
        return drawn.reshape(self._extended_shape(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of ``value``, whose shape ends in ``batch_shape + event_shape``."""
        if not self.batch_shape:
            return self.model.log_prob(value, self.context)
        lead = value.shape[: value.ndim - 1 - len(self.event_shape)]
        rows = (
            value.expand(*lead, *self.batch_shape, *self.event_shape)
            .reshape(-1, *self.batch_shape, *self.event_shape)
            .movedim(0, 1)
        )
        return self.model.log_prob(rows, self.context).movedim(0, 1).reshape(*lead, *self.batch_shape)


class ScipyDensity:
    """See :func:`to_scipy`."""

    def __init__(self, model: Model, context: Any = None) -> None:
        self.model = model
        self.context = context

    def logpdf(self, x: Any) -> Array:
        """log p of events ``(..., d)``."""
        return np.asarray(self.model.log_prob(x, self.context))

    def pdf(self, x: Any) -> Array:
        """p of events ``(..., d)``."""
        return np.exp(self.logpdf(x))

    def rvs(self, size: int | tuple[int, ...] | None = None, random_state: Any = None) -> Array:
        """Events of shape ``(*size, d)``, one event ``(d,)`` by default; ``random_state`` is a seed or a numpy generator."""
        shape = () if size is None else (size,) if isinstance(size, (int, np.integer)) else tuple(size)
        drawn = np.asarray(self.model.sample(math.prod(shape), self.context, seed=_numpy_seed(random_state)))
        return drawn.reshape(*shape, *drawn.shape[1:])


class PofxDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A family as a scikit-learn density estimator, for pipelines and grid searches.

    Parameters
    ----------
    family : the config to fit (default ``pofx.SplineFlow()``); its settings are parameters ``family__layers`` and so on.
    training : how to train (:class:`pofx.Training`); its settings are parameters ``training__max_epochs`` and so on.

    Attributes
    ----------
    model_ : the fitted :class:`pofx.Model`, after ``fit``.

    >>> search = GridSearchCV(PofxDensity(pofx.SplineFlow()), {"family__layers": [2, 4]})  # doctest: +SKIP
    """

    def __init__(self, family: Family | None = None, training: Training | None = None) -> None:
        self.family = family
        self.training = training

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> PofxDensity:
        """Fit to ``X`` of shape ``(n, d)``; ``y`` is ignored, weights ``(n,)`` are not."""
        array = check_array(X, dtype=(np.float64, np.float32))
        configs = self._configs()
        self.model_ = configs["family"].fit(array, weight=sample_weight, training=configs["training"])
        self.n_features_in_ = array.shape[1]
        return self

    def score_samples(self, X: Any) -> Array:
        """log p of every row, ``(n,)``."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.log_prob(check_array(X, dtype=(np.float64, np.float32))))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log p per row, as scikit-learn's Gaussian mixture has it."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draw events ``(n_samples, d)``; ``random_state`` is a seed or a numpy generator."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.sample(n_samples, seed=_numpy_seed(random_state)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """``family`` and ``training``; with ``deep`` also their settings, as ``family__layers``."""
        own = {"family": self.family, "training": self.training}
        if not deep:
            return own
        return own | {
            f"{name}__{f.name}": getattr(config, f.name)
            for name, config in self._configs().items()
            for f in fields(config)
            if f.init
        }

    def set_params(self, **params: Any) -> PofxDensity:
        """Set ``family``, ``training`` or single settings of theirs; ConfigError for unknown ones."""
        for name in ("family", "training"):
            setattr(self, name, params.get(name, getattr(self, name)))
        known = self.get_params()
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigError(f"unknown parameter {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
        for name, config in self._configs().items():
            changes = {key.partition("__")[2]: value for key, value in params.items() if key.startswith(f"{name}__")}
            if changes:
                setattr(self, name, replace(config, **changes))
        return self

    def _configs(self) -> dict[str, Any]:
        family = family_class("spline-flow")() if self.family is None else self.family
        return {"family": family, "training": self.training or Training()}


@dataclass(frozen=True)
class KnownDensity:
    """A density in closed form with the two methods of a model that tests and reports need: the truth, or a reference.

    Attributes
    ----------
    features : numbers per event.
    draw : ``draw(n, seed)`` gives ``(n, features)``.
    density : ``density(x)`` with x ``(n, features)`` gives log p, ``(n,)``.
    """

    features: int
    draw: Callable[[int, int], Array]
    density: Callable[[Array], Array]

    def sample(self, n: int, *, seed: int) -> Array:
        """``(n, features)``, float64."""
        if n == 0:
            return np.zeros((0, self.features))
        return np.asarray(self.draw(n, seed), dtype=np.float64).reshape(n, self.features)

    def log_prob(self, x: Any) -> Array:
        """log p of ``(n, features)`` or of one event ``(features,)``."""
        array = np.asarray(x, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != self.features:
            raise ShapeError(f"expected events of {self.features} numbers; got shape {array.shape}")
        flat = array.reshape(-1, self.features)
        return np.asarray(self.density(flat), dtype=np.float64).reshape(array.shape[:-1])


def from_torch_distribution(distribution: Distribution) -> KnownDensity:
    """A torch distribution of vectors (or of single numbers: one feature) as a :class:`KnownDensity`."""
    if distribution.batch_shape or len(distribution.event_shape) > 1:
        raise ShapeError(
            f"expected a distribution of single events (see torch.distributions.Independent); "
            f"got batch {tuple(distribution.batch_shape)}, event {tuple(distribution.event_shape)}"
        )
    features = math.prod(distribution.event_shape)

    def draw(n: int, seed: int) -> Array:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "known"))
            return distribution.sample((n,)).double().numpy()

    def density(x: Array) -> Array:
        values = torch.as_tensor(x, dtype=_dtype(distribution)).reshape(-1, *distribution.event_shape)
        with torch.no_grad():
            return distribution.log_prob(values).double().numpy()

    return KnownDensity(features, draw, density)


def from_scipy(frozen: Any) -> KnownDensity:
    """A frozen scipy distribution (uni- or multivariate, or ``gaussian_kde``) as a :class:`KnownDensity`."""
    if hasattr(frozen, "resample"):
        return KnownDensity(
            int(frozen.d), lambda n, seed: frozen.resample(n, seed=_generator(seed)).T, lambda x: frozen.logpdf(x.T)
        )
    if not (hasattr(frozen, "logpdf") and hasattr(frozen, "rvs")):
        raise CapabilityError(
            f"expected a frozen continuous distribution with logpdf and rvs; got {type(frozen).__name__}"
        )
    features = int(np.size(frozen.rvs(random_state=0)))
    univariate = np.shape(frozen.logpdf(np.zeros((2, features)))) == (2, features)
    return KnownDensity(
        features,
        lambda n, seed: frozen.rvs(size=n, random_state=_generator(seed)),
        lambda x: frozen.logpdf(x[:, 0] if univariate else x),
    )


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "known"))


def _dtype(distribution: Distribution) -> torch.dtype:
    with torch.random.fork_rng(devices=[]):
        return distribution.sample().dtype


def _torch_seed() -> int:
    return int(torch.randint(2**62, ()))


def _numpy_seed(random_state: Any) -> int:
    """A seed: an integer as it is, a number out of a generator, or fresh entropy for None."""
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    return int(np.random.default_rng(random_state).integers(2**62))
