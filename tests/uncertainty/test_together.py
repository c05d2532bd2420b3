"""Ensembles in one loop: the same losses, noise and bootstrap as one member after the other, vmapped where that is possible."""

from __future__ import annotations

from typing import Any

import linear
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx.bijections.splines import RationalQuadratic
from pofx.data.events import Events
from pofx.data.spec import Column, Field
from pofx.models.base import Family
from pofx.networks import EPiC, ResidualMLP, VectorGenerator
from pofx.networks.masked import MaskedLinear
from pofx.plain import plain_operations
from pofx.solvers import RK4
from pofx.training.contract import Loss, LossFunction, Phase, Update
from pofx.training.noise import Noise
from pofx.uncertainty.base import Members
from pofx.uncertainty.inside import _key, multiplicities
from pofx.uncertainty.together import _Together, resampled, separable, together

MLP = ResidualMLP(width=8, layers=1, embedding=8, waves=2)
QUICK = pofx.Training(max_epochs=None, max_steps=5, batch_size=64, seed=1, device="cpu", progress=False)
FAMILIES: dict[str, Family] = {
    "spline flow": pofx.SplineFlow(layers=2, hidden=(8, 8), bins=4),
    "coupling flow": pofx.CouplingFlow(layers=2, hidden=(8,), bins=4),
    "affine flow": pofx.AutoregressiveFlow(layers=2, hidden=(8,)),
    "mixture": pofx.MixtureDensityNetwork(components=3),
    "flow matching": pofx.FlowMatching(network=MLP, density_solver=RK4(steps=2)),
    "edm": pofx.EDM(network=MLP, density_solver=RK4(steps=2)),
    "vae": pofx.VAE(encoder=ResidualMLP(width=8, layers=1)),
}


