"""Jets of the shower as clouds, with the coefficients of the kernels as context if they are drawn from a prior."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.events import Events
from pofx.data.numbers import Array
from pofx.data.spec import Column, EventSpec, Field, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.splitting.evolution import Evolution
from pofx.simulators.splitting.kernels import Coefficients, Coupling

__all__ = ["SplittingShower"]


@dataclass(frozen=True)
class SplittingShower(Simulator):
    """Jets of a parton shower with adjustable D, F and C of the kernels P_qq, P_gg and P_gq (toy of arXiv:2012.09873).

    Events are e+e- -> quark antiquark (or a colour singlet -> two gluons) at rest, showered down to the cut-off, without hadrons; see
    :mod:`pofx.simulators.splitting.kernels`. The quark, or the first gluon, begins along z.

    Attributes
    ----------
    start : what begins.
    energy, cutoff : of the whole event, and the smallest transverse momentum of a splitting; GeV.
    coefficients : D, F and C, unless a prior draws them.
    prior : draw them for every event, uniformly, D and F in (0.5, 2), C in (-2, 2) (our choice); they are the context.
    jet : the partons with pz > 0, or the whole ``event``.
    points : the cloud holds this many, those of the highest energy (the rest, if any, is left out); in order of falling energy.

    >>> jets = SplittingShower(prior=True)(10, seed=1)
    >>> jets.spec["partons"].names, jets.context_spec["coefficients"].names[:3]
    (('px', 'py', 'pz'), ('d_qq', 'f_qq', 'c_qq'))
    """

    name: ClassVar[str] = "splitting-shower"
    block: ClassVar[int] = 1000

    start: Literal["quark", "gluon"] = "quark"
    energy: float = 91.188
    cutoff: float = 1.0
    coefficients: Coefficients = field(default_factory=Coefficients)
    coupling: Coupling = field(default_factory=Coupling)
    prior: bool = False
    jet: Literal["hemisphere", "event"] = "hemisphere"
    points: int = 40

    def __post_init__(self) -> None:
        check_choice(self, "start", ("quark", "gluon"))
        check_choice(self, "jet", ("hemisphere", "event"))
        check_at_least(self, 1e-3, "energy", "cutoff")
        check_at_least(self, 2, "points")
        if self.energy <= 2.0 * self.cutoff:
            raise ConfigError(f"SplittingShower: expected energy > 2 cutoff; got {self.energy} and {self.cutoff} GeV")
        self.coupling(self.cutoff**2)

    def spec(self) -> EventSpec:
        columns = tuple(Column(name, "GeV") for name in ("px", "py", "pz"))
        return {"partons": Field("cloud", (self.points, 3), columns)}

    def context_spec(self) -> EventSpec | None:
        if not self.prior:
            return None
        columns = [Column(name, "", "bounded", *_range(name)) for name in Coefficients.names()]
        return vector_spec(columns, "coefficients")

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        values = self.draw(n, rng) if self.prior else np.tile(self.coefficients.array(), (n, 1))
        shower = self.evolution(values)
        shower.run(rng)
        partons, mask = self._hardest(shower)
        context = Events({"coefficients": values}) if self.prior else None
        return Events({"partons": partons}, {"partons": mask}, context)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Coefficients from the prior, ``(n, 8)``."""
        low, high = np.array([_range(name) for name in Coefficients.names()]).T
        return rng.uniform(low, high, (n, len(low)))

    def evolution(self, coefficients: Array) -> Evolution:
        """Events before their shower, one per row of coefficients ``(n, 8)``."""
        return Evolution(coefficients, self.start == "gluon", self.energy, self.cutoff, self.coupling)

    def _hardest(self, shower: Evolution) -> tuple[Array, Array]:
        p = shower.momenta
        real = np.arange(p.shape[1]) < shower.count[:, None]
        real = real & (p[..., 2] > 0) if self.jet == "hemisphere" else real
        order = np.argsort(np.where(real, -p[..., 3], 1.0), axis=1, kind="stable")[:, : self.points]
        mask = np.zeros((len(p), self.points), bool)
        partons = np.zeros((len(p), self.points, 3))
        width = order.shape[1]
        mask[:, :width] = np.take_along_axis(real, order, 1)
        partons[:, :width] = np.take_along_axis(p[..., :3], order[..., None], 1)
        return np.where(mask[..., None], partons, 0.0), mask


def _range(name: str) -> tuple[float, float]:
    return (-2.0, 2.0) if name.startswith("c") else (0.5, 2.0)
