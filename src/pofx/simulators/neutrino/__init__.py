"""A small neutrino measurement: charged-current quasi-elastic scattering of muon neutrinos on carbon, from flux to universes.

``cross_section`` and ``nucleus`` hold the physics in closed form, ``flux`` the beam, ``background`` pion production, ``events`` the
generators, ``detector`` the response, ``reweighting`` and ``simulation`` the simulated sample for any values of the ``parameters``,
``extraction`` the unfolding, ``prediction`` true cross sections by quadrature; ``experiment`` puts them together.
"""

from __future__ import annotations

from pofx.simulators.neutrino.cross_section import differential_cross_section, total_cross_section
from pofx.simulators.neutrino.experiment import Experiment
from pofx.simulators.neutrino.flux import Flux
from pofx.simulators.neutrino.nucleus import bound_cross_section
from pofx.simulators.neutrino.parameters import PARAMETERS, Parameter, Parameters

__all__ = [
    "PARAMETERS",
    "Experiment",
    "Flux",
    "Parameter",
    "Parameters",
    "bound_cross_section",
    "differential_cross_section",
    "total_cross_section",
]
