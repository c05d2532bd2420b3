r"""Near and far detector: what the far one sees of an interaction, given what the near one saw, with p(far | near) in closed form.

True neutrino energy, inelasticity and containment:
:math:`E \sim \Gamma(4, 0.7\ \mathrm{GeV})` in (0.5, 8) GeV, :math:`y \sim \mathrm{Beta}(1.5, 3)`, :math:`c \sim \mathrm{Bernoulli}(0.8)`;
lepton :math:`\ell = (1 - y) E`, hadrons :math:`h = y E`.

.. math:: \mathrm{ND:} \quad & \ell_n = \ell\, (1 + 0.04\, g_1), \quad h_n = h\, (0.85 + 0.25\, g_2)_{> 0}, \quad
          \theta = \sqrt{0.4\, y / ((1 - y) E)} + 0.02\, g_3, \quad c \\
          \mathrm{FD:} \quad & \mathrm{logit}\, s \sim 0.7\, N(2.5 - 2 y_n, 0.6^2) + 0.3\, N(-0.5 - 2 y_n, 0.9^2), \quad y_n = h_n /
          (\ell_n + h_n) \\ & \ln \ell_f \sim N(\ln \ell_n - 0.02 (1 - c), (0.05 + 0.10 (1 - c))^2) \\
          & \ln h_f \sim 0.8\, N(\ln 0.9 h_n, 0.20^2) + 0.2\, N(\ln 0.5 h_n, 0.35^2) \\
          & \ln E_f \sim N(\ln(\ell_f + h_f), 0.01^2)

The score depends on the inelasticity that the near detector saw, so that the density given the near detector alone is closed. With the
flux of the far detector, E is drawn with the survival probability of muon neutrinos, :math:`1 - \sin^2 2\theta\, \sin^2(1.267\, \Delta
m^2 L / E)`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from pofx.config import check_choice
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, vector_spec
from pofx.simulators.task_toys.base import Array, Toy, log_normal, rows_of, truncated

__all__ = ["NearFar", "survival"]

NEAR = (
    Column("lepton", "GeV", "bounded", 0.0),
    Column("hadrons", "GeV", "bounded", 0.0),
    Column("theta", "rad"),
    Column("contained", "", "discrete", 0.0, 1.0),
)
FAR = (
    Column("score", "", "bounded", 0.0, 1.0),
    Column("energy", "GeV", "bounded", 0.0),
    Column("lepton", "GeV", "bounded", 0.0),
    Column("hadrons", "GeV", "bounded", 0.0),
)
ENERGY = stats.gamma(4.0, scale=0.7)
LOW, HIGH = 0.5, 8.0


def survival(energy: ArrayLike, baseline: float = 1285.0, splitting: float = 2.5e-3, mixing: float = 0.99) -> Array:
    """Of muon neutrinos of these energies [GeV]; baseline in km, splitting in eV^2, mixing sin^2 of twice the angle.

    >>> survival([2.6, 1e6]).round(3).tolist()
    [0.01, 1.0]
    """
    phase = 1.267 * splitting * baseline / np.asarray(energy, np.float64)
    return np.asarray(1.0 - mixing * np.sin(phase) ** 2)


class NearFar(Toy):
    """Field ``far`` (score, energy, lepton, hadrons) given the context ``near`` (lepton, hadrons, angle, containment).

    Parameters
    ----------
    flux : ``"near"``, or ``"far"`` with oscillations: for tests of extrapolation.

    >>> events = NearFar().sample(3, seed=1)
    >>> events.x.shape, NearFar().log_prob(events.x, events.context.x).shape
    ((3, 4), (3,))
    """

    def __init__(self, flux: Literal["near", "far"] = "near") -> None:
        self.flux = flux
        check_choice(self, "flux", ("near", "far"))

    def spec(self) -> EventSpec:
        return vector_spec(FAR, "far")

    def context_spec(self) -> EventSpec:
        return vector_spec(NEAR, "near")

    def sample(self, n: int, seed: int) -> Events:
        return self.sample_with_energy(n, seed)[0]

    def sample_with_energy(self, n: int, seed: int) -> tuple[Events, Array]:
        """Events, and their true neutrino energies ``(n,)``, with which samples can be weighted to another flux."""
        rng = np.random.default_rng(seed)
        energy = self._energies(n, rng)
        near = _near(energy, rng)
        return Events({"far": _far(near, rng)}, context=Events({"near": near})), energy

    def log_prob(self, far: ArrayLike, near: ArrayLike) -> Array:
        """log p(far | near), ``(n,)``, in the units of the columns."""
        s, e, lepton, hadrons = rows_of(far, 4, "far").T
        lepton_n, hadrons_n, _, c = rows_of(near, 4, "near").T
        inside = (s > 0) & (s < 1) & (e > 0) & (lepton > 0) & (hadrons > 0)
        s, e, lepton, hadrons = (np.where(inside, column, 0.5) for column in (s, e, lepton, hadrons))
        y = hadrons_n / (lepton_n + hadrons_n)
        score = _mixture(special.logit(s), ((0.7, 2.5 - 2 * y, 0.6), (0.3, -0.5 - 2 * y, 0.9))) - np.log(s * (1 - s))
        log_l, log_h = np.log(lepton), np.log(hadrons)
        seen = log_normal(log_l, np.log(lepton_n) - 0.02 * (1 - c), 0.05 + 0.10 * (1 - c)) - log_l
        jet = _mixture(log_h - np.log(hadrons_n), ((0.8, math.log(0.9), 0.20), (0.2, math.log(0.5), 0.35))) - log_h
        sum_ = log_normal(np.log(e), np.log(lepton + hadrons), 0.01) - np.log(e)
        return np.where(inside, score + seen + jet + sum_, -np.inf)

    def _energies(self, n: int, rng: np.random.Generator) -> Array:
        """From the truncated law, by inversion; with oscillations a share of them."""
        ends, kept, count = (ENERGY.cdf(LOW), ENERGY.cdf(HIGH)), [np.zeros(0)], 0
        while count < n:
            drawn: Array = ENERGY.ppf(ends[0] + rng.random(2 * n + 10) * (ends[1] - ends[0]))
            if self.flux == "far":
                drawn = drawn[rng.random(len(drawn)) < survival(drawn)]
            kept.append(drawn)
            count += len(drawn)
        return np.concatenate(kept)[:n]


def _near(energy: Array, rng: np.random.Generator) -> Array:
    n = len(energy)
    y, c = rng.beta(1.5, 3.0, n), (rng.random(n) < 0.8).astype(np.float64)
    lepton = (1 - y) * energy * (1 + 0.04 * rng.standard_normal(n))
    hadrons = y * energy * truncated(rng, np.full(n, 0.85), 0.25)
    theta = np.sqrt(0.4 * y / ((1 - y) * energy)) + 0.02 * rng.standard_normal(n)
    return np.stack([lepton, hadrons, theta, c], 1)


def _far(near: Array, rng: np.random.Generator) -> Array:
    lepton_n, hadrons_n, _, c = near.T
    n = len(near)
    y, (u, v), g = hadrons_n / (lepton_n + hadrons_n), rng.random((2, n)), rng.standard_normal((4, n))
    score = special.expit(np.where(u < 0.7, 2.5 + 0.6 * g[0], -0.5 + 0.9 * g[0]) - 2 * y)
    lepton = lepton_n * np.exp(-0.02 * (1 - c) + (0.05 + 0.10 * (1 - c)) * g[1])
    hadrons = hadrons_n * np.where(v < 0.8, 0.9 * np.exp(0.20 * g[2]), 0.5 * np.exp(0.35 * g[2]))
    energy = (lepton + hadrons) * np.exp(0.01 * g[3])
    return np.stack([score, energy, lepton, hadrons], 1)


def _mixture(x: Array, parts: tuple[tuple[float, ArrayLike, float], ...]) -> Array:
    found: Array = special.logsumexp([math.log(w) + log_normal(x, mean, width) for w, mean, width in parts], axis=0)
    return found
