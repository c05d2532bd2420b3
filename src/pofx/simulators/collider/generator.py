r"""Pythia 8 (arXiv:2203.11601) in batches: settings, a seed, awkward arrays of particles, weights.

Rare regions are reached by biasing the phase space: events are made with density :math:`(\hat p_T / p_0)^k\, d\sigma` and carry the weight
:math:`(p_0 / \hat p_T)^k` (``PhaseSpace:bias2Selection``), with :math:`p_0` the lower end of the generated range. So no weight is above
one, and weights of different blocks belong together. They are relative weights: their sum is not a cross-section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pofx.config import check_at_least, check_choice
from pofx.data.numbers import Array
from pofx.errors import ConfigError, PofxError

__all__ = ["SHOWERS", "Batch", "Beams", "phase_space"]

SHOWERS = {"simple": 1, "vincia": 2}
_COMMON = (
    "Print:quiet = on",
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 10.",
    "Next:numberCount = 0",
    "Print:verbosity = 1",
    "Print:useErrorStream = on",
)


class Batch(NamedTuple):
    """Generated events: ``particles``, awkward, events x particles, Pythia's whole record (``id``, ``status``, ``p``, mothers, daughters),
    and ``weight``, ``(events,)``, one each unless the phase space is biased.
    """

    particles: Any
    weight: Array


@dataclass(frozen=True)
class Beams:
    """Protons, and what happens to them besides the hard process.

    Parameters
    ----------
    energy : in the centre of mass [GeV].
    mpi : several interactions of partons per collision, at a third to an eighth of the speed, with VINCIA at a tenth.
    shower : ``"simple"`` (of Pythia) or ``"vincia"`` (arXiv:2003.00702).

    Particles that fly less than 10 mm / c decay; others, such as K0S and Lambda, are stable.

    >>> Beams(mpi=False).settings()[1]
    'PartonLevel:MPI = off'
    """

    energy: float = 13000.0
    mpi: bool = True
    shower: str = "simple"

    def __post_init__(self) -> None:
        check_at_least(self, 10.0, "energy")
        check_choice(self, "mpi", (True, False))
        check_choice(self, "shower", tuple(SHOWERS))

    def settings(self) -> tuple[str, ...]:
        """Lines that Pythia reads."""
        return (
            f"Beams:eCM = {self.energy!r}",
            f"PartonLevel:MPI = {'on' if self.mpi else 'off'}",
            f"PartonShowers:model = {SHOWERS[self.shower]}",
            *_COMMON,
        )

    def batches(self, process: tuple[str, ...], rng: np.random.Generator, sizes: Iterator[int]) -> Iterator[Batch]:
        """Batches of these sizes; all of them are a function of settings, sizes and the state of ``rng``.

        ConfigError for a line that Pythia does not understand; PofxError if it gives up.
        """
        import pythia8mc

        pythia = pythia8mc.Pythia("", False)
        seed = int(rng.integers(1, 900_000_000))
        for line in (*self.settings(), *process, "Random:setSeed = on", f"Random:seed = {seed}"):
            if not pythia.readString(line):
                raise ConfigError(f"Pythia does not know the setting {line!r}")
        if not pythia.init():
            raise ConfigError(f"Pythia cannot start with {', '.join((*self.settings(), *process))}")
        for size in sizes:
            yield _batch(pythia, size)


def phase_space(low: float, high: float | None = None, bias: float = 0.0) -> tuple[str, ...]:
    r"""Settings for a range of :math:`\hat p_T` [GeV], biased by its power.

    >>> phase_space(100.0, bias=4.0)[1:]
    ('PhaseSpace:bias2Selection = on', 'PhaseSpace:bias2SelectionPow = 4.0', 'PhaseSpace:bias2SelectionRef = 100.0')
    """
    lines = [f"PhaseSpace:pTHatMin = {low!r}"]
    if high is not None:
        lines.append(f"PhaseSpace:pTHatMax = {high!r}")
    if bias:
        lines += ["PhaseSpace:bias2Selection = on", f"PhaseSpace:bias2SelectionPow = {bias!r}"]
        lines += [f"PhaseSpace:bias2SelectionRef = {low!r}"]
    return tuple(lines)


def _batch(pythia: Any, size: int) -> Batch:
    import awkward as ak

    events = pythia.nextBatch(size)
    if len(events) == 0:
        raise PofxError(f"Pythia made none of {size} events with these settings")
    return Batch(events.prt, ak.to_numpy(events.info.weights[:, 0]).astype(np.float64))
