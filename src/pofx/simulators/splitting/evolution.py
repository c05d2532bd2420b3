r"""The shower itself: dipoles that split at falling transverse momentum, by the veto algorithm, for many events at a time.

All ends of all dipoles of an event compete: with a constant overestimate R of the sum of their rates, the next scale is
:math:`t\, u^{1/R}`; one end is chosen by its share, z from the overestimate, and the splitting is accepted with the ratio of the true to
the overestimated density. A rejected one only lowers t. That is exact (arXiv:1211.7204), and every step is an operation on arrays.

A splitting of parton P with spectator K, both massless, keeps the total momentum and every mass (Catani and Seymour, hep-ph/9605323):

.. math:: p_i = z P + y (1 - z) K + k_T, \qquad p_j = (1 - z) P + y z K - k_T, \qquad p_k = (1 - y) K
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pofx.simulators.splitting.kernels import C_A, C_F, T_R, Array, Coupling, emission_kernel, pair_kernel

__all__ = ["Emissions", "Evolution"]

Rows = NDArray[np.intp]
METRIC = np.array([-1.0, -1.0, -1.0, 1.0])
SOFT, FLAT, PAIR = range(3)


@dataclass
class Emissions:
    """All splittings as they happened: event, scale t, z, squared mass of the dipole, and whether P_qq (0), P_gg (1) or P_gq (2)."""

    parts: list[Array] = field(default_factory=list)

    def add(self, event: Rows, *columns: Array) -> None:
        """Of some events, one each."""
        self.parts.append(np.stack([event.astype(np.float64), *columns], 1))

    def table(self) -> Array:
        """``(splittings, 5)``: event, t, z, q2, channel."""
        return np.concatenate([np.zeros((0, 5)), *self.parts])


@dataclass(frozen=True)
class _Proposal:
    """One proposed splitting of each of some events."""

    event: Rows
    parton: Rows
    side: Rows
    pair: NDArray[np.bool_]
    z: Array
    y: Array
    t: Array
    q2: Array


class Evolution:
    """Events that begin with two partons along the z axis, at rest together.

    Parameters
    ----------
    coefficients : ``(n, 8)``, of each event.
    gluons : whether the two are gluons, else a quark (along z) and its antiquark.
    energy : of the two together, GeV.
    cutoff : smallest transverse momentum, GeV.

    Attributes
    ----------
    momenta : ``(n, m, 4)``, px, py, pz, e in GeV; ``count`` of the m are partons.
    kinds : ``(n, m)``, 1 quark, -1 antiquark, 0 gluon.
    links : ``(n, m, 2)``, which parton is on the other side of the colour and of the anticolour line; -1 for none.
    """

    def __init__(self, coefficients: Array, gluons: bool, energy: float, cutoff: float, coupling: Coupling) -> None:
        n = len(coefficients)
        self.coefficients, self.coupling, self.low = coefficients, coupling, cutoff**2
        self.momenta, self.kinds = np.zeros((n, 8, 4)), np.zeros((n, 8), np.int64)
        self.links, self.count = np.full((n, 8, 2), -1), np.full(n, 2)
        self.momenta[:, :2] = 0.5 * energy * np.array([[0, 0, 1, 1], [0, 0, -1, 1]])
        self.links[:, :2] = [[1, 1], [0, 0]] if gluons else [[1, -1], [-1, 0]]
        self.kinds[:, :2] = 0 if gluons else [1, -1]
        self.log_t = np.full(n, math.log(0.25 * energy**2))
        self.most = float(coupling(self.low))
        self.rates, self.q2 = np.zeros((n, 8, 2, 3)), np.zeros((n, 8, 2))
        self._update(np.arange(n))

    def run(self, rng: np.random.Generator, emissions: Emissions | None = None, limit: int | None = None) -> None:
        """Until every scale is below the cut-off (or every event has ``limit`` partons more, for tests of single splittings)."""
        rows = np.arange(len(self.log_t))
        while len(rows):
            total = self.rates[rows].sum((1, 2, 3))
            with np.errstate(divide="ignore"):
                self.log_t[rows] += np.log(rng.random(len(rows))) / total
            rows = rows[self.log_t[rows] > math.log(self.low)]
            if not len(rows):
                return
            proposal = self._propose(rows, rng)
            taken = rng.random(len(rows)) < self._ratio(proposal)
            self._split(_chosen(proposal, taken), rng, emissions)
            if limit is not None:
                rows = rows[self.count[rows] < 2 + limit]

    def _update(self, rows: Rows) -> None:
        """Overestimated rates of every end of these events, in the parts soft, flat and pair."""
        p, links, k = self.momenta[rows], self.links[rows], self.coefficients[rows][:, :, None, None]
        across = np.take_along_axis(p[:, None], np.maximum(links, 0).transpose(0, 2, 1)[..., None], 2)
        q2 = 2.0 * np.einsum("nmi,nsmi,i->nms", p, across, METRIC)
        open_ = (links >= 0) & (q2 > 4.0 * self.low)
        root = np.sqrt(np.where(open_, 1.0 - 4.0 * self.low / np.where(open_, q2, 1.0), 0.0))
        glue = (self.kinds[rows] == 0)[..., None]
        over = _over(k, glue, self.coupling.flavours)
        depth = 2.0 * np.arctanh(root)
        self.q2[rows] = q2
        self.rates[rows] = (
            self.most / math.tau * np.stack([over[SOFT] * depth, over[FLAT] * root, over[PAIR] * root], -1)
        )

    def _propose(self, rows: Rows, rng: np.random.Generator) -> _Proposal:
        shares = self.rates[rows].reshape(len(rows), -1).cumsum(1)
        place = (shares < (rng.random(len(rows)) * shares[:, -1])[:, None]).sum(1).clip(max=shares.shape[1] - 1)
        parton, side, part = np.unravel_index(place, self.rates.shape[1:])
        q2, t = self.q2[rows, parton, side], np.exp(self.log_t[rows])
        root = np.sqrt(1.0 - 4.0 * self.low / q2)
        u = rng.random(len(rows))
        log_ends = np.log(0.5 * (1.0 - root)), np.log(0.5 * (1.0 + root))
        soft = 1.0 - np.exp(log_ends[0] + u * (log_ends[1] - log_ends[0]))
        z = np.where(part == SOFT, soft, 0.5 + root * (u - 0.5))
        return _Proposal(rows, parton, side, part == PAIR, z, t / (q2 * z * (1.0 - z)), t, q2)

    def _ratio(self, at: _Proposal) -> Array:
        """True over overestimated density; zero outside the phase space."""
        k, glue = self.coefficients[at.event], self.kinds[at.event, at.parton] == 0
        y = np.minimum(at.y, 1.0)
        over = _over(k, glue, self.coupling.flavours)
        emission = np.where(glue, 0.5, 1.0) * emission_kernel(at.z, y, k, glue)
        pair = 0.5 * self.coupling.flavours * pair_kernel(at.z, y, k)
        below = np.where(at.pair, over[PAIR], over[SOFT] / (1.0 - at.z) + over[FLAT])
        return self.coupling(at.t) / self.most * (1.0 - y) * np.where(at.pair, pair, emission) / below

    def _split(self, at: _Proposal, rng: np.random.Generator, emissions: Emissions | None) -> None:
        rows = at.event
        if not len(rows):
            return
        if self.count[rows].max() == self.momenta.shape[1]:
            self._grow()
        if emissions is not None:
            channel = np.where(at.pair, 2.0, np.where(self.kinds[rows, at.parton] == 0, 1.0, 0.0))
            emissions.add(rows, at.t, at.z, at.q2, channel)
        new, spectator = self.count[rows], self.links[rows, at.parton, at.side]
        self._move(at, spectator, new, rng)
        self._recolour(at, spectator, new)
        self.count[rows] += 1
        self._update(rows)

    def _move(self, at: _Proposal, spectator: Rows, new: Rows, rng: np.random.Generator) -> None:
        """Momenta of emitter, emitted and spectator."""
        rows = at.event
        emitter, other = self.momenta[rows, at.parton], self.momenta[rows, spectator]
        turn = math.tau * rng.random(len(rows))
        across = _across(emitter, other, 0.5 * at.q2)
        kt = np.sqrt(at.t)[:, None] * (np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1])
        z, y = at.z[:, None], at.y[:, None]
        self.momenta[rows, at.parton] = z * emitter + y * (1.0 - z) * other + kt
        self.momenta[rows, new] = (1.0 - z) * emitter + y * z * other - kt
        self.momenta[rows, spectator] = (1.0 - y) * other

    def _recolour(self, at: _Proposal, spectator: Rows, new: Rows) -> None:
        """A gluon comes between emitter and spectator; a pair shares the two lines of the gluon that it was."""
        for pair, change in ((False, self._insert), (True, self._divide)):
            these = at.pair == pair
            change(at.event[these], at.parton[these], at.side[these], spectator[these], new[these])

    def _insert(self, rows: Rows, i: Rows, side: Rows, k: Rows, j: Rows) -> None:
        self.kinds[rows, j] = 0
        self.links[rows, i, side] = self.links[rows, k, 1 - side] = j
        self.links[rows, j, side], self.links[rows, j, 1 - side] = k, i

    def _divide(self, rows: Rows, i: Rows, _side: Rows, _k: Rows, j: Rows) -> None:
        other = self.links[rows, i, 1]
        self.kinds[rows, i], self.kinds[rows, j] = 1, -1
        self.links[rows, other, 0] = j
        self.links[rows, j, 0], self.links[rows, j, 1] = -1, other
        self.links[rows, i, 1] = -1

    def _grow(self) -> None:
        """Room for twice as many partons."""
        self.momenta, self.kinds = _doubled(self.momenta, 0.0), _doubled(self.kinds, 0)
        self.links, self.rates, self.q2 = _doubled(self.links, -1), _doubled(self.rates, 0.0), _doubled(self.q2, 0.0)


def _doubled(array: NDArray[Any], filler: float) -> Any:
    return np.concatenate([array, np.full_like(array, filler)], 1)


def _chosen(proposal: _Proposal, taken: NDArray[np.bool_]) -> _Proposal:
    return _Proposal(**{name: value[taken] for name, value in vars(proposal).items()})


def _over(k: Array, glue: NDArray[np.bool_], flavours: int) -> tuple[Array, Array, Array]:
    """Overestimates of one end: what multiplies 1 / (1 - z), and constants for what is left of the emission and for pairs."""
    d, f, c = (np.where(glue, k[:, 3 + i], k[:, i]) for i in range(3))
    colour = np.where(glue, 0.5 * C_A, C_F)
    flat = colour * (np.where(glue, 0.25, 1.0) * f + 0.25 * np.maximum(c, 0.0))
    pair = np.where(glue, 0.5 * flavours * T_R * (k[:, 6] + 0.25 * np.maximum(k[:, 7], 0.0)), 0.0)
    return 2.0 * colour * d, flat, pair


def _across(p: Array, k: Array, product: Array) -> tuple[Array, Array]:
    """Two unit vectors (of square -1) orthogonal to the light-like p and k and to each other; ``product`` is p k."""
    gained = 2.0 * p[:, :3] * k[:, :3] / product[:, None]  # an axis, made orthogonal, has the square -(1 + this)
    axis = gained.argmax(1)
    rows = np.arange(len(p))
    pull_p, pull_k = k[rows, axis] / product, p[rows, axis] / product
    first = pull_p[:, None] * p + pull_k[:, None] * k
    first[rows, axis] += 1.0
    first /= np.sqrt(-(first**2 @ METRIC))[:, None]
    return first, _fourth(first, p, k) / product[:, None]


def _fourth(a: Array, b: Array, c: Array) -> Array:
    """The vector orthogonal to three others, by the totally antisymmetric symbol."""
    (x, x0), (y, y0), (z, z0) = ((vector[:, :3], vector[:, 3:]) for vector in (a, b, c))
    yz, zx, xy = np.cross(y, z), np.cross(z, x), np.cross(x, y)
    return np.concatenate([x0 * yz + y0 * zx + z0 * xy, (x * yz).sum(1, keepdims=True)], 1)
