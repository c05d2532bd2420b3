r"""Preprocessing of one field, chosen from the declared columns and fitted on the training split.

A vector field goes through: declared type per column (``Dequantise``, ``Logit``, ``Log``, ``Periodic``), then ``Standardise``, then
``Whitening`` or ``Gaussianise``. Periodic columns become angles in :math:`[-\pi, \pi)` and take no part in the later steps. Grids and
clouds have the same steps, but the last, in every cell or at every point. What is built is in :mod:`pofx.bijections.preprocessed`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from pofx.bijections.base import Bijection
from pofx.bijections.elementwise import (
    ROUNDING,
    Affine,
    Dequantise,
    Log,
    Logit,
    PerColumn,
    Periodic,
    Standardise,
)
from pofx.bijections.fields import FieldColumns, FieldStandardise, real_points
from pofx.bijections.fitted import Fitted, check_finite, event_shares, weighted_moments
from pofx.bijections.linear import Whitening
from pofx.bijections.marginal import Gaussianise
from pofx.bijections.ordered import Condition, Ordered, spans_of
from pofx.bijections.preprocessed import Preprocessing
from pofx.data.spec import Column, Field
from pofx.errors import CapabilityError, ConfigError, DataError, PofxWarning, ShapeError

__all__ = ["Method", "Recipe", "build_preprocessing"]

Method = Literal["auto", "standardise", "log", "whiten", "gaussianise", "affine", "none"]

ON_ITS_END = 0.01
"""Share of the values of a bounded column of a grid or cloud that may lie on an end of its range."""

LOG_ERRORS = {"auto": 5.0, "log": 1.0}
"""Standard errors by which a logarithm has to suit a real column better than none, for the methods that ask."""


@dataclass(frozen=True)
class Recipe:
    """A method with what else a family asks of the preprocessing of a vector field.

    Parameters
    ----------
    method : see :func:`build_preprocessing`.
    order : conditions on pairs of columns (:mod:`pofx.bijections.ordered`), kept exactly.
    whole : discrete columns stay integers, at their place, counted from their lower end, for families that give each a probability.
    """

    method: Method = "auto"
    order: tuple[Condition, ...] = ()
    whole: bool = False


def build_preprocessing(
    field: Field,
    x: Tensor,
    weight: Tensor | None = None,
    method: Method | Recipe = "auto",
    mask: Tensor | None = None,
) -> Preprocessing | FieldStandardise | FieldColumns:
    """Choose and fit the preprocessing of one field from its declared columns and its training data.

    ``"none"`` leaves everything as it is; ``"affine"`` shifts and scales each column, whatever its type. All others treat the declared
    types: a column bounded on both sides by a logit, on one by a logarithm; a periodic one becomes an angle, left alone afterwards; a
    discrete one is dequantised, then treated as bounded on [low, high + 1] or at the end that is declared. Then ``"standardise"`` does
    that to all but the periodic columns, ``"whiten"`` also decorrelates them (Cholesky), ``"gaussianise"`` maps each to a standard
    normal instead. ``"auto"`` is ``"whiten"`` with two differences: a real column whose training values have all one sign is put on a
    logarithmic scale where a Gaussian describes that better by more than five standard errors; and a singular covariance gives a
    warning instead of an error, and no whitening. ``"log"`` is ``"standardise"`` with such logarithms, where they are better by more than
    one standard error.

    Grids and clouds are standardised per channel or per feature; their declared types count unless the method is ``"none"`` or
    ``"affine"``, but for a bounded column of which more than one value in a hundred lies on an end (cells without energy): it is
    standardised as it is, and a warning says so.

    Raises :class:`DataError` for constant columns and for values outside declared ranges; :class:`NonFiniteError` for NaN.

    Parameters
    ----------
    field : kind and columns (types, ranges).
    x : the training split, ``(n, *field.shape)``.
    weight : ``(n,)``, may hold negative weights as long as the moments stay positive.
    method : one of the words above, or a :class:`Recipe`.
    mask : real points of a cloud, ``(n, L)``.

    >>> from pofx.data.spec import vector_spec
    >>> x = torch.randn(100, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> build_preprocessing(vector_spec(1)["x"], x).describe()
    ['standardise']
    """
    recipe = method if isinstance(method, Recipe) else Recipe(method)
    if recipe.method not in get_args(Method):
        raise ConfigError(f"preprocessing is one of {', '.join(get_args(Method))}; got {recipe.method!r}")
    if field.kind != "vector":
        return _build_field(field, x, weight, recipe.method, mask)
    x = check_finite(x)
    if x.shape[1] != len(field.columns):
        raise ShapeError(
            f"expected training data of shape (n, {len(field.columns)}), one per column; got {tuple(x.shape)}"
        )
    if recipe.method != "none":
        _check_columns(field.columns, x)
    return _build_vector(field.columns, x, weight, recipe)


def _build_vector(columns: Sequence[Column], x: Tensor, weight: Tensor | None, recipe: Recipe) -> Preprocessing:
    size = len(columns)
    rest = [i for i, column in enumerate(columns) if column.type != "discrete"]
    if recipe.whole and len(rest) < size:
        parts: list[tuple[list[int], Bijection]] = _from_zero(columns)
        if rest:
            parts.append((rest, _build_vector(_take(columns, rest), x[:, rest], weight, recipe)))
        return Preprocessing(size, PerColumn(parts, size)) if parts else Preprocessing(size)
    result = Preprocessing(size)
    if recipe.order:
        spans = spans_of(recipe.order, columns)
        x = _append(result, Ordered(size, spans), x, weight)
        bounded = {span.column for span in spans}
        columns = [Column(c.name, c.unit) if i in bounded else c for i, c in enumerate(columns)]
    if recipe.method == "affine":
        _append(result, Standardise(size), x, weight)
    elif recipe.method != "none":
        _fit_vector(result, columns, x, weight, recipe.method)
    return result


def _from_zero(columns: Sequence[Column]) -> list[tuple[list[int], Bijection]]:
    """Discrete columns counted from their lower end, where that is not 0 already: float32 holds small integers alone."""
    where = [i for i, column in enumerate(columns) if column.type == "discrete" and round(column.low or 0.0)]
    shifts = [-float(round(columns[i].low or 0.0)) for i in where]
    return [(where, Affine([1.0] * len(where), shifts))] if where else []


def _fit_vector(
    result: Preprocessing, columns: Sequence[Column], x: Tensor, weight: Tensor | None, method: str
) -> None:
    """Append and fit the steps, each on what the one before gives."""
    x = _append(result, _dequantise(columns), x, weight)
    signs = _log_signs(x, weight, LOG_ERRORS[method]) if method in LOG_ERRORS else [0] * len(columns)
    x = _append(result, _by_type(columns, signs), x, weight)
    x = _append(result, _standardise(columns), x, weight)
    try:
        _append(result, _last_step(columns, method), x, weight)
    except DataError as error:
        if method != "auto":
            raise
        warnings.warn(f"no whitening: {error}", PofxWarning, stacklevel=3)


def _append(result: Preprocessing, step: Bijection | None, x: Tensor, weight: Tensor | None) -> Tensor:
    if step is None:
        return x
    x = step.fit(x, weight)
    result.steps.append(step)
    return x


def _build_field(
    field: Field, x: Tensor, weight: Tensor | None, method: str, mask: Tensor | None
) -> FieldStandardise | FieldColumns:
    if field.kind not in ("grid", "cloud"):
        raise CapabilityError(f"no preprocessing for a field of kind {field.kind!r}")
    result = FieldStandardise(field.kind, len(field.columns))
    if method == "none":
        return result
    if method == "affine" or all(column.type == "real" for column in field.columns):
        result.fit(x, weight, mask)
        return result
    points, shares = real_points(result.channels_last(x), weight, mask)
    points = check_finite(points)
    _check_columns(field.columns, points)
    columns = [_off_its_ends(column, points[:, i]) for i, column in enumerate(field.columns)]
    inner = Preprocessing(len(columns))
    rows = _append(inner, _dequantise(columns), points, shares)
    rows = _append(inner, _by_type(columns, [0] * len(columns)), rows, shares)
    _append(inner, _standardise(columns), rows, shares)
    return FieldColumns(field.kind, inner, points[0])


def _off_its_ends(column: Column, x: Tensor) -> Column:
    """The column as a real one if it is bounded and more than :data:`ON_ITS_END` of its values lie on an end."""
    if column.type != "bounded":
        return column
    share = sum(float((x == end).double().mean()) for end in (column.low, column.high) if end is not None)
    if share <= ON_ITS_END:
        return column
    warnings.warn(
        f"column {column.name!r}: {share:.1%} of its values lie on an end of its range, where a logarithm has none; "
        "it is standardised as it is, and samples may leave the range",
        PofxWarning,
        stacklevel=4,
    )
    return Column(column.name, column.unit)


def _dequantise(columns: Sequence[Column]) -> Bijection | None:
    where = [i for i, column in enumerate(columns) if column.type == "discrete"]
    low, high = [columns[i].low for i in where], [columns[i].high for i in where]
    return _on(where, columns, lambda: Dequantise(len(where), low, high))


def _by_type(columns: Sequence[Column], log_signs: Sequence[int]) -> Bijection | None:
    """Logit, Log and Periodic, grouped so that each kind of step runs once over all its columns."""
    ends = [_support(column, sign) for column, sign in zip(columns, log_signs, strict=True)]
    lows, highs = [end[0] for end in ends], [end[1] for end in ends]
    kinds = [_step_type(column, end) for column, end in zip(columns, ends, strict=True)]
    parts: list[tuple[list[int], Bijection]] = []
    for kind in (Periodic, Logit, Log):
        where = [i for i, other in enumerate(kinds) if other is kind]
        if where:
            parts.append((where, kind(_take(lows, where), _take(highs, where))))
    if not parts:
        return None
    return parts[0][1] if len(parts[0][0]) == len(columns) else PerColumn(parts, len(columns))


def _step_type(column: Column, ends: tuple[float | None, float | None]) -> type[Fitted] | None:
    if column.type == "periodic":
        return Periodic
    return {0: Logit, 1: Log, 2: None}[ends.count(None)]


def _standardise(columns: Sequence[Column]) -> Bijection | None:
    where = _straight(columns)
    return _on(where, columns, lambda: Standardise(len(where)))


def _last_step(columns: Sequence[Column], method: str) -> Bijection | None:
    """Whitening or Gaussianise of the non-periodic columns."""
    where = _straight(columns)
    if method == "gaussianise":
        return _on(where, columns, lambda: Gaussianise(len(where)))
    if method in ("standardise", "log") or len(where) < 2:
        return None
    return _on(where, columns, lambda: Whitening(len(where), names=[columns[i].name for i in where]))


def _on(where: list[int], columns: Sequence[Column], build: Callable[[], Bijection]) -> Bijection | None:
    """The bijection on the columns ``where``: bare if that is all of them, None if there are none."""
    if not where:
        return None
    return build() if len(where) == len(columns) else PerColumn([(where, build())], len(columns))


def _straight(columns: Sequence[Column]) -> list[int]:
    return [i for i, column in enumerate(columns) if column.type != "periodic"]


def _take(values: Sequence[Any], where: Sequence[int]) -> list[Any]:
    return [values[i] for i in where]


def _support(column: Column, log_sign: int) -> tuple[float | None, float | None]:
    """Where the (dequantised) values of a column can lie. A real column has no ends, whatever range it declares, unless all its
    values have one sign and a logarithm was found to suit them (``log_sign`` is not zero)."""
    if column.type == "real":
        return (0.0 if log_sign > 0 else None), (0.0 if log_sign < 0 else None)
    high = column.high + 1 if column.type == "discrete" and column.high is not None else column.high
    return column.low, high


def _log_signs(x: Tensor, weight: Tensor | None, errors: float) -> list[int]:
    r"""+1 (-1) for each column that is all positive (negative) and significantly closer to log-normal than to normal, otherwise 0.

    Per event, :math:`d_i = \log N(\log|x_i|) - \log|x_i| - \log N(x_i)`, each Gaussian with its own fitted moments; the test is
    :math:`\bar d > k\,\sigma(\bar d)` with k standard ``errors``.
    """
    sign = torch.where((x > 0).all(0), 1, 0) - torch.where((x < 0).all(0), 1, 0)
    usable = (sign != 0).nonzero().flatten()
    if len(usable) == 0:
        return [0] * x.shape[1]
    share = event_shares(x, weight)
    candidates = x[:, usable]
    logs = candidates.abs().log()
    difference = _log_normal(logs, weight) - logs - _log_normal(candidates, weight)
    mean = share @ difference
    error = ((share @ (difference - mean).square()) * share.square().sum()).sqrt()
    better = torch.zeros_like(sign).index_copy(0, usable, (mean > errors * error).to(sign.dtype))
    return cast(list[int], (sign * better).tolist())


def _log_normal(x: Tensor, weight: Tensor | None) -> Tensor:
    mean, std = weighted_moments(x, weight)
    return -0.5 * ((x - mean) / std).square() - std.log()


def _check_columns(columns: Sequence[Column], x: Tensor) -> None:
    """Typed errors for what no preprocessing can mend: constant columns, values outside declared ranges, fractions of integers."""
    lowest, highest = x.amin(0).tolist(), x.amax(0).tolist()
    for i, column in enumerate(columns):
        where = f"column {column.name!r}"
        if lowest[i] == highest[i]:
            raise DataError(f"{where}: expected values that vary; all {len(x)} are {lowest[i]:g}. Drop the column")
        if column.type == "discrete" and bool((x[:, i] != x[:, i].round()).any()):
            raise DataError(f"{where}: declared discrete, so integers were expected; got a value with a fraction")
        if column.type in ("bounded", "discrete"):
            _check_range(column, x[:, i], where)


def _check_range(column: Column, x: Tensor, where: str) -> None:
    outside = torch.zeros_like(x, dtype=torch.bool)
    if column.low is not None:
        outside |= x < column.low - ROUNDING * abs(column.low)
    if column.high is not None:
        outside |= x > column.high + ROUNDING * abs(column.high)
    count = int(outside.sum())
    if count:
        first = x[outside][0].item()
        ends = f"between {column.low} and {column.high}"
        raise DataError(f"{where}: expected values {ends}; {count} of {len(x)} lie outside, e.g. {first:g}")
