r"""Annealed importance sampling: the normaliser of an unnormalised density, with its error (Neal 2001, arXiv:physics/9803008).

Between a base :math:`f_0` whose normaliser is known and the target :math:`f_K` lie :math:`f_1, ..., f_{K-1}`. A chain starts with
:math:`x_0 \sim f_0 / Z_0`; move k leaves :math:`f_k` alone. Then

.. math:: w = \prod_{k=1}^{K} \frac{f_k(x_{k-1})}{f_{k-1}(x_{k-1})}, \qquad E[w] = \frac{Z_K}{Z_0}

however short the chains are: bad moves make the weights spread, and the error says so. The mean of w is unbiased; its logarithm lies
low by about half the squared error. Where hardly any chain finds the mass, no error can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from pofx.data.events import Events
from pofx.models.field import points
from pofx.models.ode import content_numbers

__all__ = ["LogMean", "anneal", "condition_numbers", "log_mean_exp", "per_condition"]

State = TypeVar("State")


class LogMean(NamedTuple):
    """log of a mean weight, its standard error, and the number of equal weights that would tell as much."""

    value: Tensor
    error: Tensor
    effective: Tensor


def anneal(
    start: State, levels: int, advance: Callable[[int, State], tuple[Tensor, State]]
) -> tuple[State, Tensor | float]:
    r"""Move chains through all levels: their ends, and log w.

    Parameters
    ----------
    start : exact draws from the base, in whatever form ``advance`` takes.
    advance : ``(k, state)`` to :math:`\log f_k - \log f_{k-1}` at the state, ``(n,)``, and the state after the moves at level k, for
        k = 1 to ``levels``.

    >>> anneal(torch.zeros(3), 2, lambda k, x: (k + x, x + 1))
    (tensor([2., 2., 2.]), tensor([4., 4., 4.]))
    """
    state = start
    log_weight: Tensor | float = 0.0
    for k in range(1, levels + 1):
        gain, state = advance(k, state)
        log_weight = log_weight + gain
    return state, log_weight


def log_mean_exp(log_weight: Tensor) -> LogMean:
    r"""Of weights along the last axis. The error is :math:`\sigma(w) / (\bar w \sqrt m)`;
    ``effective`` is :math:`(\sum w)^2 / \sum w^2`.

    >>> log_mean_exp(torch.log(torch.tensor([1.0, 3.0])))
    LogMean(value=tensor(0.6931), error=tensor(0.5000), effective=tensor(1.6000))
    """
    count = log_weight.shape[-1]
    value = log_weight.logsumexp(-1) - math.log(count)
    weight = (log_weight - value[..., None]).exp()
    error = weight.std(-1) / math.sqrt(count)
    return LogMean(value, error, count**2 / weight.square().sum(-1))


def per_condition(events: Events, size: int, estimate: Callable[[Events], LogMean]) -> LogMean:
    """What ``estimate`` finds for the context and number of points of every event, ``(n,)``, asked once for each of them.

    Nothing depends on what else is among the events: ``estimate`` always gets ``size`` rows.
    """
    rows, where = _distinct(events)
    found = [estimate(part) for part in _padded(_first_masks(events[rows]), size)]
    return LogMean(*(torch.cat(values)[where] for values in zip(*found, strict=True)))


def condition_numbers(events: Events) -> Tensor:
    """A number for each context and number of points, int64 ``(n,)``; padding and order of the points do not enter."""
    key = torch.zeros(len(events), dtype=torch.int64, device=events.x.device)
    if events.mask is not None:
        key = key + 0x9E3779B1 * points(events)
    for name, value in ({} if events.context is None else events.context.fields).items():
        mask = events.context.masks.get(name)  # type: ignore[union-attr]
        kept = value if mask is None else torch.where(mask[..., None], value, 0.0)
        key = 31 * key + content_numbers(kept)
    return key


def _distinct(events: Events) -> tuple[Tensor, Tensor]:
    """The first row of each condition, and for every row which of them it has."""
    kinds, where = torch.unique(condition_numbers(events), return_inverse=True)
    rows = torch.arange(len(events), device=where.device)
    first = torch.full((len(kinds),), len(events), device=where.device).scatter_reduce(0, where, rows, "amin")
    return first, where


def _first_masks(events: Events) -> Events:
    """The same with the real points first, whichever they were: Z knows no order."""
    if events.mask is None:
        return events
    mask = torch.arange(events.mask.shape[1], device=events.x.device) < points(events)[:, None]
    return events.replace(masks={**events.masks, next(iter(events.fields)): mask})


def _padded(events: Events, size: int) -> list[Events]:
    """Pieces of one size, the last one filled up with its last row."""
    count = len(events)
    rows = torch.arange(-(-count // size) * size, device=events.x.device).clamp(max=count - 1)
    return [events[part] for part in rows.split(size)]
