"""How long the steps of an analysis take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Timed"]

logger = logging.getLogger(__name__)


class Timed:
    """An analysis that notes how long its steps take [s].

    >>> class Analysis(Timed):
    ...     seconds: dict[str, float] = {}
    >>> with Analysis().timed("nothing"):
    ...     pass
    >>> list(Analysis.seconds)
    ['nothing']
    """

    seconds: dict[str, float]

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Log a step, and keep how long it took."""
        begun = time.perf_counter()
        logger.info("%s ...", step)
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 2)
        logger.info("%s: %.1f s", step, self.seconds[step])
