r"""How many true events is a generated sample worth? Its quantile error against that of true samples (arXiv:2008.06545).

Cells j = 1..N hold the probabilities :math:`p_j` of the truth (1/N each, for quantiles), and the generated sample's shares :math:`x_j`:

.. math:: E = \sum_j (x_j - p_j)^2, \qquad \langle E \rangle_n = \frac{1 - \sum_j p_j^2}{n}

for n true events. So a generated sample is worth :math:`n = (1 - \sum p_j^2) / E` true events, and its **amplification** is that number
over the number of training events: 1 for the training events themselves. Beyond it goes what the family knows of the shape of the truth.

Without a closed-form truth, :math:`p_j` are shares of M held-out events. Their own noise adds :math:`(1 - \sum p_j^2)/M` to the mean of E;
that is subtracted. Without held-out events see :mod:`pofx.metrics.bayesian_amplification`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pofx.classifiers.base import as_weight
from pofx.errors import ConfigError, DataError
from pofx.metrics.quantile_cells import Cells, Floats, KnownTruth, cube_cells, events_of, quantile_cells

__all__ = ["QUANTILES", "Amplification", "AmplificationCurve", "amplification", "average_amplification", "check_sizes"]

QUANTILES = (2, 5, 10, 20, 50)
"""Per axis."""


@dataclass(frozen=True)
class Amplification:
    """At one number of quantiles.

    Attributes
    ----------
    quantiles, per_axis : number of cells, and per axis.
    mse, mse_error : E, free of the noise of held-out events, and its standard error.
    scale : 1 - sum p^2: E of a single true event.
    training_size : number of training events.
    generated : effective number of generated events.
    experiments : independent trainings behind it.
    """

    quantiles: int
    per_axis: int
    mse: float
    mse_error: float
    scale: float
    training_size: int
    generated: float
    experiments: int = 1

    @property
    def worth(self) -> float:
        """True events that the sample is worth; infinite where E vanishes within its noise."""
        return self.scale / self.mse if self.mse > 0 else math.inf

    @property
    def value(self) -> float:
        """Amplification factor: ``worth / training_size``."""
        return self.worth / self.training_size

    @property
    def low(self) -> float:
        """The factor where E is one error larger."""
        return self.scale / max(self.mse + self.mse_error, 1e-300) / self.training_size

    @property
    def high(self) -> float:
        """The factor where E is one error smaller; infinite where that is not positive."""
        least = self.mse - self.mse_error
        return self.scale / least / self.training_size if least > 0 else math.inf

    @property
    def limit(self) -> float:
        """The factor that more and more generated events approach: without E's part ``scale / generated``, their own noise."""
        rest = self.mse - self.scale / self.generated
        return self.scale / rest / self.training_size if rest > 0 else math.inf

    def __str__(self) -> str:
        worth = (
            f"worth {self.worth:.3g} true events" if math.isfinite(self.worth) else "worth more events than can be told"
        )
        return f"{self.quantiles} quantiles: {self.value:.3g} (+{self.high - self.value:.2g} -{self.value - self.low:.2g}), {worth}"


@dataclass(frozen=True)
class AmplificationCurve:
    """Amplification against the number of quantiles: iterate, or take one by its number per axis."""

    points: tuple[Amplification, ...]

    def __iter__(self) -> Iterator[Amplification]:
        return iter(self.points)

    def __getitem__(self, per_axis: int) -> Amplification:
        found = [point for point in self.points if point.per_axis == per_axis]
        if not found:
            raise DataError(f"expected one of {[p.per_axis for p in self.points]} quantiles per axis; got {per_axis}")
        return found[0]

    def __str__(self) -> str:
        one = self.points[0]
        head = f"amplification of {one.training_size} training events by {one.generated:.0f} generated ones"
        return "\n".join(
            [head if one.experiments == 1 else f"{head}, {one.experiments} experiments", *map(str, self.points)]
        )


