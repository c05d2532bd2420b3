"""What counts as a number: every array that enters pofx passes here and leaves as native float32 or float64.

float32 and float64 stay as they are, float16 becomes float32, long double and integers become float64. Everything else (booleans,
complex numbers, dates, text, Python objects) is refused with the reason. Tensors, data frames and awkward arrays are recognised by
what they offer, so none of their libraries is imported.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from pofx.errors import DataError, ShapeError

__all__ = ["Array", "as_floats", "as_mask", "as_numpy", "float_type", "problem_with"]

Array = npt.NDArray[Any]
logger = logging.getLogger(__name__)

_REFUSED = {
    "b": "is boolean; convert it to numbers first, e.g. with .astype(float)",
    "c": "is complex; give its real and imaginary parts as two columns",
    "M": "holds dates; convert them to numbers (seconds since a reference) first",
    "m": "holds time differences; convert them to numbers (seconds) first",
    "O": "holds Python objects, which would need pickle; convert it to a plain array of numbers",
    "U": "holds text where numbers are needed",
    "S": "holds text where numbers are needed",
    "T": "holds text where numbers are needed",
    "V": "has several named parts per row; give them as columns",
}


def problem_with(dtype: npt.DTypeLike) -> str:
    """Why values of this type cannot be used as numbers, or an empty string.

    >>> problem_with("float32"), problem_with("complex128")
    ('', 'is complex; give its real and imaginary parts as two columns')
    """
    return _REFUSED.get(np.dtype(dtype).kind, "")


def float_type(*dtypes: npt.DTypeLike) -> np.dtype[Any]:
    """The type in which columns of these types are served together: float32 if all are at most that precise, else float64."""
    single = all(np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize <= 4 for dtype in dtypes)
    return np.dtype(np.float32 if single and dtypes else np.float64)


def as_floats(array: Array, where: str, dtype: npt.DTypeLike | None = None) -> Array:
    """``array`` as native float32 or float64 (without a copy where it is one already); ``where`` names it in the errors."""
    reason = problem_with(array.dtype)
    if reason:
        raise DataError(f"{where} {reason}{_example(array)}")
    if (
        array.dtype.kind in "iu"
        and array.dtype.itemsize == 8
        and array.size
        and max(-int(array.min()), int(array.max())) > 2**53
    ):
        logger.warning("%s holds integers beyond 2**53, which float64 rounds", where)
    with np.errstate(over="ignore"):
        return array.astype(float_type(array.dtype) if dtype is None else np.dtype(dtype), copy=False)


def as_mask(mask: Any, shape: tuple[int, ...], where: str) -> Array:
    """A boolean mask of the given shape (``True`` = real point); integers 0 and 1 are accepted."""
    array = as_numpy(mask)
    if array.shape != shape:
        raise ShapeError(f"{where}: expected a mask of shape {shape}; got {array.shape}")
    if array.dtype.kind != "b" and not (array.dtype.kind in "iuf" and bool(np.isin(array, (0, 1)).all())):
        raise DataError(f"{where}: expected a mask of True and False (True = real point); got type {array.dtype}")
    return array.astype(bool, copy=False)


def as_numpy(data: Any) -> Array:
    """A numpy array from an array, a tensor on any device, a data-frame column, a regular awkward array or nested lists."""
    if isinstance(data, np.ndarray):
        return data
    for step in ("detach", "cpu"):
        data = getattr(data, step)() if hasattr(data, step) else data
    if isinstance(data, (str, bytes)) or data is None:
        raise DataError(f"expected an array of numbers; got {data!r}")
    for method in ("to_numpy", "numpy"):
        if hasattr(data, method):
            return _converted(data, method)
    try:
        return np.asarray(data)
    except (ValueError, TypeError) as error:
        raise ShapeError(
            f"expected an array with rows of equal length; got {type(data).__name__} ({_first_line(error)})"
        ) from None


def _converted(data: Any, method: str) -> Array:
    try:
        return np.asarray(getattr(data, method)())
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (
            "rows of different lengths need a cloud field" if "awkward" in type(data).__module__ else _first_line(error)
        )
        raise ShapeError(f"cannot make a plain array out of {type(data).__name__}: {reason}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _example(array: Array) -> str:
    if array.dtype.kind not in "USO" or not array.size:
        return ""
    return f" (e.g. {np.ravel(array)[0]!r:.60})"
