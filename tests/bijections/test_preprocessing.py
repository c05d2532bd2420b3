"""Preprocessing: every fixed bijection through the generic checks, then what is particular to each."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import checks
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pofx.bijections import (
    LU,
    Affine,
    Bijection,
    Chain,
    Dequantise,
    FieldColumns,
    FieldStandardise,
    Gaussianise,
    Log,
    Logit,
    PerColumn,
    Periodic,
    Permutation,
    Preprocessing,
    Standardise,
    Whitening,
    build_preprocessing,
    periodic_columns,
    preprocessing_config,
    preprocessing_from_config,
    weighted_moments,
    weighted_quantiles,
)
from pofx.data.spec import Axis, Column, Field
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, PofxWarning, ShapeError

N = 10_000
ELEMENTWISE = ["affine", "standardise", "log", "logit", "gaussianise"]
LINEAR = ["whitening", "pca", "lu", "permutation", "reverse"]
CHAINS = ["per_column", "auto", "gaussianise_field"]


def normal(n: int = N, d: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(n: int = N, d: int = 2, seed: int = 2) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed_columns() -> tuple[Column, ...]:
    return (
        Column("pt", "GeV"),
        Column("cos", "", "bounded", -1.0, 1.0),
        Column("phi", "rad", "periodic", -math.pi, math.pi),
        Column("mass", "GeV", "bounded", 0.0, None),
        Column("y"),
    )


def mixed(n: int = N, seed: int = 3) -> tuple[Field, Tensor]:
    a, u = normal(n, 3, seed), uniform(n, 2, seed + 1)
    x = torch.stack(
        [(0.5 * a[:, 0]).exp(), 2 * u[:, 0] - 1, math.tau * u[:, 1] - math.pi, a[:, 1].exp(), a[:, 2] + 0.5 * a[:, 0]],
        1,
    )
    return Field("vector", (5,), mixed_columns()), x


def trained_lu() -> LU:
    layer = LU(4, seed=1).double()
    for i, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(0.3 * normal(16, 1, 10 + i).flatten()[: parameter.numel()].view_as(parameter))
    return layer


def make(name: str, n: int = N) -> tuple[Bijection, Tensor]:
    """A fitted bijection, and data that suit it."""
    a, u, four = normal(n), uniform(n), normal(n, 4) @ normal(4, 4, 5)
    field, x = mixed(n)
    cases: dict[str, tuple[Bijection, Tensor]] = {
        "affine": (Affine([2.0, -0.5], [1.0, 0.0]), a),
        "standardise": (Standardise(2), 3 * a + 7),
        "log": (Log(low=[0.0, None], high=[None, 5.0]), torch.stack([a[:, 0].exp(), 5 - a[:, 1].exp()], 1)),
        "logit": (Logit([0.0, -2.0], [1.0, 3.0]), u * torch.tensor([1.0, 5.0]) - torch.tensor([0.0, 2.0])),
        "periodic": (
            Periodic([0.0, -math.pi], [1.0, math.pi]),
            (u - torch.tensor([0.0, 0.5])) * torch.tensor([1.0, math.tau]),
        ),
        "dequantise": (Dequantise(2), (5 * a).round()),
        "gaussianise": (Gaussianise(2), torch.stack([a[:, 0].exp(), u[:, 1]], 1)),
        "whitening": (Whitening(4), four),
        "pca": (Whitening(4, "pca"), four),
        "lu": (trained_lu(), four),
        "permutation": (Permutation(4, seed=3), four),
        "reverse": (Permutation(4, "reverse"), four),
        "per_column": (PerColumn([([2, 0], Standardise(2)), ([3], Affine([3.0], [0.0]))], 4), four),
        "auto": (Preprocessing(1), x),
        "gaussianise_field": (Preprocessing(1), x),
    }
    bijection, data = cases[name]
    if name in ("auto", "gaussianise_field"):
        return build_preprocessing(field, data, method="auto" if name == "auto" else "gaussianise"), data
    bijection.fit(data)
    return bijection, data


ALL = [*ELEMENTWISE, *LINEAR, *CHAINS]


@pytest.mark.parametrize("name", [*ALL, "periodic", "dequantise"])
def test_shapes_and_dtypes(name: str) -> None:
    bijection, x = make(name)
    checks.check_shapes(bijection, x[:100])


@pytest.mark.parametrize("name", [*ALL, "periodic"])
def test_inverse(name: str) -> None:
    checks.check_round_trip(*make(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALL, "periodic"])
def test_inverse_on_a_million_events(name: str) -> None:
    bijection, x = make(name, 1_000_000)
    checks.check_round_trip(bijection, x)


@pytest.mark.parametrize(
    "name", ["affine", "standardise", "gaussianise", "whitening", "pca", "permutation", "per_column"]
)
def test_tails_and_float32(name: str) -> None:
    bijection, x = make(name)
    spread = (
        x.mean(0)
        + x.std(0) * torch.cat([torch.linspace(-1e6, 1e6, 101), torch.linspace(-12, 12, 1001)])[:, None].double()
    )
    checks.check_finite(bijection, spread)
    checks.check_round_trip(bijection, spread)
    if name != "gaussianise":  # a log-normal has unbounded slopes; float32 is tested in test_gaussianise_float32
        checks.check_round_trip_float32(bijection.float(), bijection(x)[0])


def test_gaussianise_float32() -> None:
    x = normal()
    bijection = Gaussianise(2)
    bijection.fit(x)
    checks.check_round_trip_float32(bijection.float(), torch.linspace(-6, 6, N)[:, None].expand(-1, 2))


@pytest.mark.parametrize("name", [*ALL, "periodic"])
def test_log_jacobian(name: str) -> None:
    bijection, x = make(name)
    checks.check_log_jacobian(bijection, x[:12])


@pytest.mark.parametrize("name", ["standardise", "log", "logit", "gaussianise"])
def test_monotone(name: str) -> None:
    bijection, x = make(name)
    checks.check_monotone(bijection, x)
    checks.check_monotone(bijection, torch.linspace(-50, 50, N).double()[:, None].expand(-1, 2))


@pytest.mark.parametrize("name", [*ALL, "periodic", "dequantise"])
def test_export(name: str) -> None:
    bijection, x = make(name)
    checks.check_export(bijection, x[:7])


@pytest.mark.parametrize("name", [*ELEMENTWISE, "periodic", "dequantise", "whitening", "pca", *CHAINS])
def test_config_and_state_dict(name: str) -> None:
    bijection, x = make(name)
    plain = json.loads(json.dumps(preprocessing_config(bijection), allow_nan=False))
    checks.check_state_dict(bijection, preprocessing_from_config(plain), x[:100])


@pytest.mark.parametrize("name", [*ELEMENTWISE, "whitening", "auto"])
def test_buffers_stay_double(name: str) -> None:
    bijection, x = make(name)
    before = bijection(x[:10])[0]
    assert torch.equal(bijection.float().half()(x[:10])[0], before)


class ThereAndBack(nn.Module):
    """Both directions as one graph."""

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, log_jacobian = self.bijection(x)
        return z, log_jacobian, *self.bijection.inverse(z)


def dequantised() -> tuple[Bijection, Tensor]:
    """What is not in "auto": whole numbers, mixed, each to a normal one."""
    x = (5 * normal()).round()
    steps = Chain(Dequantise(2), LU(2, seed=1), Gaussianise(2)).double()
    for parameter in steps.parameters():
        parameter.data += 0.3
    steps.fit(x)
    return steps, x


@pytest.mark.parametrize("name", ["auto", "dequantised"])
def test_onnx_agrees(tmp_path: Path, name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bijection, x = dequantised() if name == "dequantised" else make(name)
    module, at = ThereAndBack(bijection).eval(), x[:5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (at,), tmp_path / "model.onnx", dynamo=True, verbose=False, optimize=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: at.numpy()})
    for got, expected in zip(found, module(at), strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- moments


def test_weights_are_duplicates() -> None:
    x = normal(500).exp()
    weight = 1 + torch.arange(500) % 4
    copies = x.repeat_interleave(weight, 0)
    for kind in (Standardise, Whitening):
        one, other = kind(2), kind(2)
        one.fit(x, weight.double())
        other.fit(copies)
        torch.testing.assert_close(one(x)[0], other(x)[0], rtol=1e-10, atol=1e-10)
    z = torch.linspace(-2, 2, 50).double()
    equal = torch.full((len(copies),), 1 / len(copies), dtype=torch.float64)
    share = weight / weight.sum(dtype=torch.float64)
    quantiles = weighted_quantiles(x[:, 0], share, z)
    torch.testing.assert_close(quantiles, weighted_quantiles(copies[:, 0], equal, z), rtol=1e-10, atol=1e-10)


def test_negative_weights_are_fine_while_moments_are() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [1.0]]).double()
    mean, std = weighted_moments(x, torch.tensor([1.0, -0.5, 1.0, 0.5]))
    assert mean.item() == pytest.approx(1.0)
    assert std.item() == pytest.approx(1.0)
    with pytest.raises(DataError, match="positive"):
        weighted_moments(x, torch.tensor([-1.0, 0.0, 0.0, 0.0]))


def test_typed_errors_of_fit() -> None:
    x = normal(100)
    with pytest.raises(DataError, match="column 1"):
        Standardise(2).fit(torch.stack([x[:, 0], torch.full((100,), 0.1).double()], 1))
    x[3, 1] = math.nan
    with pytest.raises(NonFiniteError, match="row 3, column 1"):
        Standardise(2).fit(x)
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        Standardise(2)(normal(10, 3))
    with pytest.raises(ConfigError):
        Logit(1.0, 0.0)
    with pytest.raises(ConfigError):
        Log(0.0, 1.0)
    with pytest.raises(ConfigError):
        PerColumn([([0], Standardise(1)), ([0], Standardise(1))])


@pytest.mark.parametrize("size", [1e-300, 1e-42, 1e-9, 1e12, 1e250])
def test_any_magnitude(size: float) -> None:
    x = normal() * size
    for step in (Standardise(2), Whitening(2), Whitening(2, "pca"), Gaussianise(2)):
        z = step.fit(x)
        reference = (
            type(step)(2, step.method).fit(normal()) if isinstance(step, Whitening) else type(step)(2).fit(normal())
        )
        torch.testing.assert_close(z, reference, rtol=1e-9, atol=1e-9)
        assert step(x)[1].isfinite().all()


# ---------------------------------------------------------------------------------------------- ends and outside


def test_outside_has_density_zero() -> None:
    x = torch.tensor([[-0.1], [0.0], [0.5], [1.0], [1.1], [-1e6], [1e6]]).double()
    outside = torch.tensor([True, False, False, False, True, True, True])
    step = Logit(0.0, 1.0)
    checks.check_finite(step, x, zero_density=True)
    assert torch.equal(step(x)[1] == -math.inf, outside)
    step = Log(low=0.0)
    step.fit(x[1:4])
    checks.check_finite(step, x, zero_density=True)
    assert torch.equal(step(x)[1] == -math.inf, x.flatten() < 0)


def test_float32_rounding_of_an_end_is_inside() -> None:
    step = Logit(-math.pi, math.pi)
    x = torch.tensor([[math.pi], [-math.pi]], dtype=torch.float32)
    assert step(x)[1].isfinite().all()
    assert step(torch.tensor([[3.15]]))[1].item() == -math.inf


def test_far_latents_come_back_inside() -> None:
    z = torch.tensor([[-1e4], [-50.0], [50.0], [1e4]])
    for dtype in (torch.float32, torch.float64):
        x, _ = Logit(-2.0, 3.0).inverse(z.to(dtype))
        assert ((x >= -2) & (x <= 3)).all()
        assert Log(low=1.0).inverse(z.to(dtype))[0].isfinite().all()
        assert (Log(low=1.0).inverse(z.to(dtype))[0] >= 1).all()


def test_values_close_to_an_end_keep_their_digits() -> None:
    x = 10 ** torch.linspace(-30, -1, 100).double()[:, None]
    step = Logit(0.0, 1.0)
    step.fit(x)
    torch.testing.assert_close(step.inverse(step(x)[0])[0], x, rtol=1e-12, atol=0)


def test_periodic_wraps_and_cuts_where_it_is_empty() -> None:
    x = 5 + 0.3 * normal(N, 1)
    step = Periodic(0.0, 10.0)
    z = step.fit(x - 5)  # around 0, so the range's own end is in the middle of the peak
    assert z.std() < 0.5
    back, _ = step.inverse(z)
    assert ((back >= 0) & (back < 10)).all()
    turn = (back - (x - 5)) / 10
    assert (turn - turn.round()).abs().max() < 1e-12
    far = torch.tensor([[-1e-20], [10.0], [1e6], [-25.0]]).double()
    angle = step(far)[0]
    assert ((angle >= -math.pi) & (angle < math.pi)).all()
    assert Periodic(0.0, 10.0).fit(10 * uniform(N, 1)).shape == (N, 1)


def test_dequantise() -> None:
    x = torch.arange(-3.0, 4.0)[:, None].double()
    step = Dequantise(1, low=[-3.0], high=[3.0])
    noise = uniform(7, 1)
    z, log_jacobian = step(x, noise=noise)
    torch.testing.assert_close(z, x + noise)
    assert (log_jacobian == 0).all()
    assert torch.equal(step.inverse(z)[0], x)
    assert torch.equal(step(x)[0], x + 0.5)
    assert step.inverse(torch.tensor([[4.0], [-3.1]]))[0].flatten().tolist() == [3.0, -3.0]


# ---------------------------------------------------------------------------------------------- linear


@pytest.mark.parametrize("method", ["cholesky", "pca"])
def test_whitened_has_unit_covariance(method: str) -> None:
    x, weight = normal(N, 4) @ normal(4, 4, 5) * torch.tensor([1e-6, 1.0, 1e6, 3.0]), uniform(N, 1).flatten()
    z = Whitening(4, method).fit(x, weight)
    share = weight / weight.sum()
    torch.testing.assert_close((z * share[:, None]).T @ z, torch.eye(4).double(), rtol=1e-8, atol=1e-8)


def test_whitening_names_empty_directions() -> None:
    x = normal(100, 3)
    x = torch.cat([x, x[:, :1] - 2 * x[:, 1:2]], 1)
    with pytest.raises(DataError, match="1 of 4 directions") as caught:
        Whitening(4, names=["a", "b", "c", "d"]).fit(x)
    assert "*a" in str(caught.value)
    assert "*b" in str(caught.value)
    assert "*d" in str(caught.value)
    assert "*c" not in str(caught.value)
    with pytest.raises(DataError, match="singular"):
        Whitening(3).fit(normal(3, 3))


def test_lu_trains_and_permutes() -> None:
    layer = LU(3, seed=0)
    z, log_jacobian = layer(normal(5, 3).float())
    (z.sum() + log_jacobian.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert sorted(Permutation(10, seed=4).order.tolist()) == list(range(10))
    assert torch.equal(Permutation(10, seed=4).order, Permutation(10, seed=4).order)
    with pytest.raises(ConfigError):
        Permutation(3, [0, 0, 1])


# ---------------------------------------------------------------------------------------------- Gaussianise


def _bimodal(n: int, generator: np.random.Generator) -> np.ndarray:
    return np.where(generator.random(n) < 0.5, generator.normal(-3, 1, n), generator.normal(3, 0.5, n))


def _bimodal_log(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(stats.norm.logpdf(x, -3, 1), stats.norm.logpdf(x, 3, 0.5)) + math.log(0.5)


TRUTHS = {
    "normal": (lambda n, g: g.normal(size=n), stats.norm.logpdf),
    "lognormal": (lambda n, g: g.lognormal(size=n), stats.lognorm(1).logpdf),
    "exponential": (lambda n, g: g.exponential(size=n), stats.expon.logpdf),
    "bimodal": (_bimodal, _bimodal_log),
    "uniform": (lambda n, g: g.random(n), stats.uniform.logpdf),
    "student": (lambda n, g: g.standard_t(5, size=n), stats.t(5).logpdf),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_gaussianise_divergence(name: str, record_property) -> None:
    """KL(truth || fit) at N = 1e5 is below 1.5e-3 nats, estimated with an error far below; a Gaussian fit for comparison."""
    draw, log_density = TRUTHS[name]
    generator = np.random.default_rng(17)
    x, fresh = draw(100_000, generator), draw(200_000, generator)
    step = Gaussianise(1)
    step.fit(torch.tensor(x)[:, None])
    z, log_jacobian = step(torch.tensor(fresh)[:, None])
    fitted = stats.norm.logpdf(z[:, 0].numpy()) + log_jacobian.numpy()
    gaussian = stats.norm.logpdf(fresh, x.mean(), x.std())
    loss = log_density(fresh) - fitted
    kl, error = loss.mean(), loss.std() / math.sqrt(len(loss))
    gaussian_kl = (log_density(fresh) - gaussian).mean()
    for key, value in (("kl", kl), ("error", error), ("gaussian_kl", gaussian_kl)):
        record_property(key, float(value))
    print(f"{name}: KL = {kl:.2e} +- {error:.0e} nats; Gaussian {gaussian_kl:.2e}")
    assert kl - 3 * error < 1e-3
    assert kl < 1.5e-3
    if name != "normal":
        assert kl < 0.1 * gaussian_kl


def test_gaussianise_is_smooth() -> None:
    bijection, _ = make("gaussianise")
    at = bijection.x_knots[1:-1]
    below, above = (bijection._forward(at * (1 + sign * 1e-9))[1] for sign in (-1, 1))
    torch.testing.assert_close(below, above, atol=1e-4, rtol=1e-4)


def test_gaussianise_with_ties_and_atoms() -> None:
    x = torch.stack(
        [(2 * normal(N, 1).flatten()).round(), torch.where(normal(N, 1).flatten() > 0, 0.0, uniform(N, 1).flatten())], 1
    )
    bijection = Gaussianise(2)
    bijection.fit(x)
    checks.check_round_trip(bijection, x)
    checks.check_finite(bijection, x)
    with pytest.raises(DataError, match="column 1"):
        Gaussianise(2).fit(torch.stack([x[:, 0], torch.ones(N).double()], 1))


@pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
def test_gaussianise_few_events(n: int) -> None:
    bijection = Gaussianise(2)
    bijection.fit(normal(n))
    checks.check_round_trip(bijection, normal(100))


# ---------------------------------------------------------------------------------------------- build_preprocessing


def test_auto_chooses_and_describes() -> None:
    field, x = mixed()
    result = build_preprocessing(field, x)
    assert result.describe() == [
        "log(x - 0) -> standardise -> whitened",
        "logit(x; -1, 1) -> standardise -> whitened",
        f"angle(x; {-math.pi:g}, {math.pi:g})",
        "log(x - 0) -> standardise -> whitened",
        "standardise -> whitened",
    ]
    assert periodic_columns(result) == (2,)
    z = result(x)[0]
    straight = z[:, [0, 1, 3, 4]]
    torch.testing.assert_close(straight.T @ straight / len(x), torch.eye(4).double(), rtol=1e-8, atol=1e-8)
    assert z[:, 2].abs().max() <= math.pi


def test_methods() -> None:
    field, x = mixed()
    assert build_preprocessing(field, x, method="none")(x)[0] is x
    assert build_preprocessing(field, x, method="standardise").describe()[0] == "standardise"
    assert build_preprocessing(field, x, method="whiten").describe()[0] == "standardise -> whitened"
    assert "gaussianised" in build_preprocessing(field, x, method="gaussianise").describe()[0]
    with pytest.raises(ConfigError, match="auto"):
        build_preprocessing(field, x, method="nothing")


def test_auto_takes_logs_only_where_they_help() -> None:
    columns = tuple(Column(name) for name in ("near", "narrow", "positive", "negative", "signed"))
    a = normal(N, 5)
    x = torch.stack([100 + a[:, 0], 10 + 0.01 * a[:, 1], a[:, 2].exp(), -a[:, 3].exp(), a[:, 4] ** 3], 1)
    words = build_preprocessing(Field("vector", (5,), columns), x).describe()
    assert [word.split("(")[0] for word in words] == ["standardise -> whitened"] * 2 + [
        "log",
        "-log",
        "standardise -> whitened",
    ]


def test_log_needs_less_evidence_than_auto_and_does_not_whiten() -> None:
    """150 events of a log-normal of moderate width; a Gaussian of the same moments beside it keeps its scale."""
    a = normal(150, 5)
    x = torch.stack([(0.35 * a[:, 0]).exp(), 1 + 0.3 * a[:, 1], a[:, 2]], 1)
    field = Field("vector", (3,), tuple(Column(name) for name in ("lognormal", "gaussian", "signed")))
    first = [word.split("(")[0].split(" ")[0] for word in build_preprocessing(field, x, method="log").describe()]
    assert first == ["log", "standardise", "standardise"]
    assert not any("log" in word or "white" not in word for word in build_preprocessing(field, x).describe())


@pytest.mark.parametrize("method", ["auto", "standardise", "log", "whiten", "gaussianise"])
def test_scale_equivariance(method: str) -> None:
    x = torch.stack([normal()[:, 0].exp(), normal(seed=9)[:, 1]], 1)
    scale = 1e-39
    field = Field("vector", (2,), (Column("a"), Column("b")))
    one, other = build_preprocessing(field, x, method=method), build_preprocessing(field, scale * x, method=method)
    (z, log_jacobian), (z_scaled, log_scaled) = one(x), other(scale * x)
    torch.testing.assert_close(z, z_scaled, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        log_scaled - log_jacobian, torch.full((N,), -2 * math.log(scale), dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_discrete_columns() -> None:
    columns = (Column("n", "", "discrete", 0, None), Column("k", "", "discrete", 1, 6), Column("m", "", "discrete"))
    g = torch.Generator().manual_seed(1)
    x = torch.stack(
        [
            torch.poisson(torch.full((N,), 3.0), g),
            torch.randint(1, 7, (N,), generator=g),
            9 * normal(N, 1).flatten().round(),
        ],
        1,
    )
    result = build_preprocessing(Field("vector", (3,), columns), x)
    assert result.discrete_columns == (0, 1, 2)
    assert result.describe()[1] == "dequantise -> logit(x; 1, 7) -> standardise -> whitened"
    noise = uniform(N, 3)
    z, log_jacobian = result(x, noise=noise)
    assert log_jacobian.isfinite().all()
    assert torch.equal(result.inverse(z)[0], x)
    assert not torch.equal(z, result(x)[0])
    sample = result.inverse(4 * normal(N, 3))[0]
    assert torch.equal(sample, sample.round())
    assert sample[:, 0].min() >= 0
    assert sample[:, 1].min() >= 1
    assert sample[:, 1].max() <= 6


def test_density_of_a_die_integrates_to_one() -> None:
    x = torch.randint(1, 7, (N, 1), generator=torch.Generator().manual_seed(1)).double()
    result = build_preprocessing(Field("vector", (1,), (Column("k", "", "discrete", 1, 6),)), x)
    points = torch.arange(1.0, 7.0)[:, None].double().repeat(2000, 1)
    z, log_jacobian = result(points, noise=uniform(len(points), 1))
    density = (-0.5 * z.square().sum(1) - 0.5 * math.log(math.tau) + log_jacobian).exp()
    assert 6 * density.mean().item() == pytest.approx(1.0, abs=0.03)


def test_errors_name_the_column() -> None:
    field, x = mixed(200)
    for column, value, pattern in ((1, 1.5, "'cos'.*1 of 200"), (3, -1.0, "'mass'.*between 0.0 and None")):
        wrong = x.clone()
        wrong[5, column] = value
        with pytest.raises(DataError, match=pattern):
            build_preprocessing(field, wrong)
    constant = x.clone()
    constant[:, 4] = 2.0
    with pytest.raises(DataError, match="'y'"):
        build_preprocessing(field, constant)
    with pytest.raises(DataError, match="integers"):
        build_preprocessing(Field("vector", (1,), (Column("k", "", "discrete"),)), normal(10, 1))
    with pytest.raises(ShapeError, match="5"):
        build_preprocessing(field, x[:, :4])
    assert issubclass(ColumnError, DataError)


def test_singular_covariance_warns_under_auto_and_fails_under_whiten() -> None:
    x = normal(100)
    x = torch.cat([x, x.sum(1, keepdim=True)], 1)
    field = Field("vector", (3,), (Column("a"), Column("b"), Column("c")))
    with pytest.warns(PofxWarning, match="no whitening"):
        assert build_preprocessing(field, x).describe() == ["standardise"] * 3
    with pytest.raises(DataError, match="singular"):
        build_preprocessing(field, x, method="whiten")


def test_float32_events_of_magnitude_one() -> None:
    field, x = mixed()
    result = build_preprocessing(field, x.float())
    z, log_jacobian = result(x.float())
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.double(), result(x)[0], rtol=1e-3, atol=1e-3)
    assert log_jacobian.isfinite().all()


def test_periodic_columns_follow_the_chain() -> None:
    wheel = PerColumn([([1], Periodic(0.0, 1.0))], 3)
    assert periodic_columns(Chain(wheel, PerColumn([([0, 2], Standardise(2))], 3))) == (1,)
    assert periodic_columns(Chain(wheel, PerColumn([([0, 1], Standardise(2))], 3))) == ()
    assert periodic_columns(Chain(wheel, Standardise(3))) == ()
    assert periodic_columns(Standardise(3)) == ()


# ---------------------------------------------------------------------------------------------- grids and clouds


def test_cloud_is_padding_invariant() -> None:
    x = normal(50 * 6, 3).reshape(50, 6, 3) * 2 + 5
    mask = torch.arange(6) < torch.arange(50)[:, None] % 7
    field = Field("cloud", (6, 3), (Column("a"), Column("b"), Column("c")))
    step = build_preprocessing(field, x, mask=mask)
    garbage = torch.cat([torch.where(mask[..., None], x, math.nan), torch.full((50, 2, 3), math.nan).double()], 1)
    longer = torch.cat([mask, torch.zeros(50, 2, dtype=torch.bool)], 1)
    other = FieldStandardise("cloud", 3)
    other.fit(garbage, mask=longer)
    z, log_jacobian = step(x, mask=mask)
    z_longer, log_longer = other(garbage, mask=longer)
    assert torch.equal(z, z_longer[:, :6])
    assert (z_longer[:, 6:] == 0).all()
    torch.testing.assert_close(log_jacobian, log_longer)
    torch.testing.assert_close(log_jacobian, -mask.sum(1) * step.std.log().sum())
    back, _ = step.inverse(z, mask=mask)
    torch.testing.assert_close(back, torch.where(mask[..., None], x, 0.0))
    torch.testing.assert_close(z[mask].mean(0), torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_grid_counts_cells() -> None:
    x = normal(40 * 2 * 12, 1).reshape(40, 2, 3, 4) * torch.tensor([2.0, 5.0]).reshape(1, 2, 1, 1)
    field = Field("grid", (2, 3, 4), (Column("e"), Column("t")), (Axis("r", 3), Axis("phi", 4, periodic=True)))
    weight = torch.arange(40).double()
    step = build_preprocessing(field, x, weight)
    z, log_jacobian = step(x)
    torch.testing.assert_close(log_jacobian, torch.full((40,), -12.0).double() * step.std.log().sum())
    torch.testing.assert_close(step.inverse(z)[0], x)
    torch.testing.assert_close(
        (z * weight[:, None, None, None]).sum((0, 2, 3)), torch.zeros(2).double(), atol=1e-9, rtol=0
    )
    rebuilt = preprocessing_from_config(json.loads(json.dumps(preprocessing_config(step))))
    checks.check_state_dict(step, rebuilt, x)
    with pytest.raises(ShapeError):
        step(x[:, :1])


def typed_cloud(n: int = 60) -> tuple[Tensor, Tensor, Field]:
    """Energies, angles and charges; the padding holds what no column may be."""
    x = torch.stack([normal(n * 4, 1)[:, 0].exp(), normal(n * 4, 1, 2)[:, 0], normal(n * 4, 1, 3)[:, 0]], 1).reshape(
        n, 4, 3
    )
    x[..., 1], x[..., 2] = x[..., 1].remainder(6.0), x[..., 2].round().clamp(-1, 1)
    mask = torch.arange(4) < torch.arange(n)[:, None] % 5
    columns = (
        Column("e", "GeV", "bounded", 0.0),
        Column("phi", "", "periodic", 0.0, 6.0),
        Column("charge", "", "discrete", -1.0, 1.0),
    )
    return torch.where(mask[..., None], x, -777.0), mask, Field("cloud", (4, 3), columns)


def test_declared_types_hold_at_every_point_of_a_cloud() -> None:
    """A row per real point through the preprocessing of a vector is the oracle."""
    x, mask, field = typed_cloud()
    step = build_preprocessing(field, x, mask=mask)
    assert isinstance(step, FieldColumns)
    assert step.describe()[:2] == ["log(x - 0) -> standardise", "angle(x; 0, 6)"]
    assert periodic_columns(step) == (1,)
    assert step.discrete_columns == (2,)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, log_jacobian = step(x, mask=mask, noise=noise)
    rows = Field("vector", (3,), field.columns)
    wanted, slopes = build_preprocessing(rows, x[mask], method="standardise")(x[mask], noise=noise[mask])
    torch.testing.assert_close(z[mask], wanted)
    assert not z[~mask].any()
    per_event = torch.zeros(len(x), dtype=torch.float64)
    per_event.index_add_(0, mask.nonzero()[:, 0], slopes)
    torch.testing.assert_close(log_jacobian, per_event)
    back, log_back = step.inverse(z, mask=mask)
    torch.testing.assert_close(back, torch.where(mask[..., None], x, 0.0))
    torch.testing.assert_close(log_back, -log_jacobian)
    rebuilt = preprocessing_from_config(json.loads(json.dumps(preprocessing_config(step))))
    rebuilt.load_state_dict(step.state_dict())
    assert torch.equal(rebuilt.float()(x, mask=mask)[0], step(x, mask=mask)[0])


def test_a_value_outside_of_its_range_has_no_density_at_any_point() -> None:
    x, mask, field = typed_cloud()
    step = build_preprocessing(field, x, mask=mask)
    wrong = x.clone()
    wrong[4, 0, 0] = -1.0  # a real point
    found = step(wrong, mask=mask)[1]
    assert found[4] == -math.inf
    assert bool(found[torch.arange(len(x)) != 4].isfinite().all())
    with pytest.raises(DataError, match="'e'"):
        build_preprocessing(field, wrong, mask=mask)


def test_declared_types_hold_in_every_cell_of_a_grid() -> None:
    energy, phi = normal(40, 6).exp(), normal(40, 6, 2).remainder(6.0)
    x = torch.stack([energy, phi], 1).reshape(40, 2, 3, 2)
    columns = (Column("e", "GeV", "bounded", 0.0), Column("phi", "", "periodic", 0.0, 6.0))
    field = Field("grid", (2, 3, 2), columns, (Axis("r", 3), Axis("z", 2)))
    step = build_preprocessing(field, x)
    z, log_jacobian = step(x)
    assert z[:, 1].abs().max() <= math.pi
    torch.testing.assert_close(z[:, 0].mean(), torch.zeros(()).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(step.inverse(z)[0], x)
    slopes = torch.autograd.functional.jacobian(lambda v: step(v[None])[0][0], x[3]).reshape(12, 12)
    torch.testing.assert_close(log_jacobian[3], torch.linalg.slogdet(slopes)[1])


def test_cells_without_energy_keep_their_scale() -> None:
    x = normal(40 * 6, 1).clamp(min=0.0).reshape(40, 1, 3, 2)
    field = Field("grid", (1, 3, 2), (Column("e", "GeV", "bounded", 0.0),), (Axis("r", 3), Axis("z", 2)))
    with pytest.warns(PofxWarning, match="'e'.* on an end of its range"):
        step = build_preprocessing(field, x)
    assert step.describe() == ["standardise"]