def amplification(
    generated: ArrayLike,
    held_out_truth: ArrayLike | KnownTruth,
    training_size: int,
    *,
    quantiles: Sequence[int] = QUANTILES,
    weight: ArrayLike | None = None,
    truth_weight: ArrayLike | None = None,
) -> AmplificationCurve:
    r"""What a generated sample is worth, for several numbers of quantiles.

    Parameters
    ----------
    generated : ``(n, d)``, of a model that learnt from ``training_size`` events.
    held_out_truth : true events ``(m, d)`` that the model has not seen; or a closed-form truth that maps events to the unit cube
        (:class:`~pofx.metrics.quantile_cells.KnownTruth`). In how many columns, and in which coordinates, is up to you: give both samples
        as functions of the events (radii, masses).
    quantiles : per axis; a truth in d columns has quantiles ** d cells, of at least five true events each.
    weight, truth_weight : of the events.

    Notes
    -----
    The error takes the sample's deviation to be spread over all N quantiles as that of independent events is (then E has a relative spread
    of :math:`\sqrt{2/(N-1)}`), and includes the noise of held-out events. It does not know how much the next training would differ: repeat
    the experiment, and take :func:`average_amplification`.

    >>> rng = np.random.default_rng(1)
    >>> train, truth = rng.normal(size=200), rng.normal(size=20_000)
    >>> fit = rng.normal(train.mean(), train.std(), 100_000)
    >>> amplification(fit, truth, 200, quantiles=(10,))[10].value > 1
    True
    """
    x = events_of(generated, "generated")
    weights = as_weight(weight, len(x), "weight")
    known = hasattr(held_out_truth, "uniform")
    truth = None if known else events_of(held_out_truth, "held_out_truth")  # type: ignore[arg-type]
    check_sizes(training_size, quantiles)
    found = []
    for per_axis in quantiles:
        if truth is None:
            cell: Cells = cube_cells(held_out_truth, per_axis)  # type: ignore[arg-type]
            count = per_axis ** np.shape(held_out_truth.uniform(x[:1]))[1]  # type: ignore[union-attr]
            target, noise = np.full(count, 1 / count), 0.0
        else:
            cell, count = quantile_cells(truth, per_axis), per_axis ** truth.shape[1]
            truth_weights = as_weight(truth_weight, len(truth), "truth_weight")
            target, noise = _shares(cell(truth), truth_weights, count), 1 / _effective(truth_weights)
        shares = _shares(cell(x), weights, count)
        found.append(_point(shares, target, noise, per_axis, training_size, _effective(weights)))
    return AmplificationCurve(tuple(found))


def check_sizes(training_size: int, quantiles: Sequence[int]) -> None:
    """ConfigError unless there is a training event, and at least two quantiles per axis."""
    if training_size < 1:
        raise ConfigError(f"training_size: expected at least one event; got {training_size}")
    if not len(quantiles) or min(quantiles) < 2:
        raise ConfigError(f"quantiles: expected numbers of at least 2 per axis; got {list(quantiles)}")


def _shares(cell: Any, weight: Floats, count: int) -> Floats:
    sums = np.bincount(cell, weight, minlength=count)
    if not sums.sum() > 0:
        raise DataError(f"weight: expected a positive sum; got {sums.sum():.4g}")
    return np.asarray(sums / sums.sum(), dtype=np.float64)


def _effective(weight: Floats) -> float:
    return float(weight.sum() ** 2 / (weight @ weight))


def _point(x: Floats, p: Floats, noise: float, per_axis: int, size: int, generated: float) -> Amplification:
    """``noise`` is one over the number of held-out events."""
    squares, cubes = float(p @ p), float(p**2 @ p)
    scale = 1 - squares
    mse = float(((x - p) ** 2).sum()) - scale * noise
    spread = math.sqrt(2 * (squares - 2 * cubes + squares**2)) / scale  # relative, of E of independent events
    return Amplification(len(p), per_axis, mse, spread * (max(mse, 0.0) + scale * noise), scale, size, generated)


def average_amplification(experiments: Sequence[AmplificationCurve]) -> AmplificationCurve:
    """Of independent trainings on as many events: E is averaged, and its error is that of the mean.

    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=50_000)
    >>> repeated = [amplification(rng.choice(rng.normal(size=100), 10_000), truth, 100, quantiles=(10,)) for _ in range(30)]
    >>> round(average_amplification(repeated)[10].value)
    1
    """
    if len(experiments) < 2:
        raise DataError(f"expected at least two experiments; got {len(experiments)}")
    columns = list(zip(*(curve.points for curve in experiments), strict=True))
    return AmplificationCurve(tuple(_mean(points) for points in columns))


def _mean(points: tuple[Amplification, ...]) -> Amplification:
    first = points[0]
    if len({(p.quantiles, p.training_size) for p in points}) > 1:
        raise DataError("expected experiments with the same quantiles and the same number of training events")
    mse = np.array([p.mse for p in points])
    error = float(mse.std(ddof=1) / math.sqrt(len(points)))
    scale, generated = np.mean([p.scale for p in points]), 1 / np.mean([1 / p.generated for p in points])
    return Amplification(
        first.quantiles, first.per_axis, float(mse.mean()), error, float(scale), first.training_size, float(generated), len(points)
    )  # fmt: skip
