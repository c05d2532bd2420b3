r"""The surrogate: p(score | features) of a tagger, with K draws of the weights, and what is asked of it (arXiv:2402.15558).

A family whose noise is one normal number z that the score rises with gives the whole distribution function,

.. math:: F_k(s \,|\, c) = \Phi(z_k(s, c)), \qquad F = \frac{1}{K} \sum_k F_k, \qquad \varepsilon_k(c) = 1 - F_k(\mathrm{cut} \,|\, c),

so that quantiles and efficiencies need no sampling, and the spread of :math:`F_k` over the draws is their uncertainty. Flows and
flow matching are of that kind. Scores are declared to lie in (0, 1), so that the family works in their logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pofx.artefact import load
from pofx.data.dataset import Dataset
from pofx.data.spec import Column
from pofx.errors import ArtefactError, CapabilityError, ConfigError, RangeWarning, ShapeError
from pofx.models.base import Layout, NoiseShape
from pofx.tasks.classifier_surrogate.data import Floats, Tagged, feature_rows
from pofx.uncertainty.band import Band

if TYPE_CHECKING:
    from pofx.models.base import Family
    from pofx.models.model import Model
    from pofx.training.settings import Training

__all__ = ["FAMILIES", "Surrogate", "bayesian_family", "default_training", "fit_surrogate", "fit_tagged"]

FAMILIES = ("spline-flow", "flow-matching")
"""Families that :func:`bayesian_family` knows."""
BLOCK = 1024
"""Jets that a draw of the weights is asked about at once; the last block is padded, so that no jet matters to another."""
PLACES = 1000
"""Equal steps of probability, over all draws together, out of which a quantile is interpolated."""


def bayesian_family(name: str = "spline-flow", draws: int = 30) -> Family:
    """A small network with variational weights; all settings of the flow and of the network are kept small on purpose.

    Independent normal weights cost a likelihood what they do not know: a network with many more weights than the data can tell about is
    pulled to the prior, and fits worse than one with few.

    Parameters
    ----------
    name : ``"spline-flow"``, whose loss is a likelihood, so that its band is a posterior; or ``"flow-matching"`` with three layers of 64
        (arXiv:2402.15558), whose band is that of a Gibbs posterior.
    """
    from pofx.models.flow_matching import FlowMatching
    from pofx.models.flows import SplineFlow
    from pofx.networks.residual import ResidualMLP
    from pofx.uncertainty.variational import Variational

    if name not in FAMILIES:
        raise ConfigError(f"expected a family out of {', '.join(FAMILIES)}; got {name!r}")
    if name == "flow-matching":
        return Variational(FlowMatching(network=ResidualMLP(width=64)), draws=draws)
    flow = SplineFlow(layers=1, hidden=(32,), bins=5, bound=4.0, residual=False, gated=False, experts=0)
    return Variational(flow, draws=draws)


def default_training(steps: int = 2000, seed: int = 0, name: str = "spline-flow") -> Training:
    """What goes with :func:`bayesian_family`, whose last weights are kept: validation is for the eye, and need not be after every epoch."""
    from pofx.training.settings import Training

    rate = 2e-2 if name == "spline-flow" else 3e-3
    return Training(max_epochs=None, max_steps=steps, learning_rate=rate, batch_size=512, seed=seed, validate_every=5)


def fit_surrogate(
    features: Any,
    scores: ArrayLike,
    *,
    names: Sequence[Column | str] | None = None,
    score: str = "score",
    weight: ArrayLike | None = None,
    family: Family | None = None,
    training: Training | None = None,
    saturated: str = "error",
) -> Surrogate:
    """Learn a tagger's scores from high-level features.

    Parameters
    ----------
    features : ``(n, d)``, or columns ``(n,)`` by name.
    scores : ``(n,)`` in (0, 1).
    names : of the features. A :class:`~pofx.data.spec.Column` with a range or a period says how the feature enters: an angle, the
        logarithm of what is positive.
    family : None for :func:`bayesian_family`; or any flow or flow matching, best inside a wrapper of :mod:`pofx.uncertainty`:
        ``Variational(FlowMatching())`` is that of the paper. Without a wrapper there is one draw, and no band.
    training : None for :func:`default_training`, or for that of any fit where a family is given.
    saturated : what to do about scores of exactly 0 or 1 (:mod:`pofx.tasks.classifier_surrogate.data`).

    Raises
    ------
    DataError and its kind for unusable input; CapabilityError for a family without a distribution function.

    >>> import pofx
    >>> rng = np.random.default_rng(1)
    >>> pt = rng.uniform(200, 800, 500)
    >>> scores = 1 / (1 + np.exp(-(pt - 500) / 200 - rng.normal(size=500)))
    >>> family = pofx.Ensemble(pofx.Gaussian(preprocess="standardise"), members=5)
    >>> surrogate = fit_surrogate({"pt": pt}, scores, family=family)
    >>> band = surrogate.band({"pt": [300.0, 700.0]}, 0.5)
    >>> band.mean.round(1).tolist()
    [0.2, 0.8]
    """
    data = Tagged.of(features, scores, names=names, score=score, weight=weight, saturated=saturated)
    return fit_tagged(data, family=family, training=training)


def fit_tagged(data: Tagged, *, family: Family | None = None, training: Training | None = None) -> Surrogate:
    """:func:`fit_surrogate` of :class:`~pofx.tasks.classifier_surrogate.data.Tagged` jets."""
    chosen, jets = family or bayesian_family(), data.dataset()
    plan = training or (default_training() if family is None else None)
    if not _has_distribution(chosen, jets):
        raise CapabilityError(
            f"a surrogate needs the distribution function of the score, which {type(chosen).__name__} does not have; "
            "expected SplineFlow, FlowMatching or another flow, best inside Variational(...) or Ensemble(...)"
        )
    return Surrogate(chosen.fit(jets, training=plan))


def _has_distribution(family: Family, data: Dataset) -> bool:
    """Whether the family, or what a wrapper wraps, maps one normal number to one number and back."""
    inner = getattr(family, "family", family)
    if not inner.capabilities.encode or inner.capabilities.density != "exact":
        return False
    noise = inner.noise_shapes(Layout(data.spec, data.context_spec))
    return bool(noise == {"z": NoiseShape("normal", (1,))})


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fitted surrogate. Features are ``(m, d)``, one jet ``(d,)``, or columns ``(m,)`` by name.

    Attributes
    ----------
    model : p(score | features), an ordinary fitted model.
    """

    model: Model

    def __post_init__(self) -> None:
        spec, context = self.model.layout.spec, self.model.layout.context or {}
        numbers = [*spec.values(), *context.values()]
        if len(spec) != 1 or len(context) != 1 or any(form.kind != "vector" for form in numbers):
            raise ArtefactError("expected a model of one vector given one vector of features: this is no surrogate")
        column = numbers[0].columns[0]
        if numbers[0].size != 1 or (column.low, column.high) != (0.0, 1.0):
            raise ArtefactError(f"expected a model of one score in (0, 1); got {', '.join(numbers[0].names)}")

    @classmethod
    def load(cls, path: str | Path) -> Surrogate:
        """What :meth:`save` wrote; ArtefactError for the file of another model."""
        return cls(load(path))

    def save(self, path: str | Path) -> None:
        """Write the model (:mod:`pofx.artefact`); ``pofx sample`` and ``pofx logprob`` understand the file too."""
        self.model.save(path)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return next(iter((self.model.layout.context or {}).values())).names

    @property
    def score(self) -> str:
        """How the tagger is called."""
        return next(iter(self.model.layout.spec.values())).names[0]

    @property
    def trained_range(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of each feature among the training jets."""
        known = self.model.card["ranges"][f"context:{next(iter(self.model.layout.context or {}))}"]
        return {n: (float(a), float(b)) for n, a, b in zip(self.names, known["low"], known["high"], strict=True)}

    @cached_property
    def members(self) -> tuple[Model, ...]:
        """The model of every draw of the weights."""
        from pofx.uncertainty.model import BayesianModel

        if isinstance(self.model, BayesianModel):
            return tuple(self.model.member(k) for k in range(self.model.draws))
        return (self.model,)

    # ------------------------------------------------------------------ scores

    def sample(self, features: Any, n: int | None = None, *, seed: int, draw: int | None = None) -> Floats:
        """Scores ``(m, n)``, or one per jet ``(m,)`` if n is None; each with the weights of a draw of its own, or those of ``draw``."""
        model = self.model if draw is None else self._member(draw)
        return np.asarray(model.sample(n, self._rows(features), seed=seed), np.float64)[..., 0]

    def log_prob(self, features: Any, scores: ArrayLike) -> Floats:
        """log p(score | features), ``(m,)``: of the mean density over the draws."""
        rows = self._rows(features)
        return np.asarray(self.model.log_prob(self._scores(scores, len(rows))[:, None], rows), np.float64)

    def density_band(self, features: Any, scores: ArrayLike) -> Band:
        """p(score | features) of every draw, ``(K, m)``."""
        rows = self._rows(features)
        given = self._scores(scores, len(rows))[:, None]
        return Band(np.exp(np.stack([np.asarray(member.log_prob(given, rows)) for member in self.members])))

    # ------------------------------------------------------------------ distribution functions

    def cdf(self, features: Any, scores: ArrayLike) -> Floats:
        """P(score' < score | features), ``(m,)``: mean over the draws."""
        return np.asarray(special.ndtr(self._normal(features, scores)).mean(0))

    def band(self, features: Any, cut: ArrayLike) -> Band:
        """P(score > cut | features) of every draw, ``(K, m)``: the efficiency of each jet, with its uncertainty."""
        return Band(np.asarray(special.ndtr(-self._normal(features, cut))))

    def efficiency(self, features: Any, cut: float, weight: ArrayLike | None = None) -> Band:
        """The share of these jets that pass a cut, ``(K,)``: tagging efficiency of signal, mistag rate of background.

        Its ``error`` is that of the surrogate; that of the number of jets is none of it.

        Parameters
        ----------
        weight : ``(m,)`` of the jets.
        """
        found = self.band(features, cut).values
        if weight is None:
            return Band(found.mean(1))
        w = np.asarray(weight, np.float64)
        if w.shape != found.shape[1:] or not w.sum() > 0:
            raise ShapeError(f"weight: expected shape {found.shape[1:]} with a positive sum; got {w.shape}")
        return Band(found @ w / w.sum())

    def quantiles(self, features: Any, levels: ArrayLike) -> Floats:
        """Scores below which these probabilities lie, ``(m, k)``; interpolated to steps of at most :data:`PLACES` of probability.

        Every draw gives its scores at levels of its own, all of which are equally far apart; together they are the mean distribution.
        """
        wanted = np.atleast_1d(np.asarray(levels, np.float64))
        if wanted.ndim != 1 or not ((wanted > 0) & (wanted < 1)).all():
            raise ConfigError(f"levels: expected probabilities between 0 and 1; got {wanted.tolist()}")
        rows, count = self._warned(self._rows(features)), len(self.members)
        each = -(-PLACES // count)
        places = (np.arange(each * count) + 0.5) / (each * count)
        found = [self._inverse(k, special.ndtri(places[k::count]), rows) for k in range(count)]
        return np.asarray(np.quantile(np.concatenate(found, 1), wanted, axis=1, method="hazen").T)

    def median_band(self, features: Any) -> Band:
        """P(score < s | features) of every draw, ``(K, m)``, at the median s of the draws' medians.

        It is about one half, and its error has no units, so that it may be compared between jets.
        """
        rows = self._warned(self._rows(features))
        medians = [self._inverse(k, np.zeros(1), rows) for k in range(len(self.members))]
        return Band(np.asarray(special.ndtr(self._normal(rows, np.median(medians, axis=0)[:, 0]))))

    def spread(self, features: Any) -> Floats:
        """How unsure the surrogate is of a jet, ``(m,)``: standard deviation of :meth:`median_band`, from 0 to about 0.5."""
        return self.median_band(features).error

    # ------------------------------------------------------------------

    def _rows(self, features: Any) -> Floats:
        return feature_rows(features, self.names)

    def _warned(self, rows: Floats) -> Floats:
        """The same rows, after one warning about those outside the trained range."""
        self.model.inputs.context_rows(rows, None)
        return rows

    def _scores(self, scores: ArrayLike, m: int) -> Floats:
        found = np.asarray(scores, np.float64)
        if found.shape not in ((), (1,), (m,)):
            raise ShapeError(f"scores: expected one number, or {m}, one per jet; got shape {found.shape}")
        if not ((found > 0) & (found < 1)).all():
            raise ConfigError(f"scores: expected numbers between 0 and 1; got {found.min():.4g} to {found.max():.4g}")
        return np.broadcast_to(found, (m,)).copy()

    def _member(self, draw: int) -> Model:
        if not 0 <= draw < len(self.members):
            raise ConfigError(f"draw: expected a number from 0 to {len(self.members) - 1}; got {draw!r}")
        return self.members[draw]

    def _normal(self, features: Any, scores: ArrayLike) -> Floats:
        """z of the scores under every draw, ``(K, m)``."""
        rows = self._warned(self._rows(features))
        given = self._scores(scores, len(rows))[:, None]
        return np.stack([_blocks(partial(_encoded, member), given, rows) for member in self.members])

    def _inverse(self, k: int, z: Floats, rows: Floats) -> Floats:
        """Scores of every jet at these z under draw k, ``(m, len(z))``."""
        import torch

        member, fitted = self.members[k], self.model.fitted
        noise = np.tile(z, len(rows))[:, None]

        def decoded(e: Floats, c: Floats) -> Floats:
            with torch.no_grad():
                found = member.decode(torch.as_tensor(e, dtype=fitted.dtype, device=fitted.device), c)
            return np.asarray(found.double().cpu().numpy(), np.float64)[:, 0]

        return _blocks(decoded, noise, np.repeat(rows, len(z), 0)).reshape(len(rows), len(z))


def _encoded(member: Model, scores: Floats, rows: Floats) -> Floats:
    z = member.encode(scores, rows)["z"]
    return np.asarray(z.detach().double().cpu().numpy(), np.float64)[:, 0]


def _blocks(function: Callable[[Floats, Floats], Floats], first: Floats, rows: Floats) -> Floats:
    """``function(first, rows)`` in blocks of one size; whether features are outside the trained range was said before."""
    missing = -len(rows) % BLOCK
    a, b = (np.concatenate([part, np.repeat(part[-1:], missing, 0)]) for part in (first, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        found = [function(a[start : start + BLOCK], b[start : start + BLOCK]) for start in range(0, len(a), BLOCK)]
    return np.concatenate(found)[: len(rows)]
