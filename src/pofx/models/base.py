"""The contract of a family: a frozen config that states its losses, its ``decode`` and its capabilities; nothing else.

A family sees *latent* coordinates only: preprocessing (declared ranges, logs, whitening) is a bijection around it, fitted on the
training split and saved with the model, whose Jacobian :class:`~pofx.models.model.Model` adds. Everything that training changes
lives in the *body*, the ``nn.Module`` that :meth:`Family.build` returns, so a state dict is the whole state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from torch import Tensor, nn

from pofx.data.events import Events
from pofx.data.spec import EventSpec, Kind
from pofx.errors import CapabilityError, NoDensityError, NotFittedError
from pofx.training.contract import Phase

if TYPE_CHECKING:
    from pofx.bijections.preprocessing import Recipe
    from pofx.models.fitted import Fitted
    from pofx.models.model import Model
    from pofx.training.settings import Training

__all__ = ["CHUNK", "Capabilities", "Family", "Layout", "NoiseShape"]

CHUNK = 1024
"""Events per evaluation (see :meth:`Family.chunk`). Part of what makes a sample reproducible: do not change it between versions without
saying so."""

Density = Literal["exact", "estimate", "bound", "none"]


@dataclass(frozen=True)
class Capabilities:
    """What a family can do; what is not declared raises a typed error.

    ``kinds`` of fields; ``density`` exact, estimate, bound or none; ``decode`` (noise to events) and ``encode`` (events to noise);
    ``context``: kinds of context fields it takes; ``teacher``: needs one; ``periodic``: keeps circular latent columns circular;
    ``discrete``: takes integers of discrete columns as they are (others see them spread over their cell by noise);
    ``precision``: ``"float64"`` for closed forms, which are computed in float64 whatever :class:`pofx.Training` says;
    ``negative_weights``: exact with them; for other families the conditional mean weight is learnt first and takes their place.
    """

    kinds: frozenset[Kind] = frozenset({"vector"})
    density: Density = "exact"
    decode: bool = True
    encode: bool = False
    context: frozenset[Kind] = frozenset({"vector"})
    teacher: bool = False
    periodic: bool = False
    discrete: bool = False
    precision: Literal["float64"] | None = None
    negative_weights: bool = False


@dataclass(frozen=True)
class NoiseShape:
    """Noise that ``decode`` takes per event: ``"normal"`` or ``"uniform"`` (on (0, 1)), of this shape."""

    kind: Literal["normal", "uniform"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What a body is built for.

    Attributes
    ----------
    spec, context : fields of an event and of its context (None without one), in the user's coordinates.
    circular, circular_context : field -> latent columns that live on the circle [-pi, pi).
    events : number of training events (0 where they are made on the fly).
    teacher : the teacher model, for students.
    extra : structural facts found from the data, JSON-able, saved in the card (number of components chosen, for example).
    to_user : ``to_user(field, latent, mask=None)``, in the user's units, float64, differentiable: for losses on quantities with units. The
        inverse of the preprocessing, which the model keeps; None where there is none yet.
    """

    spec: EventSpec
    context: EventSpec | None = None
    circular: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    circular_context: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    events: int = 0
    teacher: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    to_user: Callable[..., Tensor] | None = field(default=None, compare=False, repr=False)

    @property
    def only(self) -> str:
        """The name of the only field."""
        if len(self.spec) != 1:
            raise CapabilityError(f"expected events with a single field; got {', '.join(self.spec)}")
        return next(iter(self.spec))

    @property
    def features(self) -> int:
        """Columns of the only field, a vector."""
        return self.spec[self.only].shape[0]

    @property
    def context_features(self) -> int:
        """Columns of the context, a single vector; 0 without context."""
        if not self.context:
            return 0
        if len(self.context) != 1:
            raise CapabilityError(f"expected a context with a single field; got {', '.join(self.context)}")
        return next(iter(self.context.values())).shape[0]

    @property
    def circular_columns(self) -> tuple[int, ...]:
        """Circular latent columns of the only field."""
        return tuple(self.circular.get(self.only, ()))

    @property
    def circular_context_columns(self) -> tuple[int, ...]:
        """Circular latent columns of the context's only field."""
        return tuple(next(iter(self.circular_context.values()), ()))


