"""Random fields on periodic grids: chosen power spectra, their estimate, lognormal maps, maps with small scales to be restored."""

from __future__ import annotations

from pofx.simulators.fields.dust import DustMap
from pofx.simulators.fields.gaussian import GaussianField, Lattice
from pofx.simulators.fields.maps import RandomField
from pofx.simulators.fields.measured import Measured, power_spectrum
from pofx.simulators.fields.spectrum import Spectrum

__all__ = ["DustMap", "GaussianField", "Lattice", "Measured", "RandomField", "Spectrum", "power_spectrum"]
