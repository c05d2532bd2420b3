r"""Monotone rational-quadratic splines with an analytic gradient (Durkan et al., arXiv:1906.04032; circular: arXiv:2002.02428).

Inside a box :math:`[-B, B]` a spline of K bins maps each number monotonically onto the same box; outside it is the identity. With
:math:`\theta = (x - x_k)/w_k`, :math:`s = h_k/w_k` and slopes :math:`d_k` at the knots,

.. math:: f = y_k + h_k \frac{s\theta^2 + d_k\theta(1-\theta)}{s + (d_k + d_{k+1} - 2s)\,\theta(1-\theta)}.

Autograd would keep and walk about twenty-five element-wise steps; here value, log-slope and all their derivatives with respect to the
raw parameters are written out, and only numbers of the selected bin are touched. Everything is evaluated at clamped inputs and chosen
with ``where``: no boolean indexing, no NaN gradients outside the box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pofx.config import check_at_least
from pofx.plain import plain

__all__ = ["RationalQuadratic", "rational_quadratic", "rational_quadratic_inverse"]

_MIN_BIN = 1e-3
"""Narrowest bin, as a fraction of the box."""

_MAX_LOG_SLOPE = math.log(1e3)
"""Slopes at the knots stay within a factor 1000 of one."""


class Bin(NamedTuple):
    """The numbers of the selected bin, each shaped like x."""

    x0: Tensor
    width: Tensor
    y0: Tensor
    height: Tensor
    d0: Tensor
    d1: Tensor


class Curve(NamedTuple):
    """Value and ingredients of the rational quadratic at theta."""

    theta: Tensor
    t: Tensor
    s: Tensor
    p: Tensor
    q: Tensor
    n: Tensor


def _curve(x: Tensor, b: Bin) -> Curve:
    theta = ((x - b.x0) / b.width).clamp(0.0, 1.0)
    t = theta * (1.0 - theta)
    s = b.height / b.width
    square = theta * theta
    p = s * square + b.d0 * t
    q = s + (b.d0 + b.d1 - 2.0 * s) * t
    n = b.d1 * square + 2.0 * s * t + b.d0 * (1.0 - theta) * (1.0 - theta)
    return Curve(theta, t, s, p, q, n)


def rational_quadratic(x: Tensor, b: Bin) -> tuple[Tensor, Tensor]:
    """Value and log-slope at ``x`` inside the bin ``b`` (plain operations: any order of derivative)."""
    c = _curve(x, b)
    return b.y0 + b.height * (c.p / c.q), torch.log(c.s * c.s * c.n / (c.q * c.q))


def rational_quadratic_inverse(y: Tensor, b: Bin) -> tuple[Tensor, Tensor]:
    """The x of the bin ``b`` with value ``y``, and the log-slope there; one Newton step polishes the root of the quadratic."""
    eta = ((y - b.y0) / b.height).clamp(0.0, 1.0)
    s = b.height / b.width
    mixed = eta * (b.d0 + b.d1 - 2.0 * s)
    qa, qb, qc = s - b.d0 + mixed, b.d0 - mixed, -s * eta
    root = (qb * qb - 4.0 * qa * qc).clamp(min=0.0).sqrt()
    theta = (2.0 * eta * s / (qb + root)).clamp(0.0, 1.0)
    c = _curve(b.x0 + theta * b.width, b)
    slope = c.s * c.n / (c.q * c.q)
    theta = (theta - (c.p / c.q - eta) / slope).clamp(0.0, 1.0)
    x = b.x0 + theta * b.width
    c = _curve(x, b)
    return x, torch.log(c.s * c.s * c.n / (c.q * c.q))


@dataclass(frozen=True)
class RationalQuadratic:
    """An element: a monotone spline per number, from ``size`` raw parameters (all zero = the identity).

    Parameters
    ----------
    bins : K.
    bound : half the width B of the box; the identity outside.
    circular : on the circle [-B, B): the slopes at both ends are equal, and two last parameters (u, v) first turn the circle by the
        angle of (1 + u, v), so that the spline's shape can follow another angle all the way round.
    """

    bins: int = 8
    bound: float = 5.0
    circular: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "bins")
        check_at_least(self, 1e-6, "bound")

    @property
    def size(self) -> int:
        """Raw parameters per number: K widths, K heights, K - 1 inner slopes (circular: K slopes and a turn)."""
        return 3 * self.bins + (2 if self.circular else -1)

    def forward(self, x: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        """``(y, log dy/dx)``, both shaped like ``x``; ``raw`` has one more axis ``dim``, of ``size``."""
        if self.circular:
            turned = self._turn(x, self._angle(raw, dim))
            return self._apply(turned, raw.narrow(dim, 0, 3 * self.bins), dim, inverse=False)
        return self._apply(x, raw, dim, inverse=False)

    def inverse(self, y: Tensor, raw: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
        """``(x, log dx/dy)``, the inverse of :meth:`forward`."""
        if self.circular:
            x, log_slope = self._apply(y, raw.narrow(dim, 0, 3 * self.bins), dim, inverse=True)
            return self._turn(x, -self._angle(raw, dim)), log_slope
        return self._apply(y, raw, dim, inverse=True)

    def _angle(self, raw: Tensor, dim: int) -> Tensor:
        u, v = 1.0 + raw.select(dim, self.size - 2), raw.select(dim, self.size - 1)
        u = torch.where((u == 0.0) & (v == 0.0), 1.0, u)  # no direction, no turn, and no NaN gradient
        return torch.atan2(v, u) * (self.bound / math.pi)

    def _turn(self, x: Tensor, angle: Tensor) -> Tensor:
        return torch.remainder(x + angle + self.bound, 2.0 * self.bound) - self.bound

    def _apply(self, x: Tensor, raw: Tensor, dim: int, inverse: bool) -> tuple[Tensor, Tensor]:
        dim = dim % raw.dim()
        if torch.is_grad_enabled() and not plain() and (x.requires_grad or raw.requires_grad):
            with torch.autocast(x.device.type, enabled=False):
                return _Spline.apply(x, raw.to(x.dtype), self, dim, inverse)  # type: ignore[no-untyped-call]
        out, log_slope = _evaluate(x, raw.to(x.dtype), self, dim, inverse)[:2]
        return out, log_slope


class _Selection(NamedTuple):
    """What the backward pass needs: which bin, its numbers, and both softmaxes."""

    chosen: Tensor
    bin: Bin
    widths: Tensor
    heights: Tensor
    left: Tensor
    right: Tensor


def _select(x: Tensor, raw: Tensor, e: RationalQuadratic, dim: int, inverse: bool) -> _Selection:
    """Find the bin of each x (of each y for the inverse) and its numbers."""
    k, box, scale = e.bins, 2.0 * e.bound, 1.0 - _MIN_BIN * e.bins
    widths, heights = F.softmax(raw.narrow(dim, 0, k), dim), F.softmax(raw.narrow(dim, k, k), dim)
    sums_w, sums_h = widths.cumsum(dim), heights.cumsum(dim)
    u = ((x + e.bound) / box).unsqueeze(dim)
    steps = torch.arange(1, k, device=x.device, dtype=x.dtype).reshape(
        [-1 if i == dim else 1 for i in range(raw.dim())]
    )
    inner = (sums_h if inverse else sums_w).narrow(dim, 0, k - 1)
    index = (inner * scale + steps * _MIN_BIN <= u).sum(dim, keepdim=True)
    fraction = index.to(x.dtype) * _MIN_BIN
    w, h = widths.gather(dim, index), heights.gather(dim, index)
    x0 = ((sums_w.gather(dim, index) - w) * scale + fraction) * box - e.bound
    y0 = ((sums_h.gather(dim, index) - h) * scale + fraction) * box - e.bound
    left, right = _raw_slopes(raw.narrow(dim, 2 * k, k if e.circular else k - 1), index, e, dim)
    width, height = (w * scale + _MIN_BIN) * box, (h * scale + _MIN_BIN) * box
    numbers = Bin(*(part.squeeze(dim) for part in (x0, width, y0, height, _slope(left), _slope(right))))
    return _Selection(index, numbers, widths, heights, left, right)


def _raw_slopes(raw: Tensor, index: Tensor, e: RationalQuadratic, dim: int) -> tuple[Tensor, Tensor]:
    if e.circular:
        return raw.gather(dim, index), raw.gather(dim, (index + 1) % e.bins)
    if e.bins == 1:
        return torch.zeros_like(index, dtype=raw.dtype), torch.zeros_like(index, dtype=raw.dtype)
    left = raw.gather(dim, (index - 1).clamp(min=0)) * (index > 0)
    right = raw.gather(dim, index.clamp(max=e.bins - 2)) * (index < e.bins - 1)
    return left, right


def _slope(raw: Tensor) -> Tensor:
    return torch.exp(_MAX_LOG_SLOPE * torch.tanh(raw / _MAX_LOG_SLOPE))


def _evaluate(
    x: Tensor, raw: Tensor, e: RationalQuadratic, dim: int, inverse: bool
) -> tuple[Tensor, Tensor, _Selection, Tensor]:
    inside = x.abs() <= e.bound
    clamped = x.clamp(-e.bound, e.bound)
    chosen = _select(clamped, raw, e, dim, inverse)
    out, log_slope = (rational_quadratic_inverse if inverse else rational_quadratic)(clamped, chosen.bin)
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, out, x), torch.where(inside, log_slope, 0.0), chosen, inside


class _Spline(torch.autograd.Function):
    """Forward and inverse with derivatives in closed form; the inverse by the implicit function theorem on the same formulas."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, raw: Tensor, e: RationalQuadratic, dim: int, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        out, log_slope, chosen, inside = _evaluate(x, raw, e, dim, inverse)
        ctx.save_for_backward(out if inverse else x, log_slope, inside, chosen.chosen, *chosen.bin, *chosen[2:])
        ctx.element, ctx.dim, ctx.inverse = e, dim, inverse
        return out, log_slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        x, log_slope, inside, index, *numbers = ctx.saved_tensors
        b = Bin(*numbers[:6])
        c = _curve(x, b)
        grad_in, keep = grad_out, inside.to(x.dtype)
        zg, lg = grad_out * keep, grad_log * keep
        log_theta = _log_slope_by_theta(c, b)
        if ctx.inverse:
            slope = torch.exp(-log_slope)
            zg = (zg - lg * log_theta / b.width) / slope
            grad_in = torch.where(inside, zg, grad_in)
            zg, lg = -zg * keep, -lg
        by_theta, *by_bin = _partials(c, b, zg, lg, log_theta)
        if not ctx.inverse:
            grad_in = torch.where(inside, by_theta / b.width, grad_in)
        raw_grad = _raw_gradient(ctx, by_bin, index, numbers[6:]) if ctx.needs_input_grad[1] else None
        return grad_in, raw_grad, None, None, None


