r"""The separation power of histograms, also called triangular distance or triangular discriminator,

.. math:: \Delta = \frac{1}{2} \sum_k \frac{(p_k - q_k)^2}{p_k + q_k} ,

of the shares p, q of each bin: 0 for equal histograms, 1 for those without a common bin. Between samples of one law,
its value with B bins is about (B - 1) (1/n + 1/m) / 4, which is not taken off, because published values have it in them: compare with the
floor. Replicas of the bootstrap keep the bins' p + q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pofx.classifiers.base import Floats
from pofx.config import check_at_least
from pofx.errors import ConfigError
from pofx.metrics.two_sample import MeasureStatistic, Plan, Pooled, Prepared

__all__ = ["SeparationPower"]


@dataclass(frozen=True)
class SeparationPower(MeasureStatistic):
    """Of the histogram of each column, and the mean over the columns.

    Parameters
    ----------
    bins : of equal width between the 0.1 % and the 99.9 % quantile of both samples together, and one bin each for what is below and above.
    edges : of the bins in place of these, the same for all columns, ascending; what lies below and above has its own bins.
    most : events per side; all of them by default.

    >>> SeparationPower(edges=(0.0, 0.5, 1.0)).edges
    (0.0, 0.5, 1.0)
    """

    bins: int = 50
    edges: tuple[float, ...] | None = None
    most: int | None = None
    name: ClassVar[str] = "separation"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "bins")
        if self.edges is not None and (len(self.edges) < 2 or min(np.diff(self.edges)) <= 0):
            raise ConfigError(f"SeparationPower: expected at least two ascending edges; got {self.edges}")

    def prepare(self, events: Pooled, plan: Plan) -> Prepared:
        """See :class:`~pofx.metrics.two_sample.MeasureStatistic`."""
        fill, rows = self._filling(events.x)
        own = fill @ (events.a + events.b)

        def values(a: Floats, b: Floats) -> Floats:
            p, q = fill @ a, fill @ b
            shared = ((a != 0) & (b != 0)).any(0)  # of a bootstrap: its own p + q would not be that of two samples
            whole = np.where(shared, own[:, None], p + q)
            terms = np.divide((p - q) ** 2, whole, out=np.zeros_like(p), where=whole > 0)
            return 0.5 * np.add.reduceat(terms, rows, axis=0).T

        d = events.x.shape[1]
        title = f"separation power, mean of {d} columns" if d > 1 else "separation power"
        return Prepared(events, values, (title,), summary="mean", quadratic=True, note=f"{self._bins} bins")

    @property
    def _bins(self) -> int:
        return self.bins if self.edges is None else len(self.edges) - 1

    def _filling(self, x: Floats) -> tuple[sparse.csr_array, list[int]]:
        """The matrix that sums weights in the bins of all columns, and where each column begins."""
        width, numbers = self._bins + 2, []
        for j, column in enumerate(x.T):
            edges = np.asarray(self.edges, dtype=np.float64) if self.edges is not None else _between(column, self.bins)
            numbers.append(_bin_of(column, np.asarray(edges)) + j * width)
        n, d = x.shape
        events = np.tile(np.arange(n), d)
        fill = sparse.csr_array((np.ones(n * d), (np.concatenate(numbers), events)), shape=(width * d, n))
        return fill, list(range(0, width * d, width))


def _bin_of(column: Floats, edges: Floats) -> NDArray[np.intp]:
    """Zero below, len(edges) above; the upper edge belongs to the last bin."""
    number = np.searchsorted(edges, column, side="right")
    return np.where(column == edges[-1], len(edges) - 1, number)


def _between(column: Floats, bins: int) -> Floats:
    low, high = np.quantile(column, [0.001, 0.999])
    return np.asarray(low + (high - low) * np.arange(bins + 1) / bins, dtype=np.float64)
