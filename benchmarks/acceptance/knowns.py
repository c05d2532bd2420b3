"""The known densities of any dimension that families are measured on, with or without a context."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import pofx
from pofx.simulators.densities import (
    Conditional,
    CorrelatedGaussian,
    DependentBeta,
    Lognormal,
    Mixture,
    Truth,
    VonMisesChain,
    correlation_matrix,
)

CONTEXT = 2
"""Columns of the context of conditional densities."""
DATA_SEED, FRESH_SEED = 11, 12
SPLIT = (0.95, 0.05, 0.0)
Make = Callable[[int], Truth]


def gaussian(d: int) -> Truth:
    """Of different means, widths and correlations."""
    width = np.geomspace(0.1, 10.0, d)
    return CorrelatedGaussian(np.linspace(-3.0, 3.0, d), correlation_matrix(d) * width[:, None] * width)


def mixture(d: int) -> Truth:
    """Three components that differ in place, size and correlation."""
    rng = np.random.default_rng(5)
    means = 1.5 * rng.standard_normal((3, d))
    spreads = [0.5 * correlation_matrix(d, 0.0, 3.0), correlation_matrix(d, 0.6, 6.0), 1.5 * np.eye(d)]
    return Mixture([0.5, 0.3, 0.2], means, np.stack(spreads))


def lognormal(d: int) -> Truth:
    """A falling spectrum with relative errors from 10 % to 90 %."""
    mean, relative = np.exp(-np.arange(d) / 10), np.geomspace(0.1, 0.9, d)
    return Lognormal.from_moments(mean, correlation_matrix(d) * (relative * mean)[:, None] * (relative * mean))


def beta(d: int) -> Truth:
    """From rising to falling, some without bound at an end."""
    return DependentBeta(np.linspace(0.8, 4.0, d), np.linspace(3.0, 0.8, d))


def von_mises(d: int) -> Truth:
    """A chain of angles that wraps around."""
    return VonMisesChain(d)


TRUTHS: dict[str, Make] = {
    "gaussian": gaussian,
    "mixture": mixture,
    "lognormal": lognormal,
    "beta": beta,
    "von-mises": von_mises,
}


class Drawn(NamedTuple):
    """Events and contexts, with their exact log-density."""

    x: Any
    context: Any
    log_prob: Any


def drawn(make: Make, d: int, conditional: bool, n: int, seed: int) -> Drawn:
    """n events of dimension d, or with a context beside."""
    if not conditional:
        truth = make(d)
        x = truth.sample(n, seed)
        return Drawn(x, None, truth.log_prob(x))
    both = Conditional(make(d + CONTEXT), CONTEXT)
    x, c = both.sample(n, seed)
    return Drawn(x, c, both.log_prob(x, c))


def data_set(make: Make, d: int, conditional: bool, n: int) -> pofx.Dataset:
    """The events to learn from, declared as the truth declares them."""
    events = drawn(make, d, conditional, n, DATA_SEED)
    columns = make(d + CONTEXT * conditional).columns()
    cut = CONTEXT * conditional
    names = {"columns": columns[cut:], "context_columns": columns[:cut] or None}
    return pofx.Dataset.from_arrays(events.x, events.context, **names).with_split(SPLIT)