def _log_slope_by_theta(c: Curve, b: Bin) -> Tensor:
    """d log f' / d theta."""
    n = 2.0 * (b.d1 * c.theta + c.s * (1.0 - 2.0 * c.theta) - b.d0 * (1.0 - c.theta))
    q = (b.d0 + b.d1 - 2.0 * c.s) * (1.0 - 2.0 * c.theta)
    return n / c.n - 2.0 * q / c.q


def _partials(c: Curve, b: Bin, zg: Tensor, lg: Tensor, log_theta: Tensor) -> tuple[Tensor, ...]:
    """Gradients with respect to theta, x0, width, y0, height, d0 and d1, given those of value and log-slope."""
    inverse_q, inverse_n, inverse_w = 1.0 / c.q, 1.0 / c.n, 1.0 / b.width
    ratio = c.p * inverse_q
    zh, two_q = zg * b.height * inverse_q, 2.0 * inverse_q
    one_2t = 1.0 - 2.0 * c.t
    theta = zg * (c.s * c.s * c.n * inverse_q * inverse_q) * b.width + lg * log_theta
    s = zh * (c.theta * c.theta - ratio * one_2t) + lg * (2.0 / c.s + 2.0 * c.t * inverse_n - one_2t * two_q)
    t_q = c.t * two_q
    d0 = zh * c.t * (1.0 - ratio) + lg * ((1.0 - c.theta) * (1.0 - c.theta) * inverse_n - t_q)
    d1 = -zh * c.t * ratio + lg * (c.theta * c.theta * inverse_n - t_q)
    by_width = -(theta * c.theta + s * c.s) * inverse_w
    return theta, -theta * inverse_w, by_width, zg, zg * ratio + s * inverse_w, d0, d1


