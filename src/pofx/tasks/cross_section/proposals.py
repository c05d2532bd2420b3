r"""Proposals for importance sampling: mixtures of simple laws whose ratio to a density q is known.

A law is normal or Student-t in one of these coordinates v of an event x:

- the normal *noise* that a model decodes, where q is a standard normal: :math:`g/q = g_v(v) / N(v; 0, 1)`, whatever ``decode`` does;
- the whitened *bins*, or their whitened logarithms: :math:`g/q = g_v(v) |dv/dx| / q(x)`;
- none: the density draws by itself, :math:`g/q = 1`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from pofx.errors import RangeWarning
from pofx.tasks.cross_section.coordinates import Density
from pofx.training.noise import derive_seed

__all__ = ["Law", "Points", "Sampler", "Score", "shared"]

Floats = NDArray[np.float64]
Score = Callable[[Floats, Floats], Floats]
SCALES = tuple(1.15**k for k in range(1, 19))
"""Of the broadened copies, up to 12."""
DEGREES = 5.0
"""Of freedom of the Student-t laws."""
FEW = 16
"""Bins up to which the tail of a model that encodes is searched in the bins too."""
BLOCK = 8192
"""Events that a model decodes or encodes at a time."""


class Noise:
    """The normal noise of a model; noise of another kind stays as it is."""

    name, normal = "noise", True

    def __init__(self, model: Any) -> None:
        self.model = model
        shapes = model.family.noise_shapes(model.layout)
        self.names = [name for name, shape in shapes.items() if shape.kind == "normal"]
        self.sizes = [math.prod(shapes[name].shape) for name in self.names]
        self.size = sum(self.sizes)
        self.invertible = (
            model.family.capabilities.encode and model.density == "exact" and len(self.names) == len(shapes)
        )

    def locate(self, x: Floats, logp: Floats, drawn: Floats, mine: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Coordinates v ``(n, size)``, and what turns the log-density of v into its ratio to q, ``(n,)``.

        ``mine``: events that were ``drawn`` here, whose v is known.
        """
        v = np.zeros((len(x), self.size))
        v[mine] = drawn
        import torch

        rows = np.flatnonzero(~mine & np.isfinite(logp))
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            with torch.no_grad():
                noise = self.model.encode(x[block])
            v[block] = np.concatenate([noise[name].double().flatten(1).cpu().numpy() for name in self.names], axis=1)
        return v, 0.5 * (v**2).sum(1) + 0.5 * self.size * math.log(math.tau)

    def events(self, v: Floats, seed: int) -> Floats:
        """Events ``(n, bins)``."""
        return np.concatenate([self._block(v[i : i + BLOCK], seed, i) for i in range(0, len(v), BLOCK)])

    def _block(self, v: Floats, seed: int, start: int) -> Floats:
        import torch

        noise = self.model.noise(len(v), seed=seed, start=start)
        for name, part in zip(self.names, np.split(v, np.cumsum(self.sizes)[:-1], axis=1), strict=True):
            noise[name] = torch.as_tensor(part).to(noise[name]).reshape(noise[name].shape)
        with torch.no_grad():
            return np.asarray(self.model.decode(noise).double().cpu().numpy())