def toy(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    c = rng.normal(size=(n, 1))
    return 0.5 * c + rng.normal(size=(n, 2)), c


def bodies(model: Any) -> Members:
    body = model.fitted.body
    assert isinstance(body, Members)
    return body


def evaluated(loss: LossFunction, body: Members, events: Events, vmapped: bool) -> tuple[Tensor, list[Tensor]]:
    """The loss per event and all gradients, by the one way or the other."""
    assert isinstance(loss, _Together)
    assert events.index is not None
    body.train()
    if vmapped:
        loss(body, events, Noise(3, events.index, 2))
        assert loss.vmapped == {True: True}
    loss.vmapped[True] = vmapped
    body.zero_grad()
    found = loss(body, events, Noise(3, events.index, 2, scope="here"))
    total = found.per_event.mean() + (0.0 if found.extra is None else found.extra)
    total.backward()
    return found.per_event.detach(), [p.grad.clone() for p in body.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_at_once_is_one_after_the_other(name: str) -> None:
    family = FAMILIES[name]
    model = pofx.Ensemble(family, members=3).fit(*toy(), training=QUICK)
    body = bodies(model)
    events = pofx.Dataset.from_arrays(*toy(20)).arrays()
    prepared = model.fitted.prepare(events)[0].replace(index=torch.arange(20))
    for phase in family.phases(model.layout):
        joint = together(phase, resampled).updates[0].loss
        terms, gradients = evaluated(joint, body, prepared, True)
        others, apart = evaluated(joint, body, prepared, False)
        torch.testing.assert_close(terms, others, rtol=1e-4, atol=1e-5)
        assert len(gradients) == len(apart) > 0
        for a, b in zip(gradients, apart, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_every_member_has_its_own_noise_and_its_own_events() -> None:
    seen: list[Tensor] = []

    def loss(body: Any, events: Events, noise: Noise) -> Loss:
        found = noise.normal("z", 2).sum(1) + noise.uniform("u") + body.weight.sum()
        return Loss(found)

    body = Members([nn.Linear(1, 1) for _ in range(3)])
    events = Events({"x": torch.zeros(400, 1)}, index=torch.arange(400))
    noise = Noise(1, torch.arange(400))

    def keep(whole: Any, index: Tensor) -> Tensor:
        seen.append(resampled(whole, index))
        return seen[-1]

    joint = _Together(loss, keep)
    joint(body, events, noise)
    assert joint.vmapped == {True: True}
    each = joint.members(body, events, noise)[""]
    assert each.shape == (3, 400)
    each = each.detach()
    spread = each - each.mean(1, keepdim=True)
    correlation = (spread[0] * spread[1]).mean() / (spread[0].std() * spread[1].std())
    assert abs(float(correlation)) < 4 / 20
    np.testing.assert_allclose(seen[0].mean(1), 1.0, atol=4 / 20)
    assert not torch.equal(seen[0][0], seen[0][1])
    torch.testing.assert_close(seen[0][2], multiplicities([_key(body, "members.2")], torch.arange(400))[0])


def test_members_are_the_least_squares_of_their_own_resampled_events() -> None:
    x, c = linear.data()
    events = pofx.Dataset.from_arrays(x, context=c).with_split((1.0, 0.0, 0.0))
    model = pofx.Ensemble(linear.LinearGaussian(), members=5).fit(events, training=linear.EXACT)
    body = bodies(model)
    context = events.arrays().context
    assert context is not None
    latent = np.asarray(model.fitted.prepare_context(context).x)
    design = np.column_stack([latent, np.ones(len(c))])
    times = resampled(body, torch.arange(len(c))).numpy()
    for k in range(5):
        root = np.sqrt(times[k])[:, None]
        expected = np.linalg.lstsq(root * design, root[:, 0] * x[:, 0], rcond=None)[0]
        found = torch.cat([p.detach().flatten() for p in body.members[k].parameters()]).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("seen", torch.zeros(()))


@pytest.mark.parametrize("what", ["a buffer that moves", "a branch on data"])
def test_what_cannot_be_vmapped_is_looped_over(what: str) -> None:
    def loss(body: Any, events: Events, noise: Noise) -> Loss:
        if what == "a buffer that moves":
            body.seen.add_(1)
        elif float(body.weight.detach().sum()) < 0:
            raise AssertionError
        return Loss(events.x[:, 0] * body.weight[0], body.weight[1].square(), {"one": body.weight[1]})

    body = Members([_Counting() for _ in range(3)])
    events = Events({"x": torch.ones(4, 1)}, index=torch.arange(4))
    joint = _Together(loss, None)
    found = joint(body, events, Noise(1, torch.arange(4)))
    assert joint.vmapped == {True: False}
    torch.testing.assert_close(found.per_event, torch.ones(4))
    assert found.extra is not None
    assert (float(found.extra.detach()), float(found.logs["one"].detach())) == (1.0, 1.0)
    expected = 1.0 if what == "a buffer that moves" else 0.0
    assert [float(member.get_buffer("seen")) for member in body.members] == [expected] * 3


def test_faults_of_a_loss_are_not_hidden() -> None:
    def loss(body: Any, events: Events, noise: Noise) -> Loss:
        raise ValueError("my fault")

    with pytest.raises(ValueError, match="my fault"):
        _Together(loss, None)(
            Members([nn.Linear(1, 1)]),
            Events({"x": torch.ones(4, 1)}, index=torch.arange(4)),
            Noise(1, torch.arange(4)),
        )


def test_what_is_more_than_a_loss_is_trained_one_after_the_other() -> None:
    update = Update("a", lambda body, events, noise: Loss(events.x[:, 0]))
    assert separable(Phase("p", (update,)))
    assert not separable(Phase("p", (update,), estimate=lambda body, source, training: None))
    assert not separable(Phase("p", (Update("a", update.loss, after=lambda body: None),)))
    assert not separable(Phase("p"))
    model = pofx.Ensemble(pofx.SplineFlow(layers=1, hidden=(8,), bins=4), members=2, together=False)
    assert [phase.name for phase in model.phases(model.fit(*toy(), training=QUICK).layout)][1:] == [
        "members.0/likelihood", "members.1/likelihood",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "family",
    [
        pofx.GAN(generator=VectorGenerator(MLP), critic=MLP),
        pofx.VQVAE(encoder=ResidualMLP(width=8, layers=1)),
        pofx.ProbabilisticAutoencoder(flow=pofx.SplineFlow(layers=1, hidden=(8,), bins=4)),
    ],
)
def test_families_of_several_losses_and_phases(family: Family) -> None:
    model = pofx.Ensemble(family, members=2).fit(*toy(), training=QUICK)
    assert model.sample(3, [0.1], seed=1).shape == (3, 2)


def test_clouds() -> None:
    rng = np.random.default_rng(1)
    points, mask = rng.normal(size=(120, 4, 2)), np.arange(4) < rng.integers(1, 5, 120)[:, None]
    spec = {"x": Field("cloud", (4, 2), (Column("a"), Column("b")))}
    clouds = pofx.Dataset.from_arrays({"x": points}, columns=spec, masks={"x": mask})
    family = pofx.FlowMatching(network=EPiC(width=8, layers=1), density_solver=RK4(steps=2))
    model = pofx.Ensemble(family, members=2).fit(clouds, training=QUICK)
    prepared = model.fitted.prepare(clouds.arrays())[0].replace(index=torch.arange(len(clouds)))
    joint = together(family.phases(model.layout)[0], resampled).updates[0].loss
    torch.testing.assert_close(
        evaluated(joint, bodies(model), prepared, True)[0], evaluated(joint, bodies(model), prepared, False)[0]
    )


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_plain_splines_are_the_fused_ones(circular: bool, inverse: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    element = RationalQuadratic(bins=5, bound=3.0, circular=circular)
    x = (2.0 * torch.rand(50, generator=generator, dtype=torch.float64) - 1.0) * (3.0 if circular else 4.0)
    raw = torch.randn(50, element.size, generator=generator, dtype=torch.float64)

    def derivatives() -> tuple[Tensor, ...]:
        at, numbers = x.clone().requires_grad_(), raw.clone().requires_grad_()
        y, log_slope = (element.inverse if inverse else element.forward)(at, numbers)
        (y.sin() + log_slope).sum().backward()
        assert at.grad is not None
        assert numbers.grad is not None
        return y.detach(), log_slope.detach(), at.grad, numbers.grad

    fused = derivatives()
    with plain_operations():
        for a, b in zip(derivatives(), fused, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_plain_masked_layers_are_the_fused_ones() -> None:
    layer = MaskedLinear([1, 2, 2, 3], [1, 1, 2, 3, 3], strict=True).double()
    h = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = layer(h)
    with plain_operations():
        torch.testing.assert_close(layer(h), expected)
