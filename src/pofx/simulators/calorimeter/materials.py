"""Materials of calorimeters: what a parametrised shower needs to know of them, and what Geant4 calls them.

Numbers are of the Review of Particle Physics (Phys. Rev. D 110 (2024) 030001, atomic and nuclear properties). Z and A of compounds are
means over mass fractions, as in hep-ex/0001020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pofx.data.patterns import close
from pofx.errors import ConfigError

__all__ = ["MATERIALS", "Material", "material", "mixture"]

SCALE = 21.2
"""The energy that defines the Moliere radius, in MeV."""


@dataclass(frozen=True)
class Material:
    """One material.

    Attributes
    ----------
    geant4 : name in Geant4's table of NIST materials.
    density : g/cm3.
    x0 : radiation length in g/cm2.
    z, a : mean atomic number and mass [g/mol].
    mip : energy loss of a minimum ionising particle in MeV cm2/g.
    """

    geant4: str
    density: float
    x0: float
    z: float
    a: float
    mip: float

    @property
    def x0_mm(self) -> float:
        """Radiation length in mm."""
        return 10.0 * self.x0 / self.density

    @property
    def critical(self) -> float:
        """Critical energy in MeV, 2.66 (X0 Z / A)^1.1 (hep-ex/0001020)."""
        return float(2.66 * (self.x0 * self.z / self.a) ** 1.1)

    @property
    def moliere_mm(self) -> float:
        """Moliere radius in mm, X0 21.2 MeV / Ec."""
        return self.x0_mm * SCALE / self.critical


MATERIALS = {
    "Al": Material("G4_Al", 2.699, 24.01, 13.0, 26.98, 1.615),
    "BGO": Material("G4_BGO", 7.130, 7.97, 62.5, 155.5, 1.251),
    "CsI": Material("G4_CESIUM_IODIDE", 4.510, 8.39, 54.0, 129.9, 1.243),
    "Cu": Material("G4_Cu", 8.960, 12.86, 29.0, 63.55, 1.403),
    "Fe": Material("G4_Fe", 7.874, 13.84, 26.0, 55.85, 1.451),
    "LAr": Material("G4_lAr", 1.396, 19.55, 18.0, 39.95, 1.508),
    "Pb": Material("G4_Pb", 11.35, 6.37, 82.0, 207.2, 1.122),
    "PbWO4": Material("G4_PbWO4", 8.300, 7.39, 68.4, 170.9, 1.229),
    "Si": Material("G4_Si", 2.329, 21.82, 14.0, 28.09, 1.664),
    "W": Material("G4_W", 19.30, 6.76, 74.0, 183.84, 1.145),
    "polystyrene": Material("G4_POLYSTYRENE", 1.060, 43.79, 5.6, 11.2, 1.936),
}
"""By name. Minimal and official data of Geant4 have tables of all their elements."""


def material(name: str) -> Material:
    """The material of a name; ConfigError with the nearest names otherwise.

    >>> round(material("PbWO4").x0_mm, 1), round(material("PbWO4").critical, 1)
    (8.9, 8.8)
    """
    if name not in MATERIALS:
        raise ConfigError(f"no material is called {name!r}; {close(name, MATERIALS)}")
    return MATERIALS[name]


def mixture(parts: Sequence[tuple[Material, float]]) -> Material:
    r"""The effective medium of layers of given thicknesses [mm] (hep-ex/0001020).

    .. math:: w_i = \frac{\rho_i d_i}{\sum \rho_k d_k}, \quad Z = \sum w_i Z_i, \quad \frac{1}{X_0} = \sum \frac{w_i}{X_{0,i}}

    >>> round(mixture([(material("Pb"), 2.0), (material("LAr"), 4.0)]).x0_mm, 1)
    15.6
    """
    thickness = sum(depth for _, depth in parts)
    mass = sum(one.density * depth for one, depth in parts)
    shares = [(one, one.density * depth / mass) for one, depth in parts]

    def mean(name: str) -> float:
        return float(sum(share * getattr(one, name) for one, share in shares))

    x0 = 1.0 / sum(share / one.x0 for one, share in shares)
    return _Effective("", mass / thickness, x0, mean("z"), mean("a"), mean("mip"), _critical(shares, x0))


def _critical(shares: Sequence[tuple[Material, float]], x0: float) -> float:
    r"""Of a mixture, :math:`X_0 \sum w_i E_{c,i} / X_{0,i}`."""
    return x0 * sum(share * one.critical / one.x0 for one, share in shares)


@dataclass(frozen=True)
class _Effective(Material):
    """A mixture, whose critical energy is a mean."""

    mean_critical: float = 0.0

    @property
    def critical(self) -> float:
        return self.mean_critical
