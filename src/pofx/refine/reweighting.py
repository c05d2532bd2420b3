r"""Weights that turn one sample into another, from classifiers between them (DCTR: arXiv:1907.08209; DCTRGAN: arXiv:2009.03796).

A classifier that tells true events (1) from generated ones (0) knows the ratio of their densities,

.. math:: w(x) = \frac{D(x)}{1 - D(x)} \approx \frac{p(x)}{q(x)},

and generated events of weight w(x) follow p. Here D is an ensemble, trained and calibrated on different folds
(:mod:`pofx.refine.crossfit`); weights have mean one over the generated sample; the largest are clipped. With a context c the classifier
sees (x, c). Where both samples have the same contexts, the ratio is p(x|c) / q(x|c); else it has p(c) / q(c) in it.

A weight can only move what is there: where q vanishes and p does not, no weight helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pofx.classifiers import Classifier, classifier
from pofx.classifiers.base import Floats, Labelled, as_rows, balanced_weights
from pofx.config import check_at_least, check_choice
from pofx.data.numbers import as_numpy
from pofx.data.spec import Column
from pofx.errors import ConfigError, ShapeError
from pofx.metrics.samples import Side, both_sides, side
from pofx.refine.crossfit import CALIBRATIONS, CrossFit, cross_fit
from pofx.refine.weights import EffectiveSize, Unweighted, effective_size, maximum_weight, unweight
from pofx.training.noise import Noise, derive_seed

if TYPE_CHECKING:
    from pofx.models.model import Model

__all__ = ["Reweighter", "Reweighting", "reweight"]


@dataclass(frozen=True)
class Reweighting:
    """How weights are learnt.

    Parameters
    ----------
    classifier : ``"network"``, ``"trees"``, or a config such as ``NetworkClassifier(frequencies=64)``.
    folds : classifiers of the ensemble, each trained without one fold, at least 2.
    calibration : ``"temperature"`` (smooth), ``"isotonic"`` (any monotone error of the classifier, in steps) or ``"none"``.
    clip : largest weight, in units of the mean weight; None for no limit.
    """

    classifier: str | Classifier = "network"
    folds: int = 4
    calibration: str = "temperature"
    clip: float | None = 100.0

    def __post_init__(self) -> None:
        check_at_least(self, 2, "folds")
        check_choice(self, "calibration", CALIBRATIONS)
        if self.clip is not None:
            check_at_least(self, 1, "clip")
        classifier(self.classifier)


@dataclass(frozen=True)
class Reweighter:
    """What :func:`reweight` returns.

    Attributes
    ----------
    fitted : the classifiers.
    clip : largest weight, in units of the mean.
    width : columns of an event and its context together.
    log_scale : what log-ratios are shifted by, such that the generated sample has mean weight one.
    weight : of the generated events that took part in training, ``(n,)``, each by the classifier that has not seen it, times the
        weight it had before.
    clipped : share of the total weight that clipping has taken from them.
    columns : of an event (and its own context); none where they have no names, or where contexts came beside the events.
    """

    fitted: CrossFit
    clip: float | None
    width: int
    log_scale: float
    weight: Floats
    clipped: float
    columns: tuple[Column, ...] = ()

    @property
    def ess(self) -> EffectiveSize:
        """Effective size of the reweighted sample (:attr:`weight`)."""
        return effective_size(self.weight)

    def weights(self, x: Any, context: Any = None) -> Floats:
        """p(x) / q(x), clipped, ``(n,)``.

        Parameters
        ----------
        x : ``(n, d)``, data frame, data set or :class:`~pofx.data.events.Events` with the columns that were trained on.
        context : ``(n, c)``, if there was one.
        """
        found = _rows(x, context, None, "x")
        rows = as_rows(found.x, "x", self.width)
        trained = Side(rows[:0], found.weight[:0], None, self.columns)
        rows = both_sides(trained, found, ("the training", "x"))[1].x
        return _clipped(np.exp(self.fitted.logit(rows) - self.log_scale), self.clip)

    def unweight(self, x: Any, context: Any = None, *, seed: int, overweight: float = 0.0) -> Unweighted:
        """Accept-reject of new generated events, which have no weights of their own; see :func:`pofx.refine.weights.unweight`.

        The maximum is taken from :attr:`weight`, such that this share of its total is in excess; so nothing depends on what else is in x.

        Parameters
        ----------
        x, context : as for :meth:`weights`.
        seed : of the decisions; that about an event depends on its number alone.
        overweight : share of the total weight in excess of the maximum; larger is faster.
        """
        w = self.weights(x, context)
        uniform = Noise(seed, torch.arange(len(w)), dtype=torch.float64, scope="unweight").uniform("accept")
        return unweight(w, uniform.numpy(), maximum_weight(self.weight, overweight))


def reweight(
    generated: Any,
    truth: Any,
    context: Any = None,
    truth_context: Any = None,
    *,
    weight: Any = None,
    truth_weight: Any = None,
    settings: Reweighting | None = None,
    seed: int = 0,
) -> Reweighter:
    """Learn the weights that turn generated events into true ones.

    Parameters
    ----------
    generated : ``(n, d)``, data frame, data set, :class:`~pofx.data.events.Events`; or a fitted :class:`pofx.Model`, of which as many
        events are drawn as there are true ones, for the same contexts.
    truth : ``(m, d)`` and so on; leave out events that a test is to be made with.
    context, truth_context : ``(n, c)`` and ``(m, c)``, for events that do not bring their own; a model takes those of the truth.
    weight, truth_weight : ``(n,)`` and ``(m,)``; of positive sum.
    settings : :class:`Reweighting`.
    seed : of folds, classifiers and the model's sample.

    Raises
    ------
    ColumnError, ShapeError, NonFiniteError, DataError : other columns in the two samples, NaN, too few events.
    CapabilityError : clouds of points.

    >>> rng = np.random.default_rng(1)
    >>> found = reweight(rng.normal(0, 1, (500, 1)), rng.normal(2.0, 1, (500, 1)), settings=Reweighting("trees", folds=2))
    >>> bool(found.weights([[-1.0]]) < 1 < found.weights([[1.0]]))
    True
    """
    how = Reweighting() if settings is None else settings
    real = _rows(truth, truth_context, truth_weight, "truth")
    made = _generated(generated, truth, truth_context, context, weight, derive_seed(seed, "reweight", "sample"))
    real, made = both_sides(real, made, ("truth", "generated"))
    label = np.repeat([False, True], [len(made.x), len(real.x)])
    weights = balanced_weights(label, np.concatenate([made.weight, real.weight]))
    events = Labelled(np.concatenate([made.x, real.x]), label, weights)
    fitted = cross_fit(events, classifier(how.classifier), how.folds, how.calibration, derive_seed(seed, "reweight"))
    return _reweighter(fitted, how.clip, made._replace(columns=real.columns), fitted.unseen[: len(made.x)])


def _reweighter(fitted: CrossFit, clip: float | None, made: Side, log_ratio: Floats) -> Reweighter:
    """Normalised over the generated sample."""
    ratio = np.exp(log_ratio)
    log_scale = float(np.log(made.weight @ ratio / made.weight.sum()))
    free = ratio * np.exp(-log_scale)
    kept = _clipped(free, clip)
    lost = 1.0 - float(made.weight @ kept / (made.weight @ free))
    return Reweighter(fitted, clip, made.x.shape[1], log_scale, made.weight * kept, lost, made.columns)


def _clipped(weight: Floats, clip: float | None) -> Floats:
    return weight if clip is None else np.minimum(weight, clip)


def _generated(generated: Any, truth: Any, truth_context: Any, context: Any, weight: Any, seed: int) -> Side:
    """The generated sample; a model's has the contexts of the truth."""
    from pofx.models.model import Model

    if not isinstance(generated, Model):
        return _rows(generated, context, weight, "generated")
    if context is not None or weight is not None:
        raise ConfigError(
            "reweight: a model draws for the contexts of the truth and without weights; expected neither beside it"
        )
    return _drawn(generated, truth, truth_context, seed)


def _drawn(model: Model, truth: Any, context: Any, seed: int) -> Side:
    from pofx.data.dataset import Dataset

    events = truth.arrays() if isinstance(truth, Dataset) else truth
    given = getattr(events, "context", None) if context is None else context
    n = len(events)
    if not model.layout.context:
        return _rows(model.sample(n, seed=seed), None, None, "generated")
    drawn = model.sample(None, given, seed=seed)
    return _rows(drawn, getattr(given, "fields", {}) or given, None, "generated")


def _rows(x: Any, context: Any, weight: Any, name: str) -> Side:
    """Events and contexts side by side, with weights."""
    found = side(x, weight, name)
    if found.mask is not None:
        from pofx.errors import CapabilityError

        raise CapabilityError(
            f"{name}: weights are learnt for columns, not for clouds of points: compute features of them first"
        )
    if context is None:
        return found
    parts = context.values() if isinstance(context, dict) else [context]
    columns = [as_rows(as_numpy(part), f"context of {name}") for part in parts]
    if any(len(part) != len(found.x) for part in columns):
        raise ShapeError(f"context of {name}: expected {len(found.x)} rows; got {[len(part) for part in columns]}")
    return found._replace(x=np.concatenate([found.x, *columns], axis=1), columns=())