@dataclass(frozen=True)
class Family(ABC):
    """A way to learn p(x | c), given by a frozen config; ``fit`` returns a :class:`~pofx.models.model.Model`.

    Parameters
    ----------
    preprocess : ``"auto"`` (per column by its declared type and, for positive columns, log where the likelihood says so; then
        standardised and whitened), ``"whiten"``, ``"standardise"``, ``"log"`` (standardised, with logs), ``"gaussianise"``, ``"affine"``
        (shift and scale alone, whatever the type) or ``"none"``.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    preprocess: str = field(default="auto", kw_only=True)

    @abstractmethod
    def build(self, layout: Layout) -> nn.Module:
        """The body, untrained: every number that training or estimation sets is a parameter or buffer of the right shape."""

    @abstractmethod
    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        """What training does, in order."""

    def structure(self, layout: Layout, events: Events) -> Mapping[str, Any]:
        """Facts about the data that the body's structure depends on, JSON-able: what becomes ``layout.extra`` before :meth:`build`.

        Parameters
        ----------
        layout : without ``extra``.
        events : the events that preprocessing was fitted on, of the training split alone: tensors in latent coordinates, with context and
            weights. A warm start keeps the structure of its model, and events that are made on the fly give none.
        """
        return {}

    def preprocess_of(self, name: str, spec: EventSpec) -> str | Recipe:
        """The preprocessing of one field: its word, or a recipe that asks for more."""
        return self.preprocess

    @property
    def few_events(self) -> bool:
        """Whether no more events than columns are enough to fit this config (a shrunk covariance)."""
        return False

    def noise_shapes(self, layout: Layout) -> Mapping[str, NoiseShape]:
        """The noise that :meth:`decode` needs per event; by default one standard normal per number of the only field."""
        return {"z": NoiseShape("normal", layout.spec[layout.only].shape)}

    def log_density(self, body: nn.Module, events: Events) -> Tensor:
        """log p(x | c) in latent coordinates, ``(n,)``; only called where the capabilities say there is a density."""
        raise NoDensityError(f"{self.name} has no density")

    def density_of(self, layout: Layout) -> Density:
        """What :meth:`log_density` is for these fields; the capabilities say the best of it."""
        return self.capabilities.density

    def chunk(self, layout: Layout) -> int:
        """Events that :meth:`decode` is asked for at once, a divisor of :data:`CHUNK`; the last chunk is padded."""
        return CHUNK if all(form.kind == "vector" for form in layout.spec.values()) else CHUNK // 16

    def density_chunk(self, layout: Layout) -> int:
        """The same for :meth:`log_density`: fewer where every one is expensive."""
        return self.chunk(layout)

    def log_density_error(self, body: nn.Module, events: Events) -> Tensor:
        """The standard error of an estimated :meth:`log_density`, ``(n,)``; zero where it is exact."""
        return events.x.new_zeros(len(events))

    def decode(self, body: nn.Module, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        """Noise to latent fields: pure and differentiable, so that it exports and can be refined.

        A cloud's mask comes along, under the name that :func:`pofx.data.store.mask_name` gives.
        """
        raise CapabilityError(f"{self.name} cannot decode noise")

    def encode(self, body: nn.Module, events: Events) -> Mapping[str, Tensor]:
        """Latent fields to the noise that decodes to them."""
        raise CapabilityError(f"{self.name} cannot encode events")

    def count_members(self, body: nn.Module) -> int:
        """How many weight samples or ensemble members the body holds; 1 for an ordinary family."""
        return 1

    def member(self, body: nn.Module, k: int) -> nn.Module:
        """The body of member k (k < ``count_members``)."""
        return body

    def assemble(self, fitted: Fitted, layout: Layout, card: dict[str, Any]) -> Model:
        """What ``fit`` and ``load`` return, from its parts."""
        from pofx.models.model import Model

        return Model(self, fitted, layout, card)

    def fit(
        self,
        data: Any,
        context: Any = None,
        weight: Any = None,
        *,
        training: Training | None = None,
        init: Model | None = None,
        teacher: Model | None = None,
        resume: str = "auto",
    ) -> Model:
        """Learn from data and return the fitted model.

        Parameters
        ----------
        data : array ``(n, d)`` (numpy or torch), :class:`pofx.Dataset`, path of a file, or a training source that makes its own events.
        context : array ``(n, c)`` that events are conditioned on; not if the data set brings its own.
        weight : array ``(n,)``; not if the data set brings its own. May be negative; the sum must be positive.
        training : how to train (:class:`pofx.Training`).
        init : a fitted model of the same family to start from (its preprocessing is kept).
        teacher : a fitted model, for students.
        resume : ``"auto"`` continues from ``training.checkpoint`` if it exists, ``"must"`` insists, ``"never"`` starts afresh.

        Raises
        ------
        DataError and its kind for unusable data, CapabilityError for a combination the family does not do, DivergenceError for NaN.
        """
        from pofx.models.fitting import fit

        return fit(self, data, context, weight, training=training, init=init, teacher=teacher, resume=resume)

    def _not_fitted(self, name: str) -> NoReturn:
        raise NotFittedError(
            f"{type(self).__name__} is a config and has no {name}: use the object that fit returned, as in "
            f"model = {type(self).__name__}(...).fit(data); model.{name}(...)"
        )

    def __getattr__(self, name: str) -> Any:
        if name in ("sample", "log_prob", "log_prob_error", "save", "card"):
            self._not_fitted(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
