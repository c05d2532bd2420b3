"""The power spectrum of maps, with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pofx.errors import ShapeError
from pofx.simulators.fields.gaussian import Lattice

__all__ = ["Measured", "power_spectrum"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """A power spectrum in bins of k.

    Attributes
    ----------
    k : mean wave number of the modes of each bin, ``(bins,)``.
    power, error : mean over maps and modes, and its standard error.
    modes : how many modes of the full transform each bin has; half of them are independent.
    covariance : of the means, ``(bins, bins)``.
    """

    k: Array
    power: Array
    error: Array
    modes: Array
    covariance: Array


def power_spectrum(maps: ArrayLike, length: float, bins: int = 16) -> Measured:
    r"""P(k) of maps on a periodic square or cube, in bins of equal width of log k from the smallest to Nyquist's wave number.

    The error is that of the mean over maps, from their scatter, which is right for fields that are not Gaussian too; for a single map it is
    that of a Gaussian field, :math:`P \sqrt{2 / \mathrm{modes}}`. Bins without modes are left out.

    Parameters
    ----------
    maps : ``(n, N, N)``, ``(n, N, N, N)``, or with one channel ``(n, 1, ...)``.
    length : of a side.

    >>> white = np.random.default_rng(1).standard_normal((50, 32, 32))
    >>> found = power_spectrum(white, 32.0)
    >>> bool((np.abs(found.power - 1.0) < 4 * found.error).all())
    True
    """
    array = np.asarray(maps, np.float64)
    array = array[:, 0] if array.ndim >= 4 and array.shape[1] == 1 else array
    if array.ndim not in (3, 4) or len(set(array.shape[1:])) != 1 or not len(array):
        raise ShapeError(
            f"expected maps of shape (n, N, N) or (n, N, N, N), with or without a channel; got {np.shape(maps)}"
        )
    lattice = Lattice(array.shape[1], length, array.ndim - 1)
    each = np.abs(lattice.transform(array)) ** 2 * lattice.cell_volume / math.prod(lattice.shape)
    k, modes, by_map = binned(lattice, each, bins)
    power, n = by_map.mean(0), len(array)
    covariance = np.cov(by_map.T, ddof=1).reshape(len(k), len(k)) / n if n > 1 else np.diag(2.0 * power**2 / modes)
    return Measured(k, power, np.sqrt(np.diag(covariance)), modes, covariance)


def binned(lattice: Lattice, power: Array, bins: int) -> tuple[Array, Array, Array]:
    """Mean wave number, number of modes, and mean power of each bin that has modes; ``power`` is ``(..., *modes)``."""
    k, count = lattice.wave_numbers.ravel(), lattice.multiplicity.ravel()
    least, nyquist = math.tau / lattice.length, math.pi * lattice.cells / lattice.length
    edges = np.geomspace(least * (1 - 1e-9), nyquist * (1 + 1e-9), bins + 1)
    inside = (k >= edges[0]) & (k <= edges[-1])
    place = np.digitize(k[inside], edges) - 1
    share = np.zeros((bins, inside.sum()))
    share[place, np.arange(inside.sum())] = count[inside]
    share = share[share.sum(1) > 0]
    modes = share.sum(1)
    flat = power.reshape(*power.shape[: power.ndim - lattice.dim], -1)[..., inside]
    return share @ k[inside] / modes, modes, flat @ share.T / modes
