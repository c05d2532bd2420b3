"""Elementwise bijections over a million points: forth and back, monotone, finite, in float64 and float32; tails, ends and knots included.

float64: |x' - x| <= 1e-9 (1 + 1/f'), x' = f^-1(f(x)); the value of a row is the largest |x' - x| / (1 + 1/f').
float32: |f(x') - y| <= 5e-5, x' = f^-1(y), where slopes f' are at most 100 (a steeper one magnifies the rounding of x' itself).
Monotone: the largest step down between neighbouring points, which rounding alone may cause. Seed 1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from common import Row
from measuring import Sheet, parser
from torch import Tensor

from pofx.bijections import Affine, Bijection, Chain, Gaussianise, Log, Logit, Periodic, Standardise
from pofx.bijections.elements import AffineElement
from pofx.bijections.splines import RationalQuadratic

NAME = "02_bijections"
SEED = 1
POINTS = 1_000_000
INVERSE, INVERSE_32, STEEPEST = 1e-9, 5e-5, 100.0
MONOTONE = 4.0
"""Units of rounding that neighbours may be out of order by."""
CURVES = 200
"""Sets of parameters whose curves are followed point by point."""
NARROWEST = 1e-3
"""Smallest width of a spline's bin as a fraction of the box (arXiv:1906.04032); needed to place points on knots."""
Map = Callable[[Tensor], tuple[Tensor, Tensor]]


class Drawn(NamedTuple):
    """A map with points to try it at: x for forth and back, y for back and forth."""

    forward: Map
    inverse: Map
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Case:
    """A map of single numbers.

    `draw(n, dtype)`; `grid(n, dtype)`: forward and ascending points in rows; `period`, `period_y`: distances in x and y are taken around a
    circle; `single`: whether float32 is measured too.
    """

    name: str
    draw: Callable[[int, torch.dtype], Drawn]
    grid: Callable[[int, torch.dtype], tuple[Map, Tensor]]
    period: float = math.inf
    period_y: float = math.inf
    single: bool = True


def normal(*shape: int, seed: int = SEED) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a: Tensor, b: Tensor, period: float) -> Tensor:
    """|a - b|, the short way round a circle."""
    apart = (a.double() - b.double()).abs()
    return torch.minimum(apart, period - apart) if math.isfinite(period) else apart


# Splines and the affine element: parameters of their own for every point


def knots(spline: RationalQuadratic, raw: Tensor, which: int) -> Tensor:
    """An inner knot, out of the parameters of widths (x) or of heights (y)."""
    share = torch.softmax(raw[:, : spline.bins], -1) * (1.0 - NARROWEST * spline.bins) + NARROWEST
    return (share.cumsum(-1)[:, which] * 2.0 - 1.0) * spline.bound


