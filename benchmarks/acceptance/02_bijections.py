"""Elementwise bijections over a million points: forth and back, monotone, finite, in float64 and float32; tails, ends and knots included.

float64: |x' - x| <= 1e-9 (1 + 1/f'), x' = f^-1(f(x)); the value of a row is the largest |x' - x| / (1 + 1/f').
float32: |f(x') - y| <= 5e-5, x' = f^-1(y), where slopes f' are at most 100 (a steeper one magnifies the rounding of x' itself).
Monotone: the largest step down between neighbouring points, which rounding alone may cause. Seed 1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

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
NARROWEST = 1e-3
"""Smallest width of a spline's bin as a fraction of the box (arXiv:1906.04032); needed to place points on knots."""
Map = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A map of single numbers: `at(n, dtype)` gives forward, inverse (both with log-slope) and n points x.

    `period`: of x, where distances are taken around a circle; `period_y`: of y. `slack`: what rounding may do to neighbours,
    in units in the last place of `size`, the largest |y|.
    """

    name: str
    at: Callable[[int, torch.dtype], tuple[Map, Map, Tensor]]
    grid: Callable[[int, torch.dtype], tuple[Map, Tensor]]
    period: float = math.inf
    period_y: float = math.inf
    single: bool = field(default=True)


def normal(*shape: int, seed: int = SEED) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a: Tensor, b: Tensor, period: float) -> Tensor:
    """|a - b|, the short way round a circle."""
    apart = (a.double() - b.double()).abs()
    return torch.minimum(apart, period - apart) if math.isfinite(period) else apart


# Splines and the affine element: parameters of their own for every point


def knots(spline: RationalQuadratic, raw: Tensor, which: int) -> Tensor:
    """The x of an inner knot."""
    share = torch.softmax(raw[:, : spline.bins], -1) * (1.0 - NARROWEST * spline.bins) + NARROWEST
    return (share.cumsum(-1)[:, which] * 2.0 - 1.0) * spline.bound


def points(spline: RationalQuadratic, raw: Tensor) -> Tensor:
    """A quarter each: on knots, on the ends and next to them, far outside (on a circle: inside), inside."""
    n, quarter, b = len(raw), len(raw) // 4, spline.bound
    x = (2.0 * torch.rand(n, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64) - 1.0) * b
    x = x.to(raw.dtype)
    x[:quarter] = knots(spline, raw[:quarter], spline.bins // 2)
    ends = torch.tensor([-1.0, 1.0, -1.0 + 1e-7, 1.0 - 1e-7, -1.0 - 1e-7, 1.0 + 1e-7], dtype=raw.dtype) * b
    x[quarter : 2 * quarter] = ends.repeat(quarter)[:quarter]
    x[2 * quarter : 3 * quarter] = x[2 * quarter : 3 * quarter] if spline.circular else 1e3 * normal(quarter)
    return x.clamp(-b, math.nextafter(b, 0.0)) if spline.circular else x


def spline_case(name: str, spline: RationalQuadratic, scale: float, single: bool) -> Case:
    """A spline with normal raw parameters times `scale`."""

    def at(n: int, dtype: torch.dtype) -> tuple[Map, Map, Tensor]:
        raw = (scale * normal(n, spline.size)).to(dtype)
        return lambda x: spline.forward(x, raw), lambda y: spline.inverse(y, raw), points(spline, raw)

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        sets = 200
        raw = (scale * normal(sets, 1, spline.size)).to(dtype)
        raw[..., spline.size - 1 :] *= 0.0 if spline.circular else 1.0  # no turn, so that y does not wrap
        edge = spline.bound if spline.circular else 1.2 * spline.bound
        x = torch.linspace(-edge, edge, max(n // sets, 2), dtype=dtype).expand(sets, -1)
        inner = x.clamp(-edge, math.nextafter(edge, 0.0)) if spline.circular else x
        return lambda at: spline.forward(at, raw.expand(sets, at.shape[1], -1)), inner

    period = 2.0 * spline.bound if spline.circular else math.inf
    return Case(f"{name}, scale {scale:g}", at, grid, period, period, single)


def affine_case(scale: float, single: bool) -> Case:
    """y = x exp(a) + b with normal raw parameters times `scale`."""
    element = AffineElement()

    def at(n: int, dtype: torch.dtype) -> tuple[Map, Map, Tensor]:
        raw = (scale * normal(n, element.size)).to(dtype)
        x = normal(n, seed=SEED + 1) * torch.where(torch.arange(n) % 4 == 0, 1e3 if dtype == torch.float64 else 3.0, 1.0)
        return lambda x: element.forward(x, raw), lambda y: element.inverse(y, raw), x.to(dtype)

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        raw = (scale * normal(200, 1, element.size)).to(dtype)
        x = torch.linspace(-10.0, 10.0, max(n // 200, 2), dtype=dtype).expand(200, -1)
        return lambda at: element.forward(at, raw.expand(200, at.shape[1], -1)), x

    return Case(f"affine element, scale {scale:g}", at, grid, single=single)


# Preprocessing: one fitted map for all points


def step_case(name: str, build: Callable[[], Bijection], draw: Callable[[int], Tensor], **more: float) -> Case:
    """A step fitted on 1e5 of its own points (drawn in float64)."""

    def maps() -> tuple[Map, Map]:
        step = build()
        step.fit(draw(100_000)[:, None])

        def forward(x: Tensor) -> tuple[Tensor, Tensor]:
            z, log_slope = step(x.reshape(-1, 1))
            return z.reshape(x.shape), log_slope.reshape(x.shape)

        def inverse(z: Tensor) -> tuple[Tensor, Tensor]:
            x, log_slope = step.inverse(z.reshape(-1, 1))
            return x.reshape(z.shape), log_slope.reshape(z.shape)

        return forward, inverse

    def at(n: int, dtype: torch.dtype) -> tuple[Map, Map, Tensor]:
        return *maps(), draw(n).to(dtype)

    def grid(n: int, dtype: torch.dtype) -> tuple[Map, Tensor]:
        return maps()[0], draw(n).sort().values.to(dtype)[None]

    return Case(name, at, grid, **more)  # type: ignore[arg-type]


def uniform(n: int) -> Tensor:
    """On (0, 1), with its ends approached to 1e-9."""
    u = torch.rand(n, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    u[: n // 10] = 10.0 ** (-9.0 * u[: n // 10])
    u[n // 10 : n // 5] = 1.0 - 10.0 ** (-9.0 * u[n // 10 : n // 5])
    return u.clamp(1e-9, 1.0 - 1e-9)


def bimodal(n: int) -> Tensor:
    """Two peaks, and a thousandth of all points far out."""
    side = torch.where(torch.arange(n) % 3 == 0, -2.0, 1.0)
    return side + 0.4 * normal(n) * torch.where(torch.arange(n) % 1000 == 0, 10.0, 1.0)


def cases() -> Iterator[Case]:
    """All maps."""
    line, circle = RationalQuadratic(8, 5.0), RationalQuadratic(8, math.pi, circular=True)
    for scale in (0.7, 3.0, 30.0):
        yield spline_case("spline on the line", line, scale, scale < 1)
        yield spline_case("spline on the circle", circle, scale, scale < 1)
        yield affine_case(scale, scale < 1)
    spread = lambda n: torch.exp(normal(n))  # noqa: E731
    yield step_case("affine", lambda: Affine([-2.5], [1.0]), normal)
    yield step_case("standardise", lambda: Standardise(1), lambda n: 3.0 + 0.5 * normal(n))
    yield step_case("standardise, 1e-39", lambda: Standardise(1), lambda n: 1e-39 * (3.0 + 0.5 * normal(n)), single=False)
    yield step_case("log above an end", lambda: Log(low=1.0), lambda n: 1.0 + spread(n))
    yield step_case("log below an end", lambda: Log(high=1.0), lambda n: 1.0 - spread(n))
    yield step_case("logit", lambda: Logit(-1.0, 1.0), lambda n: 2.0 * uniform(n) - 1.0)
    turn = {"period": 2.0, "period_y": math.tau}
    yield step_case("periodic", lambda: Periodic(-1.0, 1.0, rotate=False), lambda n: 2.0 * uniform(n) - 1.0, **turn)
    yield step_case("gaussianise", lambda: Gaussianise(1), bimodal)
    yield step_case("log, standardise, gaussianise", lambda: Chain(Log(low=0.0), Standardise(1), Gaussianise(1)), spread)


# Rows


def inverse_row(case: Case, n: int) -> Row:
    """float64: x to y and back."""
    forward, inverse, x = case.at(n, torch.float64)
    y, log_slope = forward(x)
    back, log_inverse = inverse(y)
    error = distance(back, x, case.period) / (1.0 + torch.exp(-log_slope))
    return _worst(error, x, [y, log_slope, back, log_inverse], INVERSE)


def single_row(case: Case, n: int) -> Row:
    """float32: y to x and back, where slopes are bounded."""
    forward, inverse, x = case.at(n, torch.float32)
    y, _ = forward(x)
    at, log_inverse = inverse(y)
    again, log_slope = forward(at)
    bounded = log_slope <= math.log(STEEPEST)
    row = _worst(distance(again, y, case.period_y) * bounded, y, [y, at, again, log_inverse, log_slope], INVERSE_32)
    return {**row, "share_of_points": float(bounded.double().mean())}


def monotone_row(case: Case, n: int, dtype: torch.dtype) -> Row:
    """The largest step down along ascending points, in units of the rounding of the largest |y|."""
    forward, x = case.grid(n, dtype)
    y, log_slope = forward(x)
    ulp = torch.finfo(dtype).eps * float(y.abs().max())
    down = (-y.double().diff(dim=-1)).clamp(min=0.0) / ulp
    return _worst(down, x[..., 1:], [y, log_slope], MONOTONE)


MONOTONE = 4.0
"""Units of rounding that neighbours may be out of order by."""


def _worst(error: Tensor, where: Tensor, numbers: list[Tensor], bar: float) -> Row:
    error = error.flatten()
    worst = int(error.nan_to_num(math.inf).argmax())
    bad = sum(int((~part.isfinite()).sum()) for part in numbers)
    value = float(error[worst])
    row = {"value": value, "error": None, "passed": bool(value <= bar) and bad == 0, "not_finite": bad}
    return {**row, "worst_at": float(where.flatten()[worst]), "points": len(error)}


def main() -> None:
    """Three or four rows per map."""
    options = parser(__doc__).parse_args()
    sheet, n = Sheet(NAME, quick=options.quick), 4000 if options.quick else POINTS
    expected = []
    for case in cases():
        rows: list[tuple[str, Callable[[], Row], float]] = [
            ("inverse in float64", lambda case=case: inverse_row(case, n), INVERSE),  # type: ignore[misc]
            ("monotone in float64", lambda case=case: monotone_row(case, n, torch.float64), MONOTONE),  # type: ignore[misc]
        ]
        if case.single:
            rows += [
                ("inverse in float32", lambda case=case: single_row(case, n), INVERSE_32),  # type: ignore[misc]
                ("monotone in float32", lambda case=case: monotone_row(case, n, torch.float32), MONOTONE),  # type: ignore[misc]
            ]
        for what, make, bar in rows:
            expected.append(f"{case.name}: {what}")
            sheet.measure(expected[-1], make, seeds=[SEED], bar=bar)
    sheet.finish(expected)


if __name__ == "__main__":
    main()
