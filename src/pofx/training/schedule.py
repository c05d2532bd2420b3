r"""The learning rate as a function of the step: closed formulae, so that there is no scheduler state to save or to restore.

With :math:`c(u) = (1 + \cos \pi u)/2`, which falls from one to zero, N steps in all and W steps of warm-up (numbers relative to the peak):

- one-cycle (Smith and Topin, arXiv:1708.07120): from 1/25 up to 1 along c, then down to 1/(25 * 10^4) along c;
- cosine (arXiv:1608.03983): linear up, then c down to 0;   linear: linear up, linear down to 0;   constant: linear up, then 1.
"""

from __future__ import annotations

import math

from pofx.training.settings import Training

__all__ = ["factor", "warmup_steps"]

_START, _END = 1 / 25, 1 / 25e4


def factor(step: int, total: int, training: Training) -> float:
    """The learning rate of step ``step`` (0, 1, ..., total - 1) relative to its peak.

    >>> factor(10, 100, Training(schedule="constant"))
    1.0
    >>> round(factor(50, 101, Training(schedule="cosine", warmup=0)), 6)
    0.5
    """
    warmup = warmup_steps(total, training)
    last = max(total - 1, 1)
    if training.schedule == "one-cycle":
        return _one_cycle(step, warmup, last)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    fall = min((step - warmup) / max(last - warmup, 1), 1.0)
    return {"constant": 1.0, "linear": 1.0 - fall, "cosine": _fall(fall)}[training.schedule]


def warmup_steps(total: int, training: Training) -> int:
    """The number of steps with a rising learning rate."""
    warmup = training.warmup
    return min(warmup if isinstance(warmup, int) else round(warmup * total), total)


def _fall(u: float) -> float:
    return (1.0 + math.cos(math.pi * u)) / 2.0


def _one_cycle(step: int, warmup: int, last: int) -> float:
    if step < warmup:
        return 1.0 + (_START - 1.0) * _fall(step / warmup)
    return _END + (1.0 - _END) * _fall(min((step - warmup) / max(last - warmup, 1), 1.0))
