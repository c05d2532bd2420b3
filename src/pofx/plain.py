"""Plain operations instead of fused ones: what torch's function transforms (``vmap``, higher derivatives) can look into.

Some parts have derivatives of their own, written by hand for speed. Inside :func:`plain_operations` they compute with ordinary
differentiable operations, to the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["plain", "plain_operations"]

_PLAIN: ContextVar[bool] = ContextVar("plain operations", default=False)


def plain() -> bool:
    """Whether fused operations are to be avoided here."""
    return _PLAIN.get()


@contextmanager
def plain_operations() -> Iterator[None]:
    """Inside the block, :func:`plain` is true.

    >>> with plain_operations():
    ...     plain()
    True
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
