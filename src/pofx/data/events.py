"""A batch of events: named arrays (numpy or torch alike), masks, weights, event numbers, and a context that is itself a batch.

The same class carries numpy arrays out of a file and tensors into a loss; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pofx.errors import CapabilityError

__all__ = ["Events"]

Array = Any
"""A numpy array or a torch tensor; one batch holds one kind of them."""


@dataclass(frozen=True)
class Events:
    """n events.

    Attributes
    ----------
    fields : name -> array of shape ``(n, *field.shape)``.
    masks : name of a cloud field -> boolean array ``(n, L)``, ``True`` = real point.
    context : the events c that these are conditioned on, or None.
    weight : ``(n,)``, may be negative; None means one each.
    index : ``(n,)`` int64, the number of each event in its source: the key of its noise.
    """

    fields: Mapping[str, Array]
    masks: Mapping[str, Array] = field(default_factory=dict)
    context: Events | None = None
    weight: Array | None = None
    index: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    @property
    def x(self) -> Array:
        """The only field's array; events with several fields must be asked by name."""
        return self.fields[self.only]

    @property
    def only(self) -> str:
        """The name of the only field."""
        if len(self.fields) != 1:
            raise CapabilityError(
                f"expected events with a single field; these have {', '.join(self.fields)}: use .fields[name]"
            )
        return next(iter(self.fields))

    @property
    def mask(self) -> Array | None:
        """The only field's mask, or None where every point is real."""
        return self.masks.get(self.only)

    def map(self, function: Callable[[Array], Array]) -> Events:
        """The same events with ``function`` applied to every array (fields, masks, context, weight, index)."""
        return Events(
            fields={name: function(array) for name, array in self.fields.items()},
            masks={name: function(array) for name, array in self.masks.items()},
            context=None if self.context is None else self.context.map(function),
            weight=None if self.weight is None else function(self.weight),
            index=None if self.index is None else function(self.index),
        )

    def __getitem__(self, rows: Any) -> Events:
        """The chosen rows (a slice, an integer array or a boolean array), as events again."""
        return self.map(lambda array: array[rows])

    def split(self, size: int) -> Iterator[Events]:
        """Consecutive pieces of at most ``size`` events."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def replace(self, **changes: Any) -> Events:
        """A copy with the given attributes replaced."""
        return replace(self, **changes)
