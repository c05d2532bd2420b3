"""Units of columns that do not depend on which event is of which sample."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pofx.classifiers.base import Floats, centre_scale
from pofx.metrics.two_sample import Pooled

__all__ = ["SCALES", "Scale", "unit_of"]

Scale = Literal["deviation", "largest", "none"]
SCALES = ("deviation", "largest", "none")
"""Standard deviation of both samples together, their largest absolute value, or the columns as they are."""


def unit_of(events: Pooled, scale: Scale) -> tuple[Floats, Floats]:
    """What to take off columns and what to divide them by, ``(d,)`` each; constant columns are left as they are."""
    if scale == "deviation":
        return centre_scale(events.x, np.abs(events.pooled))
    none = np.zeros(events.x.shape[1])
    if scale == "none":
        return none, none + 1.0
    largest = np.abs(events.x).max(0)
    return none, np.where(largest > 0, largest, 1.0)
