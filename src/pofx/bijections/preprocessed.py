"""The fitted preprocessing of one field: a chain of steps, in words, as plain values for JSON, and which of its columns are angles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from pofx.bijections.base import Bijection, Chain
from pofx.bijections.elementwise import Affine, Dequantise, Log, Logit, PerColumn, Periodic, Standardise
from pofx.bijections.fields import FieldColumns, FieldStandardise
from pofx.bijections.fitted import Fitted, cast_like
from pofx.bijections.linear import Whitening
from pofx.bijections.marginal import Gaussianise
from pofx.bijections.ordered import Ordered
from pofx.errors import CapabilityError, ConfigError

__all__ = ["Preprocessing", "periodic_columns", "preprocessing_config", "preprocessing_from_config"]


class Preprocessing(Chain):
    """A chain of fitted steps on ``(n, size)``, computed in float64 throughout and returned in the dtype of the input.

    >>> Preprocessing(2).describe()
    ['x', 'x']
    """

    def __init__(self, size: int, *steps: Bijection) -> None:
        super().__init__(*steps)
        self.size = size

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As every bijection; ``noise`` (n, size), uniform in [0, 1), dequantises the discrete columns (0.5 if absent)."""
        z, total = x.to(torch.float64), x.new_zeros(x.shape[0], dtype=torch.float64)
        for step in self.steps:
            extra = {"noise": noise} if isinstance(step, (Dequantise, PerColumn)) else {}
            z, log_jacobian = step(z, context, **extra)
            total = total + log_jacobian
        return cast_like(z, x), cast_like(total, x, finite=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, total = super().inverse(z.to(torch.float64), context)
        return cast_like(x, z), cast_like(total, z, finite=False)

    @property
    def discrete_columns(self) -> tuple[int, ...]:
        """The columns that need dequantisation noise while training."""
        return tuple(i for i, words in enumerate(_words(self, self.size)) if "dequantise" in words)

    def describe(self) -> list[str]:
        """What happens to each column, in words, for the card: ``'log(x - 0) -> standardise -> whitened'``."""
        return [" -> ".join(words) or "x" for words in _words(self, self.size)]

    def config(self) -> dict[str, Any]:
        """Names, column numbers and constants, ready for JSON; see :func:`preprocessing_from_config`."""
        return preprocessing_config(self)


def periodic_columns(bijection: Bijection) -> tuple[int, ...]:
    """The latent columns that are circular in [-pi, pi): made by :class:`Periodic` and not touched since.

    >>> periodic_columns(PerColumn([([1], Periodic(0.0, 1.0))]))
    (1,)
    """
    if isinstance(bijection, Periodic):
        return tuple(range(bijection.size))
    if isinstance(bijection, PerColumn):
        pairs = zip(bijection.columns, bijection.steps, strict=True)
        return tuple(sorted(columns[i] for columns, step in pairs for i in periodic_columns(cast(Bijection, step))))
    if isinstance(bijection, FieldColumns):
        return periodic_columns(bijection.inner)
    if not isinstance(bijection, Chain):
        return ()
    circular: set[int] = set()
    for step in bijection.steps:
        touched = {i for columns in step.columns for i in columns} if isinstance(step, PerColumn) else circular
        circular = (circular - touched) | set(periodic_columns(cast(Bijection, step)))
    return tuple(sorted(circular))


def _words(bijection: Bijection, size: int) -> list[list[str]]:
    """Per column, what each step does to it."""
    if isinstance(bijection, Chain):
        per_step = [_words(cast(Bijection, step), size) for step in bijection.steps]
        return [[word for words in per_step for word in words[i]] for i in range(size)]
    if isinstance(bijection, PerColumn):
        result: list[list[str]] = [[] for _ in range(size)]
        for columns, step in zip(bijection.columns, bijection.steps, strict=True):
            for i, words in zip(columns, _words(cast(Bijection, step), len(columns)), strict=True):
                result[i] = words
        return result
    if isinstance(bijection, Fitted):
        return [[word] for word in bijection.describe()]
    return [[type(bijection).__name__.lower()] for _ in range(size)]


FITTED: dict[str, type[Fitted]] = {
    cls.__name__: cls
    for cls in (
        Affine,
        Dequantise,
        FieldStandardise,
        Gaussianise,
        Log,
        Logit,
        Ordered,
        Periodic,
        Standardise,
        Whitening,
    )
}


def preprocessing_config(bijection: Bijection) -> dict[str, Any]:
    """The structure of fitted steps, of :class:`PerColumn` and of chains of them, as plain values for JSON.

    >>> preprocessing_config(Standardise(2))
    {'name': 'Standardise', 'size': 2}
    """
    name = type(bijection).__name__
    if isinstance(bijection, Chain):
        sized = {"size": bijection.size} if isinstance(bijection, Preprocessing) else {}
        return {
            "name": name,
            **sized,
            "steps": [preprocessing_config(cast(Bijection, step)) for step in bijection.steps],
        }
    if isinstance(bijection, PerColumn):
        pairs = zip(bijection.columns, bijection.steps, strict=True)
        parts = [{"columns": columns, "step": preprocessing_config(cast(Bijection, step))} for columns, step in pairs]
        return {"name": name, "size": bijection.size, "parts": parts}
    if isinstance(bijection, FieldColumns):
        inner = preprocessing_config(bijection.inner)
        return {"name": name, "kind": bijection.kind, "size": bijection.size, "inner": inner}
    if name not in FITTED or not isinstance(bijection, Fitted):
        raise CapabilityError(f"a {name} is not a preprocessing step and has no plain config")
    return {"name": name, **bijection.config()}


def preprocessing_from_config(plain: Mapping[str, Any]) -> Bijection:
    """Rebuild the structure, with buffers of the right shapes, ready for ``load_state_dict``.

    >>> preprocessing_from_config({"name": "Standardise", "size": 2}).size
    2
    """
    rest = dict(plain)
    name = rest.pop("name", None)
    if name in ("Chain", "Preprocessing"):
        steps = [preprocessing_from_config(step) for step in rest["steps"]]
        return Chain(*steps) if name == "Chain" else Preprocessing(rest["size"], *steps)
    if name == "PerColumn":
        return PerColumn(
            [(part["columns"], preprocessing_from_config(part["step"])) for part in rest["parts"]], rest["size"]
        )
    if name == "FieldColumns":
        return FieldColumns(rest["kind"], preprocessing_from_config(rest["inner"]), torch.zeros(rest["size"]))
    if name not in FITTED:
        raise ConfigError(f"expected a preprocessing step out of {', '.join(sorted(FITTED))}; got {name!r}")
    return FITTED[name].from_config(rest)
