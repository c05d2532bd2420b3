r"""What is left of a weighted sample: its effective size, and the events of unit weight that accept-reject makes of it.

.. math:: n_\mathrm{eff} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2}, \qquad
          \frac{n_\mathrm{eff}}{n} \to \frac{E[w]^2}{E[w^2]} .

An event is accepted with probability :math:`\min(1, w / w_\max)`. One whose weight is larger than the stated maximum is kept with the
weight :math:`w / w_\max > 1`, its overweight, so that the accepted sample is unbiased whatever the maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.classifiers.base import Floats, as_weight
from pofx.data.numbers import as_numpy
from pofx.errors import ConfigError, DataError

__all__ = ["EffectiveSize", "Unweighted", "effective_size", "maximum_weight", "unweight"]


@dataclass(frozen=True)
class EffectiveSize:
    """The number of events of equal weight that estimate a mean as well as the weighted ones.

    Attributes
    ----------
    value, error : of n events, with its standard error.
    share, share_error : the same divided by n.
    """

    value: float
    error: float
    share: float
    share_error: float

    def __str__(self) -> str:
        return f"effective size {self.value:.0f} ± {self.error:.0f} ({100 * self.share:.1f} ± {100 * self.share_error:.1f} %)"


def effective_size(weight: ArrayLike) -> EffectiveSize:
    r"""Effective size of weights ``(n,)``, which may be negative but have a positive sum.

    The error is that of the delta method: with :math:`m_k` the mean of :math:`w^k`, each event moves :math:`m_1^2 / m_2` by
    :math:`(2 m_1 (w - m_1) - (m_1^2 / m_2) (w^2 - m_2)) / m_2`. It needs a finite fourth moment; where few events carry most of the weight,
    it is itself uncertain.

    >>> effective_size([1.0, 1.0, 0.0, 0.0]).value
    2.0
    """
    w = _positive(weight)
    first, second = float(w.mean()), float((w * w).mean())
    share = first**2 / second
    moves = (2.0 * first * (w - first) - share * (w * w - second)) / second
    error = float(moves.std()) / math.sqrt(len(w))
    return EffectiveSize(share * len(w), error * len(w), share, error)


@dataclass(frozen=True)
class Unweighted:
    """Which events accept-reject takes.

    Attributes
    ----------
    index : numbers of the accepted events, ``(k,)``, in order.
    weight : of the accepted, ``(k,)``: one, but for those over the maximum.
    maximum : the weight that is accepted for certain.
    efficiency, error : accepted share of the events, with its binomial error.
    overweight : share of the total weight of all events that is in excess of the maximum; dropping the weights of the accepted loses it.
    """

    index: NDArray[np.intp]
    weight: Floats
    maximum: float
    efficiency: float
    error: float
    overweight: float


def unweight(weight: ArrayLike, uniform: ArrayLike, maximum: float) -> Unweighted:
    """Accept-reject.

    Parameters
    ----------
    weight : ``(n,)``, not negative.
    uniform : in (0, 1), ``(n,)``: decides for each event.
    maximum : of the weights, see :func:`maximum_weight`.

    Raises
    ------
    DataError : negative weights, or none positive. ConfigError : a maximum that is not positive.

    >>> unweight([0.5, 1.0, 3.0], [0.9, 0.3, 0.5], 2.0).index.tolist()
    [1, 2]
    """
    w = _positive(weight)
    if (w < 0).any():
        raise DataError(
            f"weight: accept-reject needs weights of at least zero; event {np.flatnonzero(w < 0)[0]} has a negative one"
        )
    if not maximum > 0:
        raise ConfigError(f"maximum: expected a positive weight; got {maximum!r}")
    index = np.flatnonzero(as_numpy(uniform) * maximum < w)
    n, share = len(w), len(index) / len(w)
    return Unweighted(
        index=index,
        weight=np.maximum(w[index] / maximum, 1.0),
        maximum=float(maximum),
        efficiency=share,
        error=math.sqrt(max(share * (1.0 - share), 0.25 / n) / n),
        overweight=float(np.maximum(w - maximum, 0.0).sum() / w.sum()),
    )


def maximum_weight(weight: ArrayLike, overweight: float = 0.0) -> float:
    """The smallest maximum such that at most this share of the total weight is in excess of it; the largest weight for zero.

    >>> maximum_weight([1.0, 1.0, 1.0, 7.0]), maximum_weight([1.0, 1.0, 1.0, 7.0], overweight=0.1)
    (7.0, 6.0)
    """
    if not 0.0 <= overweight < 1.0:
        raise ConfigError(f"overweight: expected a share of at least 0 and below 1; got {overweight!r}")
    w = np.sort(_positive(weight))[::-1]
    above = np.arange(1, len(w) + 1)
    excess = np.cumsum(w) - above * w  # in excess of w[k], if that were the maximum
    allowed = overweight * w.sum()
    last = int(np.searchsorted(excess, allowed, side="right")) - 1
    return float((w[: last + 1].sum() - allowed) / (last + 1)) if allowed > 0 else float(w[0])


def _positive(weight: ArrayLike) -> Floats:
    """Checked weights of positive sum."""
    w = as_weight(weight, len(as_numpy(weight)), "weight")
    if not (len(w) and w.sum() > 0):
        raise DataError(f"weight: expected a positive sum; got {w.sum() if len(w) else 0.0:g} of {len(w)} events")
    return w
