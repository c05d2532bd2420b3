r"""Multijet events for background templates (arXiv:1903.02556): masses given momenta and numbers of jets, with their density.

.. math:: n - 2 \sim \mathrm{Poisson}(1.2), \qquad p_T / 100\ \mathrm{GeV} \sim \mathrm{Pareto}(4 + 0.5 (n - 2)), \qquad
          \ln \frac{m}{p_T} \sim N\left( -2 + 0.15 \ln \frac{p_T}{100} - 0.05\, n + 0.1\, \eta^2,\ 0.4^2 \right), \qquad \eta \sim N(0, 1)

A template learnt at low jet multiplicity is to predict m at high multiplicity.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.task_toys.base import Array, Toy, log_normal, rows_of

__all__ = ["Multijets"]

MEAN_EXTRA, WIDTH = 1.2, 0.4


class Multijets(Toy):
    """Field ``mass`` [GeV] of the leading jet given the context ``jet`` (pt [GeV], eta, number of jets).

    >>> events = Multijets().sample(4, seed=1)
    >>> Multijets().log_prob(events.x, events.context.x).shape
    (4,)
    """

    def spec(self) -> EventSpec:
        return vector_spec([Column("m", "GeV", "bounded", 0.0)], "mass")

    def context_spec(self) -> EventSpec:
        return vector_spec(
            [Column("pt", "GeV", "bounded", 100.0), Column("eta"), Column("jets", "", "discrete", 2.0)], "jet"
        )

    def sample(self, n: int, seed: int) -> Events:
        rng = np.random.default_rng(seed)
        jets = 2.0 + rng.poisson(MEAN_EXTRA, n)
        pt = 100.0 * (1.0 + rng.pareto(4.0 + 0.5 * (jets - 2.0)))
        context = np.stack([pt, rng.standard_normal(n), jets], 1)
        m = pt * np.exp(_mean(context) + WIDTH * rng.standard_normal(n))
        return Events({"mass": m[:, None]}, context=Events({"jet": context}))

    def log_prob(self, mass: ArrayLike, jet: ArrayLike) -> Array:
        """log p(m | pt, eta, jets), ``(n,)``."""
        m, context = rows_of(mass, 1, "mass")[:, 0], rows_of(jet, 3, "jet")
        log_m = np.log(np.where(m > 0, m, 1.0))
        return np.where(m > 0, log_normal(log_m - np.log(context[:, 0]), _mean(context), WIDTH) - log_m, -np.inf)

    def log_context(self, jet: ArrayLike) -> Array:
        """log p(pt, eta, jets), ``(n,)``."""
        pt, eta, jets = rows_of(jet, 3, "jet").T
        index = 4.0 + 0.5 * (jets - 2.0)
        momentum = stats.pareto.logpdf(pt / 100.0, index) - math.log(100.0)
        return np.asarray(stats.poisson.logpmf(jets - 2.0, MEAN_EXTRA) + momentum + log_normal(eta, 0.0, 1.0))


def _mean(context: Array) -> Array:
    pt, eta, jets = context.T
    return np.asarray(-2.0 + 0.15 * np.log(pt / 100.0) - 0.05 * jets + 0.1 * eta**2)