class Bins:
    """The bins, or their logarithms, whitened with the moments of toys."""

    normal = False

    def __init__(self, toys: Floats, logarithmic: bool) -> None:
        self.name, self.logarithmic, self.size = "log bins" if logarithmic else "bins", logarithmic, toys.shape[1]
        rows = np.log(toys) if logarithmic else toys
        self.mean, self.scale = rows.mean(0), rows.std(0, ddof=1)
        correlation = np.atleast_2d(np.corrcoef(rows.T))
        self.root = linalg.cholesky(correlation + 1e-9 * np.eye(self.size), lower=True)
        self.constant = -float(np.log(self.scale).sum() + np.log(np.diag(self.root)).sum())

    def locate(self, x: Floats, logp: Floats, drawn: Floats, mine: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """See :meth:`Noise.locate`: log|dv/dx| - log q(x)."""
        rows = np.log(np.where(x > 0, x, 1.0)) if self.logarithmic else x
        v = linalg.solve_triangular(self.root, ((rows - self.mean) / self.scale).T, lower=True).T
        known = np.isfinite(logp) & ((x > 0).all(1) if self.logarithmic else True)
        jacobian = self.constant - (rows.sum(1) if self.logarithmic else np.zeros(len(x)))
        return v, np.where(known, jacobian - np.where(known, logp, 0.0), -np.inf)

    def events(self, v: Floats, seed: int) -> Floats:
        """Events ``(n, bins)``."""
        rows = self.mean + self.scale * (v @ self.root.T)
        return np.exp(rows) if self.logarithmic else rows


class Own:
    """No coordinates: the density draws by itself."""

    name, normal, size = "density", True, 0

    def __init__(self, density: Density) -> None:
        self.density = density

    def locate(self, x: Floats, logp: Floats, drawn: Floats, mine: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """See :meth:`Noise.locate`."""
        return np.zeros((len(x), 0)), np.zeros(len(x))

    def events(self, v: Floats, seed: int) -> Floats:
        """Events ``(n, bins)``."""
        return np.asarray(self.density.sample(len(v), seed=seed), np.float64)


@dataclass(frozen=True, eq=False)
class Law:
    """One part of the proposal: mean + root e in a frame, with e normal or Student-t."""

    frame: Any
    mean: Floats
    root: Floats
    degrees: float = math.inf
    share: float = 1.0

    def draw(self, n: int, rng: np.random.Generator) -> Floats:
        """``(n, d)``."""
        e = rng.standard_normal((n, len(self.mean)))
        if math.isfinite(self.degrees):
            e *= np.sqrt(self.degrees / rng.chisquare(self.degrees, n))[:, None]
        return np.asarray(self.mean + e @ self.root.T)

    def log_density(self, v: Floats) -> Floats:
        """``(n,)`` of v ``(n, d)``."""
        d, nu = len(self.mean), self.degrees
        if d == 0:
            return np.zeros(len(v))
        square = (linalg.solve_triangular(self.root, (v - self.mean).T, lower=True) ** 2).sum(0)
        constant = -float(np.log(np.diag(self.root)).sum())
        if math.isinf(nu):
            return np.asarray(constant - 0.5 * d * math.log(math.tau) - 0.5 * square)
        norm = special.gammaln((nu + d) / 2) - special.gammaln(nu / 2) - 0.5 * d * math.log(nu * math.pi)
        return np.asarray(constant + norm - 0.5 * (nu + d) * np.log1p(square / nu))


@dataclass(frozen=True, eq=False)
class Points:
    """Proposed events: their scores, coordinates by frame, log(g_k / q) of every law ``(k, n)``, and logarithms of weights."""

    score: Floats
    coordinates: dict[str, Floats]
    ratios: Floats
    log_weight: Floats

    def weights(self, threshold: float) -> Floats:
        """``(n,)``, zero outside the tail."""
        return np.where(self.score <= threshold, np.exp(self.log_weight), 0.0)


class Sampler:
    """Draws from mixtures of laws, and knows their ratio to the density; scores are of events and their log-densities."""

    def __init__(self, density: Density, score: Score, seed: int) -> None:
        self.density, self.score, self.seed = density, score, seed
        noise = Noise(density) if _decodes(density) else None
        self.frames: dict[str, Any] = {"density": Own(density)} if noise is None else {"noise": noise}
        if noise is None or (noise.invertible and noise.size <= FEW):
            toys = np.asarray(density.sample(20_000, seed=derive_seed(seed, "moments")), np.float64)
            made = [Bins(toys, False), *([Bins(toys, True)] if (toys > 0).all() else [])]
            self.frames |= {frame.name: frame for frame in made}

    def start(self) -> list[Law]:
        """The density itself first, and broadened copies."""
        laws = []
        for frame in self.frames.values():
            scales = () if not frame.size else SCALES if frame.normal else SCALES[::3]
            degrees = math.inf if frame.normal else DEGREES
            first = [Law(frame, np.zeros(frame.size), np.eye(frame.size))] if frame.normal else []
            laws += first + [Law(frame, np.zeros(frame.size), s * np.eye(frame.size), degrees) for s in scales]
        return shared(laws, np.ones(len(laws)))

    def draw(self, laws: list[Law], n: int, what: str) -> Points:
        """Events of the mixture."""
        seed = derive_seed(self.seed, what)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n, [law.share for law in laws])
        drawn = [law.draw(int(k), rng) for law, k in zip(laws, counts, strict=True)]
        parts = [
            law.frame.events(v, derive_seed(seed, f"law {i}"))
            for i, (law, v) in enumerate(zip(laws, drawn, strict=True))
            if len(v)
        ]
        x = np.concatenate(parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RangeWarning)  # the far tail lies outside the trained range on purpose
            logp = np.asarray(self.density.log_prob(x), np.float64)
        return self._weighted(laws, drawn, x, logp)

    def _weighted(self, laws: list[Law], drawn: list[Floats], x: Floats, logp: Floats) -> Points:
        where = np.repeat([law.frame.name for law in laws], [len(v) for v in drawn])
        coordinates, extra = {}, {}
        for name in dict.fromkeys(law.frame.name for law in laws):
            known = np.concatenate([v for law, v in zip(laws, drawn, strict=True) if law.frame.name == name])
            coordinates[name], extra[name] = self.frames[name].locate(x, logp, known, where == name)
        ratios = np.stack([law.log_density(coordinates[law.frame.name]) + extra[law.frame.name] for law in laws])
        shares = np.log([law.share for law in laws])
        weight = -special.logsumexp(ratios + shares[:, None], axis=0)
        possible = logp > -np.inf  # events of probability zero count for nothing
        score = np.full(len(x), np.inf)
        score[possible] = self.score(x[possible], logp[possible])
        return Points(score, coordinates, ratios, np.where(possible, weight, -np.inf))


def shared(laws: list[Law], shares: Floats) -> list[Law]:
    """The laws with these shares, divided by their sum."""
    total = float(np.sum(shares))
    return [replace(law, share=float(share) / total) for law, share in zip(laws, shares, strict=True)]


def _decodes(density: Any) -> bool:
    family = getattr(density, "family", None)
    return bool(family is not None and family.capabilities.decode)