def points(spline: RationalQuadratic, raw: Tensor) -> Tensor:
    """A quarter each: on knots, on the ends and next to them, far outside (on a circle: inside), inside."""
    n, quarter, b = len(raw), len(raw) // 4, spline.bound
    x = ((2.0 * uniform(n) - 1.0) * b).to(raw.dtype)
    x[:quarter] = knots(spline, raw[:quarter], spline.bins // 2)
    ends = torch.tensor([-1.0, 1.0, -1.0 + 1e-7, 1.0 - 1e-7, -1.0 - 1e-7, 1.0 + 1e-7], dtype=raw.dtype) * b
    x[quarter : 2 * quarter] = ends.repeat(quarter)[:quarter]
    if spline.circular:
        return x.clamp(-b, math.nextafter(b, 0.0))
    x[2 * quarter : 3 * quarter] = 1e3 * normal(quarter)
    return x


def spline_case(name: str, spline: RationalQuadratic, scale: float) -> Case:
    """A spline with normal raw parameters times `scale`."""

    def draw(n: int, dtype: torch.dtype) -> Drawn:
        raw = (scale * normal(n, spline.size)).to(dtype)
        x, y = points(spline, raw), points(spline, raw[:, spline.bins :])
        return Drawn(lambda at: spline.forward(at, raw), lambda at: spline.inverse(at, raw), x, y)

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        raw = (scale * normal(CURVES, 1, spline.size)).to(dtype)
        if spline.circular:
            raw[..., -2:] = 0.0  # no turn, so that y does not wrap
        edge = spline.bound * (0.999 if spline.circular else 1.2)
        x = torch.linspace(-edge, edge, n // CURVES, dtype=dtype).expand(CURVES, -1)
        return lambda at: spline.forward(at, raw.expand(CURVES, at.shape[1], -1)), x

    period = 2.0 * spline.bound if spline.circular else math.inf
    return Case(f"{name}, scale {scale:g}", draw, grid, period, period, scale < 1)


def affine_case(scale: float) -> Case:
    """y = x exp(a) + b with normal raw parameters times `scale`; in float64 every fourth point far out."""
    element = AffineElement()

    def draw(n: int, dtype: torch.dtype) -> Drawn:
        raw = (scale * normal(n, element.size)).to(dtype)
        far = 1e3 if dtype == torch.float64 else 3.0
        x, y = ((normal(n, seed=seed) * torch.where(torch.arange(n) % 4 == 0, far, 1.0)).to(dtype) for seed in (2, 3))
        return Drawn(lambda at: element.forward(at, raw), lambda at: element.inverse(at, raw), x, y)

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        raw = (scale * normal(CURVES, 1, element.size)).to(dtype)
        x = torch.linspace(-10.0, 10.0, n // CURVES, dtype=dtype).expand(CURVES, -1)
        return lambda at: element.forward(at, raw.expand(CURVES, at.shape[1], -1)), x

    return Case(f"affine element, scale {scale:g}", draw, grid, single=scale < 1)


# Preprocessing: one fitted map for all points


def step_case(name: str, build: Callable[[], Bijection], sample: Callable[[int], Tensor], **more: Any) -> Case:
    """A step fitted on 1e5 of its own points (drawn in float64)."""

    def maps() -> tuple[Map, Map]:
        step = build()
        step.fit(sample(100_000)[:, None])
        return partial(_flat, step), partial(_flat, step.inverse)

    def draw(n: int, dtype: torch.dtype) -> Drawn:
        forward, inverse = maps()
        x = sample(n).to(dtype)
        return Drawn(forward, inverse, x, forward(x)[0] * (1.0 - 1e-3 * uniform(n).to(dtype)))

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        return maps()[0], sample(n).sort().values.to(dtype)[None]

    return Case(name, draw, grid, **more)


def _flat(function: Map, x: Tensor) -> tuple[Tensor, Tensor]:
    """A map of one column, for numbers of any shape."""
    z, log_slope = function(x.reshape(-1, 1))
    return z.reshape(x.shape), log_slope.reshape(x.shape)


def uniform(n: int) -> Tensor:
    """On (0, 1)."""
    return torch.rand(n, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)


def edgy(n: int, nearest: float = 1e-9) -> Tensor:
    """On (-1, 1), a tenth of the points each drawn towards one of the ends."""
    u, tenth = uniform(n), n // 10
    u[:tenth] = nearest ** u[:tenth]
    u[tenth : 2 * tenth] = 1.0 - nearest ** u[tenth : 2 * tenth]
    return 2.0 * u.clamp(nearest, 1.0 - nearest) - 1.0


def spread(n: int) -> Tensor:
    """Lognormal."""
    return torch.exp(normal(n))


def bump(n: int) -> Tensor:
    """Away from zero."""
    return 3.0 + 0.5 * normal(n)


def bimodal(n: int) -> Tensor:
    """Two peaks, and a thousandth of all points far out."""
    side = torch.where(torch.arange(n) % 3 == 0, -2.0, 1.0)
    return side + 0.4 * normal(n) * torch.where(torch.arange(n) % 1000 == 0, 10.0, 1.0)


def cases() -> Iterator[Case]:
    """All maps."""
    line, circle = RationalQuadratic(8, 5.0), RationalQuadratic(8, math.pi, circular=True)
    for scale in (0.7, 3.0, 30.0):
        yield spline_case("spline on the line", line, scale)
        yield spline_case("spline on the circle", circle, scale)
        yield affine_case(scale)
    yield step_case("affine", lambda: Affine([-2.5], [1.0]), normal)
    yield step_case("standardise", lambda: Standardise(1), bump)
    yield step_case("standardise, 1e-39", lambda: Standardise(1), lambda n: 1e-39 * bump(n), single=False)
    yield step_case("log above an end", lambda: Log(low=1.0), lambda n: 1.0 + spread(n))
    yield step_case("log below an end", lambda: Log(high=1.0), lambda n: 1.0 - spread(n))
    yield step_case("logit", lambda: Logit(-1.0, 1.0), edgy)
    turn = {"period": 2.0, "period_y": math.tau}
    yield step_case("periodic", lambda: Periodic(-1.0, 1.0, rotate=False), partial(edgy, nearest=1e-6), **turn)
    yield step_case("gaussianise", lambda: Gaussianise(1), bimodal)
    chain = partial(Chain, Log(low=0.0), Standardise(1), Gaussianise(1))
    yield step_case("log, standardise, gaussianise", chain, spread)


# Rows


def inverse_row(case: Case, n: int) -> Row:
    """float64: x to y and back."""
    drawn = case.draw(n, torch.float64)
    y, log_slope = drawn.forward(drawn.x)
    back, log_inverse = drawn.inverse(y)
    error = distance(back, drawn.x, case.period) / (1.0 + torch.exp(-log_slope))
    return _worst(error, drawn.x, [y, log_slope, back, log_inverse], INVERSE)


def single_row(case: Case, n: int) -> Row:
    """float32: y to x and back, where slopes are bounded."""
    drawn = case.draw(n, torch.float32)
    x, log_inverse = drawn.inverse(drawn.y)
    again, log_slope = drawn.forward(x)
    bounded = log_slope <= math.log(STEEPEST)
    error = distance(again, drawn.y, case.period_y).where(bounded, 0.0)
    row = _worst(error, drawn.y, [x, again, log_inverse, log_slope], INVERSE_32)
    return {**row, "share_of_points": float(bounded.double().mean())}


def monotone_row(case: Case, dtype: torch.dtype, n: int) -> Row:
    """The largest step back along ascending points, in units of the rounding of the largest |y|."""
    forward, x = case.grid(n, dtype)
    y, log_slope = forward(x)
    rise = y.double().diff(dim=-1) * (y[..., -1:] - y[..., :1]).sign()
    back = (-rise).clamp(min=0.0).abs() / (torch.finfo(dtype).eps * float(y.abs().max()))
    return _worst(back, x[..., 1:], [y, log_slope], MONOTONE)


def _worst(error: Tensor, where: Tensor, numbers: list[Tensor], bar: float) -> Row:
    error = error.flatten()
    worst = int(error.nan_to_num(math.inf).argmax())
    bad = sum(int((~part.isfinite()).sum()) for part in numbers)
    value = float(error[worst])
    row = {"value": value, "error": None, "passed": bool(value <= bar) and bad == 0, "not_finite": bad}
    return {**row, "worst_at": float(where.flatten()[worst]), "points": len(error)}


def rows(case: Case) -> Iterator[tuple[str, Callable[[int], Row], float]]:
    """Measure, how to measure it with n points, bar."""
    yield f"{case.name}: inverse in float64", partial(inverse_row, case), INVERSE
    yield f"{case.name}: monotone in float64", partial(monotone_row, case, torch.float64), MONOTONE
    if case.single:
        yield f"{case.name}: inverse in float32", partial(single_row, case), INVERSE_32
        yield f"{case.name}: monotone in float32", partial(monotone_row, case, torch.float32), MONOTONE


def main() -> None:
    """Two or four rows per map."""
    options = parser(__doc__).parse_args()
    sheet, n = Sheet(NAME, quick=options.quick), 4000 if options.quick else POINTS
    plan = [row for case in cases() for row in rows(case)]
    for measure, make, bar in plan:
        sheet.measure(measure, partial(make, n), seeds=[SEED], bar=bar)
    sheet.finish(measure for measure, _, _ in plan)


if __name__ == "__main__":
    main()
