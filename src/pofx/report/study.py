"""Everything a density report needs to know, computed once: held-out events, samples, log-densities, differences, the baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pofx.data.events import Events
from pofx.errors import DataError, ShapeError
from pofx.report.correlation import correlation_pulls
from pofx.report.histograms import distance
from pofx.report.statistics import Differences, Mean, column_differences, mean_error, smirnov_p_value
from pofx.report.tables import Floats, Table, as_table

if TYPE_CHECKING:
    from pofx.data.dataset import Dataset
    from pofx.models.model import Model

__all__ = ["Exact", "Study"]

Exact = Callable[[Any], Any]
"""The true log-density: ``(n, d)`` in the user's units to ``(n,)``."""

MOST_EVENTS = 50_000
"""Held-out events (the first ones) and samples that are looked at."""

_CHEAP = 2e11
"""Events times columns squared up to which the Gaussian baseline is fitted."""


@dataclass
class Study:
    """A fitted density beside events that it has not seen.

    Attributes
    ----------
    model, dataset, seed : what is studied; the seed is that of the samples.
    given : samples to use instead of drawing them, or None.
    exact_density : the true log-density, or None.
    """

    model: Model
    dataset: Dataset
    seed: int = 1
    given: Any = None
    exact_density: Exact | None = None

    @cached_property
    def part(self) -> str:
        """Which split the held-out events come from: test if there are any, else val, else all events."""
        return next((name for name in ("test", "val") if len(getattr(self.dataset, name))), "all")

    @cached_property
    def held(self) -> Events:
        """The held-out events, at most :data:`MOST_EVENTS`."""
        source = self.dataset if self.part == "all" else getattr(self.dataset, self.part)
        if not len(source):
            raise DataError("expected at least one event to report on; got none")
        return next(iter(source.chunks(MOST_EVENTS)))

    @cached_property
    def truth(self) -> Table:
        """The held-out events as columns."""
        columns = [column for field in self.dataset.spec.values() for column in field.columns]
        return as_table(self.held, columns)

    @cached_property
    def samples(self) -> Table:
        """Events of the model: as many as were given, or one per held-out context, or twice as many as are held out."""
        if self.given is not None:
            table = as_table(self.given, self.truth.columns)
        elif self.context is not None:
            return Table(self._drawn(None), self.truth.columns, self.truth.weight)
        else:
            n = min(max(2 * len(self.truth), 10_000), MOST_EVENTS)
            table = Table(self._drawn(n), self.truth.columns, np.ones(n))
        if len(table.columns) != len(self.truth.columns):
            raise ShapeError(f"expected samples of {len(self.truth.columns)} columns; got {len(table.columns)}")
        return table

    def _drawn(self, n: int | None) -> Floats:
        drawn = self.model.sample(n, context=self.context, seed=self.seed)
        return np.concatenate(list(drawn.values()), axis=-1) if isinstance(drawn, Mapping) else np.asarray(drawn)

    @cached_property
    def context(self) -> Floats | None:
        """The contexts of the held-out events, ``(n, c)``, or None."""
        return None if self.held.context is None else np.asarray(self.held.context.x)

    @property
    def has_density(self) -> bool:
        """Whether the model scores events."""
        return self.model.density != "none"

    @cached_property
    def logp(self) -> Floats:
        """The model's log-density of the held-out events, ``(n,)``."""
        return np.asarray(self.model.log_prob_events(self.held))

    @cached_property
    def sample_logp(self) -> Floats:
        """The model's log-density of its own events, ``(m,)``."""
        fields, start = {}, 0
        for name, field in self.dataset.spec.items():
            fields[name] = self.samples.values[:, start : start + field.size]
            start += field.size
        matched = self.held.context if len(self.samples) == len(self.truth) else None
        if self.context is not None and matched is None:
            raise ShapeError(
                f"expected one given sample per held-out context ({len(self.truth)}); got {len(self.samples)}"
            )
        return np.asarray(self.model.log_prob_events(Events(fields, context=matched)))

    @cached_property
    def exact(self) -> Floats | None:
        """The true log-density of the held-out events, ``(n,)``."""
        return None if self.exact_density is None else np.asarray(self.exact_density(self.truth.values), float)

    @cached_property
    def baseline(self) -> Floats | None:
        """log-density of the held-out events under a Gaussian fitted to the training split; None if not cheap or not possible."""
        from pofx.models.gaussian import Gaussian

        train = self.dataset.train
        if isinstance(self.model.family, Gaussian) or not self.has_density:
            return None
        if not len(train) or len(train) * len(self.truth.columns) ** 2 > _CHEAP:
            return None
        try:
            return np.asarray(Gaussian().fit(self.dataset).log_prob_events(self.held))
        except DataError:
            return None

    @property
    def nll(self) -> Mean:
        """-log p of the held-out events."""
        return mean_error(-self.logp, self.truth.weight)

    @property
    def over_baseline(self) -> Mean | None:
        """Mean of log p_model - log p_Gaussian over the held-out events, with its paired error."""
        return None if self.baseline is None else mean_error(_minus(self.logp, self.baseline), self.truth.weight)

    @property
    def gap(self) -> Mean | None:
        """Mean of log p_truth - log p_model over the held-out events: the Kullback-Leibler divergence."""
        return None if self.exact is None else mean_error(_minus(self.exact, self.logp), self.truth.weight)

    @cached_property
    def agreement(self) -> float:
        """p-value of the Kolmogorov-Smirnov test between log p of held-out and of generated events."""
        finite = np.isfinite(self.logp), np.isfinite(self.sample_logp)
        if not (finite[0].any() and finite[1].any()):
            return 0.0
        first = Table(self.logp[finite[0]][:, None], self.truth.columns[:1], self.truth.weight[finite[0]])
        second = Table(self.sample_logp[finite[1]][:, None], self.truth.columns[:1], self.samples.weight[finite[1]])
        return smirnov_p_value(float(distance(first, second)[0]))

    @cached_property
    def differences(self) -> Differences:
        """Means, standard deviations and quantiles per column, model against held-out events."""
        return column_differences(self.truth, self.samples, seed=self.seed)

    @cached_property
    def varying(self) -> list[int]:
        """The columns that are constant neither in truth nor in samples."""
        spread = [np.ptp(table.values, axis=0) > 0 for table in (self.truth, self.samples)]
        return [int(i) for i in np.flatnonzero(spread[0] & spread[1])]

    @cached_property
    def correlation_pulls(self) -> Floats | None:
        """(model - truth) / error of the correlations above the diagonal; None for a single column or few events."""
        if len(self.varying) < 2 or min(len(self.truth), len(self.samples)) < 20:
            return None
        pulls = correlation_pulls(self.truth.take(self.varying), self.samples.take(self.varying))[2]
        return pulls[np.triu_indices(len(pulls), 1)]

    @property
    def record(self) -> Mapping[str, Any]:
        """The training record of the card."""
        found: Mapping[str, Any] = self.model.card.get("training") or {}
        return found

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """One dictionary per epoch."""
        return [row if isinstance(row, Mapping) else vars(row) for row in self.record.get("history", ())]

    @property
    def outside(self) -> dict[str, int]:
        """Generated events outside the declared range, per column that has any."""
        counts = {}
        for i, column in enumerate(self.truth.columns):
            values = self.samples.values[:, i]
            low, high = (
                (-math.inf if column.low is None else column.low),
                (math.inf if column.high is None else column.high),
            )
            counts[column.name] = int(((values < low) | (values > high)).sum())
        return {name: count for name, count in counts.items() if count}


def _minus(first: Floats, second: Floats) -> Floats:
    """first - second, NaN where either is infinite."""
    both = np.isfinite(first) & np.isfinite(second)
    return np.where(both, np.where(both, first, 0.0) - np.where(both, second, 0.0), np.nan)
