r"""Showers by parametrisation: GFlash (Grindhammer and Peters, hep-ex/0001020; constants as in Geant4 11.4).

Along the shower, energy follows a Gamma distribution whose two parameters fluctuate together from shower to shower,

.. math:: \frac{dE}{dt} = E\, \beta \frac{(\beta t)^{\alpha - 1} e^{-\beta t}}{\Gamma(\alpha)}, \qquad \beta = \frac{\alpha - 1}{T},

with t in radiation lengths, and ln T and ln alpha correlated normal numbers. It is spread into spots, whose number per depth follows
another Gamma distribution, at radii of

.. math:: f(r) = p \frac{2 r R_c^2}{(r^2 + R_c^2)^2} + (1 - p) \frac{2 r R_t^2}{(r^2 + R_t^2)^2}

in Moliere radii, where core, tail and p change with depth. Sampling calorimeters are treated as one effective medium, with corrections
in the sampling frequency and the ratio of signals e/mip. Energies are in GeV here, lengths in radiation lengths and Moliere radii.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from pofx.data.numbers import Array
from pofx.simulators.calorimeter.geometry import Calorimeter
from pofx.simulators.calorimeter.materials import Material, material, mixture

__all__ = [
    "Medium",
    "Radial",
    "Shape",
    "cumulative",
    "draw_shapes",
    "fluctuations",
    "mean_logs",
    "medium_of",
    "radial",
    "sample_radius",
    "spot_count",
    "spot_shape",
]


@dataclass(frozen=True)
class Medium:
    """What the parametrisation knows of a calorimeter.

    Attributes
    ----------
    material : the effective one.
    frequency : sampling frequency, X0 / (absorber + active); 0 where it is homogeneous.
    e_mip : signal of electrons over that of minimum ionising particles; 1 where it is homogeneous.
    """

    material: Material
    frequency: float = 0.0
    e_mip: float = 1.0

    @property
    def sampling(self) -> bool:
        """Whether there is an absorber."""
        return self.frequency > 0

    @property
    def z(self) -> float:
        """Mean atomic number."""
        return self.material.z


def medium_of(stack: Calorimeter) -> Medium:
    """The effective medium; of a stack with several modules, means over the depth.

    >>> from pofx.simulators.calorimeter.geometry import CALORIMETERS
    >>> round(medium_of(CALORIMETERS["calogan"]).frequency, 2)
    2.6
    """
    parts = [(material(m.absorber), m.repeat * m.absorber_mm) for m in stack.modules if m.absorber]
    parts += [(material(m.active), m.repeat * m.active_mm) for m in stack.modules]
    whole = mixture(parts) if len(parts) > 1 else parts[0][0]
    sampling = [m for m in stack.modules if m.absorber]
    if not sampling:
        return Medium(whole)
    cells = sum(m.repeat for m in sampling)
    depth = sum(m.repeat * m.depth for m in sampling) / cells
    difference = sum(m.repeat * (material(m.absorber).z - material(m.active).z) for m in sampling) / cells
    return Medium(whole, whole.x0_mm / depth, 1.0 / (1.0 + 0.007 * difference))


@dataclass(frozen=True)
class Shape:
    """Of single showers; arrays ``(n,)``.

    Attributes
    ----------
    energy : GeV.
    alpha, depth : of the Gamma distribution, and its maximum T in X0.
    mean_alpha : exp of the mean of ln alpha.
    """

    energy: Array
    alpha: Array
    depth: Array
    mean_alpha: Array

    @property
    def beta(self) -> Array:
        """(alpha - 1) / T."""
        found: Array = (self.alpha - 1.0) / self.depth
        return found


def mean_logs(medium: Medium, energy: Array) -> tuple[Array, Array]:
    """Means of ln T and ln alpha, ``(n,)`` each."""
    log_y = np.log(1000.0 * energy / medium.material.critical)
    depth = np.maximum(log_y - 0.812, 0.1)
    alpha = np.maximum(0.81 + (0.458 + 2.26 / medium.z) * log_y, 0.1)
    if medium.sampling:
        depth = np.maximum(depth - 0.55 / medium.frequency - 0.69 * (1.0 - medium.e_mip), 0.1)
        alpha = np.maximum(alpha - 0.476 / medium.frequency, 0.1)
    return np.log(depth), np.log(alpha)


def fluctuations(medium: Medium, energy: Array) -> tuple[Array, Array, Array]:
    """Widths of ln T and ln alpha, at most 0.5 (the formula diverges at low energies), and their correlation; ``(n,)`` each."""
    log_y = np.log(1000.0 * energy / medium.material.critical)
    first, second = ((-2.5, 1.25), (-0.82, 0.79)) if medium.sampling else ((-1.4, 1.26), (-0.58, 0.86))
    widths = []
    for a, b in (first, second):
        widths.append(1.0 / np.maximum(a + b * log_y, 2.0))
    rho = (0.784 if medium.sampling else 0.705) - 0.023 * log_y
    return widths[0], widths[1], np.clip(rho, -1.0, 1.0)


def draw_shapes(medium: Medium, energy: Array, rng: np.random.Generator) -> Shape:
    """Showers of the given energies [GeV]."""
    log_depth, log_alpha = mean_logs(medium, energy)
    sigma_depth, sigma_alpha, rho = fluctuations(medium, energy)
    z = rng.standard_normal((2, len(energy)))
    common, apart = np.sqrt(0.5 * (1.0 + rho)) * z[0], np.sqrt(0.5 * (1.0 - rho)) * z[1]
    depth = np.exp(log_depth + sigma_depth * (common + apart))
    alpha = np.maximum(np.exp(log_alpha + sigma_alpha * (common - apart)), 1.1)
    return Shape(energy, alpha, depth, np.maximum(np.exp(log_alpha), 1.1))


def cumulative(shape: Shape, t: Array) -> Array:
    """Fraction of the energy within depths t ``(n, k)`` in X0."""
    found: Array = special.gammainc(shape.alpha[:, None], shape.beta[:, None] * np.maximum(t, 0.0))
    return found


def spot_shape(medium: Medium, shape: Shape) -> Shape:
    """The Gamma distribution of the number of spots."""
    if medium.sampling:
        factors = 0.844 + 0.0026 * medium.z, 0.813 + 0.0019 * medium.z
    else:
        factors = 0.639 + 0.00334 * medium.z, 0.698 + 0.00212 * medium.z
    alpha = np.maximum(shape.alpha * factors[0], 1.1)
    return Shape(shape.energy, alpha, shape.depth * factors[1], shape.mean_alpha)


def spot_count(medium: Medium, energy: Array, resolution: float) -> Array:
    """Spots per shower, of which a sampling calorimeter of resolution c has 10.3 / c E^0.959."""
    if medium.sampling:
        sampled: Array = 10.3 / resolution * energy**0.959
        return sampled
    homogeneous: Array = 93.0 * np.log(medium.z) * energy**0.876
    return homogeneous


@dataclass(frozen=True)
class Radial:
    """Core and tail in Moliere radii, and the fraction of the core."""

    core: Array
    tail: Array
    fraction: Array

    def __getitem__(self, rows: Any) -> Radial:
        return Radial(self.core[rows], self.tail[rows], self.fraction[rows])


def radial(medium: Medium, shape: Shape, t: Array) -> Radial:
    """At depths t ``(n, k)`` [X0] of showers ``(n,)``."""
    alpha, mean = shape.alpha[:, None], shape.mean_alpha[:, None]
    tau = t / shape.depth[:, None] * (alpha - 1.0) / alpha * mean / (mean - 1.0)
    log_e, z = np.log(shape.energy)[:, None], medium.z
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau
    tail = (0.659 - 0.00309 * z) * (np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0412 * log_e) * (tau - 0.645)))
    falling = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log_e)
    fraction = (2.632 - 0.00094 * z) * np.exp(falling - np.exp(falling))
    if medium.sampling:
        lack, rate = 1.0 - medium.e_mip, 1.0 / medium.frequency
        core = core - 0.0203 * lack + 0.0397 * rate * np.exp(-tau)
        tail = tail - 0.14 * lack - 0.495 * rate * np.exp(-tau)
        fraction = fraction + lack * (0.348 - 0.642 * rate * np.exp(-((tau - 1.0) ** 2)))
    return Radial(np.maximum(core, 1e-3), np.maximum(tail, 1e-3), np.clip(fraction, 0.0, 1.0))


def sample_radius(shape: Radial, rng: np.random.Generator) -> Array:
    """One radius for every element, in Moliere radii: R sqrt(u / (1 - u)) with R of the core or of the tail."""
    u = rng.random((2, *shape.core.shape))
    chosen = np.where(u[0] < shape.fraction, shape.core, shape.tail)
    found: Array = chosen * np.sqrt(u[1] / (1.0 - u[1]))
    return found
