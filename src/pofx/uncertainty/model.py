"""A fitted model with K draws of its weights: samples and densities as of any model, and bands on whatever is computed with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pofx.config import to_plain
from pofx.data.events import Events
from pofx.errors import CapabilityError, ShapeError
from pofx.models.fitted import Fitted
from pofx.models.model import Model
from pofx.training.noise import Noise
from pofx.uncertainty.band import Band
from pofx.uncertainty.base import Posterior

__all__ = ["BayesianModel"]


class BayesianModel(Model):
    """What ``fit`` of a wrapper returns, and :func:`pofx.load` of its file.

    ``log_prob`` is the logarithm of the mean density over the draws, ``sample`` takes every event from a draw of its own.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(400, 1))
    >>> model = pofx.Ensemble(pofx.Gaussian(), members=5).fit(x)
    >>> model.density_band(np.zeros((1, 1))).values.shape
    (5, 1)
    """

    family: Posterior

    @property
    def draws(self) -> int:
        """How many draws of the weights there are."""
        return self.family.count_members(self.fitted.body)

    def member(self, k: int) -> Model:
        """The ordinary model of the wrapped family with the weights of draw k."""
        if not 0 <= k < self.draws:
            raise ShapeError(f"expected a draw from 0 to {self.draws - 1}; got {k}")
        fitted = Fitted(self.fitted.preprocess, self.fitted.context, self.fitted.body.part(k))  # type: ignore[operator]
        inner = self.family.family
        card = {**self.card, "family": inner.name, "config": to_plain(inner)}
        return inner.assemble(fitted.eval(), self.layout, card)

    def sample(
        self, n: int | None = None, context: Any = None, *, seed: int, weights: bool = False, draw: int | None = None
    ) -> Any:
        """See :meth:`pofx.Model.sample`; ``draw``: with the weights of this draw alone, from the same noise whatever the draw."""
        if draw is not None:
            return self.member(draw).sample(n, context, seed=seed, weights=weights)
        return super().sample(n, context, seed=seed, weights=weights)

    def log_probs(self, x: Any, context: Any = None) -> Any:
        """log p(x | c) of every draw, ``(K, n)``: :meth:`log_prob` with ``members="all"``."""
        return self.log_prob(x, context, members="all")

    def density_band(self, x: Any, context: Any = None) -> Band:
        """p(x | c) in the user's units, with its spread over the draws; its mean is ``exp(log_prob)``."""
        found = self.log_probs(x, context)
        return Band(np.exp(found.detach().cpu().numpy() if isinstance(found, Tensor) else found))

    def bands(self, function: Callable[[Model], ArrayLike]) -> Band:
        """Any quantity of a model, ``function(model)`` for every draw: a mean, a score, a limit."""
        return Band(np.stack([np.asarray(function(self.member(k)), dtype=np.float64) for k in range(self.draws)]))

    def histogram(
        self,
        edges: Sequence[float] | np.ndarray[Any, Any],
        n: int,
        context: Any = None,
        *,
        seed: int,
        of: Callable[[Any], ArrayLike] | None = None,
    ) -> Band:
        """The density in bins of a quantity, with a band.

        Parameters
        ----------
        edges : of the bins, ``(b + 1,)``, in the quantity's units.
        n : events per draw (per context row); the same noise for all draws, so that their differences are those of the weights.
        of : ``of(events)`` is the quantity, one number per event; None means the events' only column.

        Returns
        -------
        :class:`Band` of ``(K, b)`` values per unit of the quantity, with the binomial error of one draw's n events as ``floor``.
        """
        bins = np.asarray(edges, dtype=np.float64)
        quantity = self._only_column if of is None else of
        counts, total = [], 0
        for k in range(self.draws):
            values = np.asarray(quantity(self.sample(n, context, seed=seed, draw=k)), dtype=np.float64).ravel()
            counts.append(np.histogram(values, bins)[0])
            total = len(values)
        shares = np.stack(counts) / total
        widths, mean = np.diff(bins), shares.mean(0)
        return Band(shares / widths, np.sqrt(mean * (1 - mean) / total) / widths, bins)

    def _only_column(self, events: Any) -> Any:
        if isinstance(events, Events) or self.layout.spec[self.layout.only].size != 1:
            raise CapabilityError(
                "histogram: these events are more than one number: say by of= what is to be in the bins"
            )
        return events

    def _decode_rows(self, noise: Noise, context: Events | None) -> dict[str, Tensor]:
        """Rows are decoded once, each with the weights of its own draw."""
        latent = None if context is None else self.fitted.prepare_context(context)
        return self.fitted.restore(self.family.decode(self.fitted.body, self._draw(noise), latent))
