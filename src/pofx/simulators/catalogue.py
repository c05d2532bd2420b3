"""All toys by name, and ``pofx simulate shape`` and ``pofx simulate toy``, which write them to files.

>>> toy("camel").sample(2, seed=1).shape
(2, 1)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pofx.config import check_choice
from pofx.data.events import Events
from pofx.data.patterns import close
from pofx.data.spec import EventSpec, vector_spec
from pofx.errors import ConfigError
from pofx.simulators.base import Simulator
from pofx.simulators.densities import Truth
from pofx.simulators.inference_more import MORE_TASKS
from pofx.simulators.inference_tasks import TASKS
from pofx.simulators.shapes import SHAPES
from pofx.simulators.task_toys.amplification import AMPLIFICATION
from pofx.simulators.task_toys.anomaly import DijetBump, Salad
from pofx.simulators.task_toys.inference import InferenceToy
from pofx.simulators.task_toys.matrix_element import MatrixElement
from pofx.simulators.task_toys.near_far import NearFar
from pofx.simulators.task_toys.symmetry import SYMMETRIC, TurnedShape
from pofx.simulators.task_toys.tagger import Tagger
from pofx.simulators.task_toys.templates import Multijets
from pofx.simulators.task_toys.unfolding import Flip, LossyGaussian, gaussian_pair, shifted_pair
from pofx.simulators.toys import TOYS

__all__ = ["CATALOGUE", "Entry", "ShapeSimulator", "ToySimulator", "toy", "toy_table"]


class Entry(NamedTuple):
    """How a toy is made, what it is for, and its truth in words."""

    make: Callable[[], Any]
    use: str
    truth: str


def _given(value: Any) -> Callable[[], Any]:
    return lambda: value


_DENSITY, _POSTERIOR = "log p(x)", "exact draws of the posterior, likelihood"
_RATIO, _UNFOLDED = "likelihood ratio, densities", "p(gen given sim), every OmniFold iteration"

CATALOGUE: Mapping[str, Entry] = {
    **{name: Entry(_given(truth), "families", _DENSITY) for name, truth in TOYS.items()},
    "near-far": Entry(NearFar, "near to far detector", "log p(far given near)"),
    "near-far-oscillated": Entry(
        partial(NearFar, "far"), "near to far detector, oscillated flux", "log p(far given near)"
    ),
    "unfolding-gaussian": Entry(lambda: gaussian_pair()[0], "unfolding: simulation", _UNFOLDED),
    "unfolding-gaussian-data": Entry(lambda: gaussian_pair()[1], "unfolding: data", _UNFOLDED),
    "unfolding-shifted": Entry(lambda: shifted_pair()[0], "unfolding in 4 columns: simulation", _UNFOLDED),
    "unfolding-shifted-data": Entry(lambda: shifted_pair()[1], "unfolding in 4 columns: data", _UNFOLDED),
    "unfolding-lossy": Entry(LossyGaussian, "unfolding with losses and fakes", "p(gen given sim), share of fakes"),
    "flip": Entry(Flip, "unfolding against optimal transport", "gen = -sim, log p(gen)"),
    "salad": Entry(Salad, "anomalies with simulation", f"{_RATIO}, best improvement"),
    "dijet-bump": Entry(DijetBump, "anomalies", _RATIO),
    "dijet-bump-correlated": Entry(partial(DijetBump, correlation=0.1), "anomalies, masses that follow mjj", _RATIO),
    "matrix-element": Entry(MatrixElement, "matrix element method", "log p(reco given alpha), transfer, acceptance"),
    **{
        name: Entry(_given(AMPLIFICATION[name]), "amplification", "log p(x), map to the unit cube")
        for name in ("camel", "ring")
    },
    "ball": Entry(_given(AMPLIFICATION["shell"]), "amplification", "log p(x), map to the unit cube"),
    **{f"symmetric-{name}": Entry(_given(g), "symmetries", "log p(x), its group") for name, g in SYMMETRIC.items()},
    "turned-shape": Entry(TurnedShape, "morphing", "log p(x given angle), the map"),
    "tagger": Entry(Tagger, "classifier surrogates", "log p(score given jet), quantiles"),
    "multijet-masses": Entry(Multijets, "background templates", "log p(m given pt, eta, jets)"),
    **{
        f"task-{name}": Entry(partial(InferenceToy, task), "simulation-based inference", _POSTERIOR)
        for name, task in {**TASKS, **MORE_TASKS}.items()
    },
}
"""All toys that ``pofx simulate toy`` knows."""


def toy(name: str) -> Any:
    """The toy of a name; ConfigError with the nearest names otherwise."""
    if name not in CATALOGUE:
        raise ConfigError(f"no toy is called {name!r}; {close(name, CATALOGUE)}")
    return CATALOGUE[name].make()


def toy_table() -> str:
    """All toys as a Markdown table: name, fields, context, use, truth.

    >>> print(toy_table().splitlines()[0])
    | toy | fields | context | use | truth |
    """
    rows = [("toy", "fields", "context", "use", "truth"), ("---",) * 5]
    for name, entry in CATALOGUE.items():
        spec, context = _specs(entry.make())
        rows.append((f"`{name}`", _shapes(spec), _shapes(context or {}), entry.use, entry.truth))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shapes(spec: EventSpec) -> str:
    return ", ".join(f"{name} ({' x '.join(map(str, form.shape))})" for name, form in spec.items())


def _specs(truth: Any) -> tuple[EventSpec, EventSpec | None]:
    """Of x and of the context."""
    if isinstance(truth, Truth):
        return vector_spec(truth.columns()), None
    context = getattr(truth, "context_spec", None)
    return truth.spec(), None if context is None else context()


@dataclass(frozen=True)
class _Sampled(Simulator):
    """What has ``sample(n, seed)``, as a simulator: a seed of its own for every block."""

    which: str = ""

    @property
    @abstractmethod
    def truth(self) -> Any:
        """What is sampled."""

    def spec(self) -> EventSpec:
        return _specs(self.truth)[0]

    def context_spec(self) -> EventSpec | None:
        return _specs(self.truth)[1]

    def generate(self, n: int, rng: np.random.Generator) -> Events:
        found = self.truth.sample(n, int(rng.integers(2**62)))
        return found if isinstance(found, Events) else Events({next(iter(self.spec())): found})


@dataclass(frozen=True)
class ShapeSimulator(_Sampled):
    """One of the ten shapes in the plane, which=two-moons and so on.

    >>> ShapeSimulator("spirals")(5, seed=1).arrays().x.shape
    (5, 2)
    """

    name: ClassVar[str] = "shape"
    block: ClassVar[int] = 10_000

    which: str = "two-moons"

    def __post_init__(self) -> None:
        check_choice(self, "which", tuple(SHAPES))

    @cached_property
    def truth(self) -> Truth:
        """The shape."""
        return SHAPES[self.which]


@dataclass(frozen=True)
class ToySimulator(_Sampled):
    """One of the toys with a truth in closed form, which=near-far and so on.

    >>> ToySimulator("flip")(5, seed=1).arrays().context.x.shape
    (5, 1)
    """

    name: ClassVar[str] = "toy"
    block: ClassVar[int] = 2000

    which: str = "near-far"

    def __post_init__(self) -> None:
        toy(self.which)

    @cached_property
    def truth(self) -> Any:
        """The toy."""
        return toy(self.which)
