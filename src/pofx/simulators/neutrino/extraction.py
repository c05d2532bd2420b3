r"""From counts to a cross section: iterative unfolding after D'Agostini (NIM A 362 (1995) 487), background among the causes.

With the response :math:`R_{jt}` = P(measured in bin j and selected | true bin t) of a simulation, its true spectrum :math:`T_t`, and
its background :math:`B_j`, start from x = T and iterate

.. math::

    x_t \leftarrow \frac{x_t}{\varepsilon_t} \sum_j R_{jt} \frac{N_j}{\sum_s R_{js} x_s + B_j}, \qquad \varepsilon_t = \sum_j R_{jt} .

The background is not subtracted from the counts, where it could leave a negative number, but added to what the counts are compared
with: N_j is shared among signal and background as the current estimate says. The result stays non-negative; it is the
expectation-maximisation towards the Poisson likelihood, stopped early, which regularises. If the simulation describes the data,
x = T is its fixed point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ITERATIONS", "Response", "unfold"]

Array = NDArray[np.float64]

ITERATIONS = 4


class Response(NamedTuple):
    """What a simulation says about the measurement.

    truth : ``(bins,)`` true signal events.
    reference : ``(bins,)`` those that there would be in the nominal flux.
    selected : ``(bins, measured)`` those of them that are selected, by true and measured bin.
    background : ``(measured,)`` other selected events: another reaction, or a muon outside all true bins.
    """

    truth: Array
    reference: Array
    selected: Array
    background: Array

    @property
    def expected(self) -> Array:
        """Mean counts per measured bin."""
        result: Array = self.selected.sum(0) + self.background
        return result

    @property
    def efficiency(self) -> Array:
        """Share of the true events that are selected, per true bin."""
        result: Array = self.selected.sum(1) / self.truth
        return result


def unfold(counts: Array, response: Response, iterations: int = ITERATIONS) -> Array:
    """True signal events per bin, ``(bins,)``, out of counts ``(measured,)``.

    >>> response = Response(np.array([10.0, 20.0]), np.array([10.0, 20.0]), np.array([[4.0, 1.0], [2.0, 8.0]]), np.ones(2))
    >>> unfold(response.expected, response).tolist()
    [10.0, 20.0]
    """
    matrix = response.selected / response.truth[:, None]
    shares = matrix / matrix.sum(1)[:, None]
    x = response.truth
    for _ in range(iterations):
        x = x * (shares @ (counts / (x @ matrix + response.background)))
    return x
