"""Rational-quadratic splines: against zuko, against autograd, round trips over the whole line, and what must never happen."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from pofx.bijections import splines
from pofx.bijections.splines import Bin, RationalQuadratic, rational_quadratic
from pofx.errors import ConfigError

LINE = RationalQuadratic(bins=8, bound=5.0)
CIRCLE = RationalQuadratic(bins=8, bound=math.pi, circular=True)


def raw_parameters(
    e: RationalQuadratic, n: int, scale: float, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    return scale * torch.randn(n, e.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(e: RationalQuadratic, raw: Tensor) -> Tensor:
    """A quarter each: all over the box, exactly on knots, at and next to the ends, and far outside (on a circle: inside)."""
    n, dtype = len(raw), raw.dtype
    g = torch.Generator().manual_seed(1)
    x = (2.0 * torch.rand(n, generator=g, dtype=torch.float64) - 1.0).to(dtype) * e.bound
    quarter = n // 4
    share = torch.softmax(raw[:quarter, : e.bins], -1) * (1.0 - 1e-3 * e.bins) + 1e-3
    x[:quarter] = (share.cumsum(-1)[:, min(3, e.bins - 1)] * 2.0 - 1.0) * e.bound
    ends = torch.tensor([-1.0, 1.0, -1.0 + 1e-7, 1.0 - 1e-7], dtype=dtype) * e.bound
    x[quarter : 2 * quarter] = ends.repeat(quarter)[:quarter]
    if not e.circular:
        x[2 * quarter : 3 * quarter] = torch.randn(quarter, generator=g, dtype=torch.float64).to(dtype) * 1e3
    return x.clamp(-e.bound, math.nextafter(e.bound, 0.0)) if e.circular else x


def distance(e: RationalQuadratic, a: Tensor, b: Tensor) -> Tensor:
    d = (a - b).abs()
    return torch.minimum(d, 2.0 * e.bound - d) if e.circular else d


def check_round_trip(e: RationalQuadratic, n: int, scale: float) -> None:
    raw = raw_parameters(e, n, scale)
    x = points(e, raw)
    y, log_slope = e.forward(x, raw)
    back, log_inverse = e.inverse(y, raw)
    assert all(torch.isfinite(part).all() for part in (y, log_slope, log_inverse))
    assert (distance(e, back, x) / (1.0 + torch.exp(-log_slope))).max() <= 1e-9


@pytest.mark.parametrize("element", [LINE, CIRCLE], ids=["line", "circle"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 30.0, 1e4])
def test_inverse_in_double_precision(element: RationalQuadratic, scale: float) -> None:
    check_round_trip(element, 20_000, scale)


@pytest.mark.slow
@pytest.mark.parametrize("element", [LINE, CIRCLE], ids=["line", "circle"])
@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
def test_inverse_in_double_precision_over_a_million_points(element: RationalQuadratic, scale: float) -> None:
    check_round_trip(element, 1_000_000, scale)


@pytest.mark.parametrize("element", [LINE, CIRCLE], ids=["line", "circle"])
@pytest.mark.parametrize("n", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_inverse_in_single_precision(element: RationalQuadratic, n: int) -> None:
    """|f(x') - y| <= 5e-5 where slopes are at most 100 (a steeper one magnifies the rounding of x itself)."""
    raw = raw_parameters(element, n, 0.7, torch.float32)
    y = points(element, raw)
    x, _ = element.inverse(y, raw)
    again, log_slope = element.forward(x, raw)
    bounded = log_slope < math.log(100.0)
    assert bounded.double().mean() > 0.999
    assert (distance(element, again, y) * bounded).max() <= 5e-5


def test_equals_zuko_given_equal_knots_and_slopes() -> None:
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    n, k = 20_000, 8
    shape = (n,)
    other = zuko.transforms.MonotonicRQSTransform(
        torch.randn(*shape, k, dtype=torch.float64),
        torch.randn(*shape, k, dtype=torch.float64),
        torch.randn(*shape, k - 1, dtype=torch.float64),
        bound=5.0,
    )
    x = 4.99 * (2.0 * torch.rand(n, dtype=torch.float64) - 1.0)
    index = (other.horizontal[:, 1:-1] <= x[:, None]).sum(1, keepdim=True)

    def at(values: Tensor, shift: int) -> Tensor:
        return values.gather(1, index + shift).squeeze(1)

    h, v, d = other.horizontal, other.vertical, other.derivatives
    b = Bin(at(h, 0), at(h, 1) - at(h, 0), at(v, 0), at(v, 1) - at(v, 0), at(d, 0), at(d, 1))
    y, log_slope = rational_quadratic(x, b)
    y_other, log_other = other.call_and_ladj(x)
    assert (y - y_other).abs().max() < 1e-10
    assert (log_slope - log_other).abs().max() < 1e-8


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize(
    "element",
    [LINE, CIRCLE, RationalQuadratic(1, 2.0), RationalQuadratic(3, 2.0)],
    ids=["line", "circle", "one", "three"],
)
@pytest.mark.parametrize("dim", [0, 1])
def test_analytic_gradient_equals_autograd(element: RationalQuadratic, inverse: bool, dim: int) -> None:
    raw = (
        raw_parameters(element, 400, 1.5) if dim else raw_parameters(element, 400, 1.5).t().contiguous()
    ).requires_grad_()
    x = points(element, raw.detach() if dim else raw.detach().t()).requires_grad_()
    weights = torch.randn(2, 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(function: object) -> tuple[Tensor, ...]:
        y, log_slope = function(x, raw)  # type: ignore[operator]
        return torch.autograd.grad((weights[0] * y + weights[1] * log_slope).sum(), (x, raw), allow_unused=False)

    ours = gradients(lambda a, b: (element.inverse if inverse else element.forward)(a, b, dim))
    theirs = gradients(lambda a, b: plain(element, a, b, dim, inverse))
    inner = (x.abs() - element.bound).abs() > 1e-5  # at the very ends the clamp halves autograd's derivative
    if element.bins > 1:
        inner[:100] = False  # on a knot the second derivative jumps: either side is right
    for a, b in zip(ours, theirs, strict=True):
        keep = inner if a.shape == x.shape else (inner[:, None] if dim else inner[None])
        assert (((a - b).abs() * keep) / (1.0 + b.abs())).max() < 1e-9


def plain(e: RationalQuadratic, x: Tensor, raw: Tensor, dim: int, inverse: bool) -> tuple[Tensor, Tensor]:
    """The same spline by ordinary operations, for autograd."""
    if not e.circular:
        return splines._evaluate(x, raw, e, dim, inverse)[:2]
    body, angle = raw.narrow(dim, 0, 3 * e.bins), e._angle(raw, dim)
    if inverse:
        y, log_slope = splines._evaluate(x, body, e, dim, True)[:2]
        return e._turn(y, -angle), log_slope
    return splines._evaluate(e._turn(x, angle), body, e, dim, False)[:2]


def test_zero_parameters_are_the_identity() -> None:
    x = torch.linspace(-8.0, 8.0, 1001, dtype=torch.float64)
    y, log_slope = LINE.forward(x, torch.zeros(1001, LINE.size, dtype=torch.float64))
    assert (y - x).abs().max() < 1e-14
    assert log_slope.abs().max() < 1e-14


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_monotone_and_finite(scale: float, dtype: torch.dtype) -> None:
    raw = raw_parameters(LINE, 50, scale, dtype)[:, None].expand(50, 4001, LINE.size)
    x = torch.linspace(-6.0, 6.0, 4001, dtype=dtype).expand(50, -1)
    y, log_slope = LINE.forward(x, raw)
    slack = 4.0 * torch.finfo(dtype).eps * 5.0
    assert (y.diff(dim=1) >= -slack).all()
    assert torch.isfinite(log_slope).all()


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_no_nan_gradient_anywhere(inverse: bool) -> None:
    """Outside the box, at its ends, on knots, with huge parameters: flowjax #239, normflows #73."""
    x = torch.tensor([-1e30, -1e6, -5.0, 0.0, 5.0, 5.0 + 1e-6, 1e6, 1e30], requires_grad=True)
    raw = (1e4 * raw_parameters(LINE, 8, 1.0, torch.float32)).requires_grad_()
    y, log_slope = (LINE.inverse if inverse else LINE.forward)(x, raw)
    (y.sum() + log_slope.sum()).backward()
    assert all(torch.isfinite(part.grad).all() for part in (x, raw))
    assert (x.grad[[0, 1, 6, 7]] == 1.0).all()
    assert (raw.grad[[0, 1, 5, 6, 7]] == 0.0).all()


def test_circle_is_continuous_across_the_seam() -> None:
    raw = raw_parameters(CIRCLE, 500, 1.0)
    low, high = (
        torch.full((500,), -math.pi, dtype=torch.float64),
        torch.full((500,), math.pi - 1e-9, dtype=torch.float64),
    )
    (y_low, slope_low), (y_high, slope_high) = CIRCLE.forward(low, raw), CIRCLE.forward(high, raw)
    assert distance(CIRCLE, y_low, y_high).max() < 1e-5
    assert (slope_low - slope_high).abs().max() < 1e-5


def test_bin_indices_do_not_depend_on_autograd() -> None:
    raw, x = raw_parameters(LINE, 1000, 2.0), torch.linspace(-6.0, 6.0, 1000, dtype=torch.float64)
    with torch.no_grad():
        quiet = LINE.forward(x, raw)
    tracked = LINE.forward(x, raw.requires_grad_())
    assert all(torch.equal(a, b) for a, b in zip(quiet, tracked, strict=True))


def test_exports_to_onnx_and_agrees(tmp_path: object) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Both(torch.nn.Module):
        def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            y, _ = LINE.forward(x, raw)
            return LINE.inverse(y, raw)

    raw, x = raw_parameters(LINE, 64, 1.0, torch.float32), torch.linspace(-6.0, 6.0, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(Both().eval(), (x, raw), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, {names[0]: x.numpy(), names[1]: raw.numpy()})
    expected = Both()(x, raw)
    assert abs(found[0] - expected[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("settings", [{"bins": 0}, {"bound": 0.0}, {"bound": -1.0}, {"bins": "many"}])
def test_bad_settings(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RationalQuadratic(**settings)  # type: ignore[arg-type]


def test_a_circle_can_follow_another_angle_all_the_way_round() -> None:
    other = torch.linspace(-math.pi, math.pi, 101, dtype=torch.float64)
    raw = torch.zeros(101, CIRCLE.size, dtype=torch.float64)
    raw[:, -2], raw[:, -1] = other.cos() - 1.0, other.sin()
    x = torch.full_like(other, 0.7)
    y, log_slope = CIRCLE.forward(x, raw)
    assert distance(CIRCLE, y, CIRCLE._turn(x, other)).max() < 1e-12
    assert log_slope.abs().max() < 1e-12