def _raw_gradient(ctx: Any, by_bin: list[Tensor], index: Tensor, saved: list[Tensor]) -> Tensor:
    """Through softmax, cumulative sums and the selection, back to the raw parameters."""
    e, dim, (widths, heights, left, right) = ctx.element, ctx.dim, saved
    x0, width, y0, height, d0, d1 = (part.unsqueeze(dim) for part in by_bin)
    bins = torch.arange(e.bins, device=index.device).reshape([-1 if i == dim else 1 for i in range(index.dim())])
    below = (bins < index).to(x0.dtype)
    out = widths.new_zeros(
        [(3 * e.bins if e.circular else e.size) if i == dim else n for i, n in enumerate(widths.shape)]
    )
    scale = (1.0 - _MIN_BIN * e.bins) * 2.0 * e.bound
    _softmax_gradient(out.narrow(dim, 0, e.bins), widths, below, index, x0 * scale, width * scale, dim)
    _softmax_gradient(out.narrow(dim, e.bins, e.bins), heights, below, index, y0 * scale, height * scale, dim)
    _slope_gradient(out, index, (d0, left), (d1, right), e, dim)
    return out


def _softmax_gradient(
    out: Tensor, soft: Tensor, below: Tensor, index: Tensor, start: Tensor, size: Tensor, dim: int
) -> None:
    """d/d logits of (start * sum of the bins below + size * the bin itself)."""
    torch.mul(below, start, out=out)
    out.scatter_(dim, index, size)
    mean = (out * soft).sum(dim, keepdim=True)
    out.sub_(mean).mul_(soft)


def _slope_gradient(
    out: Tensor,
    index: Tensor,
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    e: RationalQuadratic,
    dim: int,
) -> None:
    if e.bins == 1 and not e.circular:
        return

    def through(grad: Tensor, raw: Tensor) -> Tensor:
        tanh = torch.tanh(raw / _MAX_LOG_SLOPE)
        return grad * torch.exp(_MAX_LOG_SLOPE * tanh) * (1.0 - tanh * tanh)

    slopes = out.narrow(dim, 2 * e.bins, e.bins if e.circular else e.bins - 1)
    if e.circular:
        slopes.scatter_add_(dim, index, through(*left))
        slopes.scatter_add_(dim, (index + 1) % e.bins, through(*right))
    else:
        slopes.scatter_add_(dim, (index - 1).clamp(min=0), through(*left) * (index > 0))
        slopes.scatter_add_(dim, index.clamp(max=e.bins - 2), through(*right) * (index < e.bins - 1))
