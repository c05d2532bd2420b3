"""The student of a flow: the same map as its teacher's, the other way round."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import pofx
from pofx.errors import CapabilityError, ConfigError
from pofx.models.inverse_autoregressive import KEEP
from pofx.simulators import SHAPES, CorrelatedGaussian, VonMisesChain
from pofx.training.noise import Noise

TRUTH = CorrelatedGaussian([1.0, -2.0], [[2.0, 0.7], [0.7, 0.5]])
MOONS = SHAPES["two-moons"]
QUICK = pofx.Training(max_epochs=None, max_steps=100, batch_size=256, learning_rate=1e-2, seed=1)
SMALL = {"layers": 1, "hidden": (16,), "bins": 4}


def learnt(teacher: pofx.Model, objective: str) -> pofx.Model:
    family = pofx.InverseAutoregressiveFlow(**SMALL, objective=objective)
    return family.fit(MOONS.sample(4000, 1), teacher=teacher, training=QUICK)


@pytest.fixture(scope="module")
def teacher() -> pofx.Model:
    return pofx.SplineFlow(**SMALL).fit(MOONS.sample(4000, 1), training=QUICK)


def test_the_same_noise_gives_the_same_events(teacher: pofx.Model) -> None:
    """In units of the columns' widths; before training they are 0.17 apart."""
    noise = teacher.noise(2000, seed=3)
    apart = (learnt(teacher, "maps").decode(noise) - teacher.decode(noise)).detach()
    assert float((apart / torch.from_numpy(MOONS.sample(4000, 1).std(0))).square().mean().sqrt()) < 0.08


def test_density_of_the_student_is_exact(teacher: pofx.Model) -> None:
    """That of its own samples: the change of variables along one sample, by autograd; weights are stirred, for layers to matter."""
    family = pofx.InverseAutoregressiveFlow(**SMALL | {"layers": 2})
    student = family.fit(MOONS.sample(500, 1), teacher=teacher, training=QUICK.replace(max_steps=1))
    model = pofx.Model(student.family, student.to("cpu").fitted.double(), student.layout, student.card)
    for parameter in model.fitted.body.parameters():
        parameter.data += 0.04 * torch.randn(parameter.shape, dtype=torch.float64)
    noise = 0.5 * student.noise(5, seed=1)["z"].double()
    for z in noise:
        jacobian = torch.autograd.functional.jacobian(lambda v: model.decode(v[None])[0], z)
        x = model.decode(z[None]).detach().numpy()
        expected = -0.5 * float((z**2).sum()) - math.log(2 * math.pi) - math.log(abs(float(jacobian.det())))
        assert model.log_prob(x)[0] == pytest.approx(expected, abs=1e-6)


ANGLES, OF_ANGLES = VonMisesChain(2), {"layers": 1, "hidden": (16,), "bins": 8}


@pytest.fixture(scope="module")
def angles() -> tuple[pofx.Dataset, pofx.Model]:
    """Events of angles, and a teacher of them."""
    data = pofx.Dataset.from_arrays(ANGLES.sample(4000, 1), columns=ANGLES.columns())
    return data, pofx.SplineFlow(**OF_ANGLES).fit(data, training=QUICK)


@pytest.mark.parametrize("objective", ["auto", "maps"])
def test_angles_are_compared_the_short_way_round(angles: tuple[pofx.Dataset, pofx.Model], objective: str) -> None:
    """Where normal noise stands for them, angles beside each other may be far apart."""
    data, taught_by = angles
    model = pofx.InverseAutoregressiveFlow(**OF_ANGLES, objective=objective).fit(
        data, teacher=taught_by, training=QUICK
    )
    x = ANGLES.sample(3000, 5)
    lost = (taught_by.log_prob(x) - model.log_prob(x)).mean()  # 3 where the noise is compared as normal, 1.1 untrained
    assert lost < 0.3


def test_the_losses_are_the_divergence_and_the_distances() -> None:
    """By what models say of events that the student makes; the divergence falls along its gradient as fast as that says."""
    data, quick = MOONS.sample(1000, 1), QUICK.replace(max_steps=60, precision="float64")
    teacher = pofx.SplineFlow(**SMALL).fit(data, training=quick)
    student = pofx.InverseAutoregressiveFlow(**SMALL, objective="auto").fit(
        data, teacher=teacher, training=quick.replace(max_steps=2)
    )
    assert list(student.card["training"]["phase_steps"]) == ["maps", "likelihood"]
    body, events = student.fitted.body, student.fitted.prepare(pofx.Dataset.from_arrays(data).arrays())[0]
    noise = Noise(1, torch.arange(len(data)), dtype=torch.float64)
    phases = student.family.phases(replace(student.layout, teacher=teacher))
    maps, both = (phase.updates[0].loss(body, events, noise) for phase in phases)

    def divergence() -> Tensor:
        made = student.decode({"z": noise.normal("z", 2)}).detach().numpy()
        return torch.from_numpy(student.log_prob(made) - teacher.log_prob(made))

    torch.testing.assert_close(both.logs["divergence"], divergence(), atol=1e-8, rtol=0)
    torch.testing.assert_close(both.per_event, divergence() + KEEP * maps.per_event, atol=1e-7, rtol=0)
    parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
    slopes = torch.autograd.grad(both.logs["divergence"].mean(), parameters)
    square, found = sum(float(slope.square().sum()) for slope in slopes), []
    for step in (1e-5, -1e-5):
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.data += step * slope
        found.append(float(divergence().mean()))
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.data -= step * slope
    assert square > 1e-3
    assert (found[0] - found[1]) / 2e-5 == pytest.approx(square, rel=1e-3)


@pytest.mark.slow
def test_the_likelihood_puts_right_what_the_maps_leave() -> None:
    """Two moons, whose maps are bent: both divergences are smaller than after as many steps of the maps alone, by 5 to 25 %."""
    size, lost, quick = {"layers": 2, "hidden": (32,), "bins": 8}, {}, QUICK.replace(learning_rate=5e-3)
    data, x = MOONS.sample(4000, 1), MOONS.sample(3000, 5)
    taught_by = pofx.SplineFlow(**size).fit(data, training=quick.replace(max_steps=300))
    for objective, steps in (("maps", 600), ("auto", 300)):
        family = pofx.InverseAutoregressiveFlow(**size, objective=objective)
        model = family.fit(data, teacher=taught_by, training=quick.replace(max_steps=steps))
        made = model.sample(3000, seed=3)
        lost[objective] = (
            (taught_by.log_prob(x) - model.log_prob(x)).mean(),
            (model.log_prob(made) - taught_by.log_prob(made)).mean(),
        )
    assert lost["auto"][0] < lost["maps"][0], lost
    assert lost["auto"][1] < lost["maps"][1], lost


def test_the_likelihood_objective_learns_its_teacher(teacher: pofx.Model) -> None:
    """Both divergences, which are 0.19 and 0.29 before training."""
    model, x = learnt(teacher, "likelihood"), MOONS.sample(3000, 5)
    made = model.sample(3000, seed=3)
    assert (teacher.log_prob(x) - model.log_prob(x)).mean() < 0.08
    assert (model.log_prob(made) - teacher.log_prob(made)).mean() < 0.05


@pytest.mark.parametrize("objective", ["maps", "likelihood"])
@pytest.mark.parametrize(("theirs", "mine"), [("float64", "float32"), ("float32", "float64")])
def test_a_teacher_of_another_precision_is_refused(objective: str, theirs: str, mine: str) -> None:
    x, short = TRUTH.sample(200, 1), QUICK.replace(max_steps=1)
    taught_by = pofx.SplineFlow(**SMALL).fit(x, training=short.replace(precision=theirs))
    family = pofx.InverseAutoregressiveFlow(**SMALL, objective=objective)
    with pytest.raises(ConfigError, match=f"precision, {theirs}; got {mine}"):
        family.fit(x, teacher=taught_by, training=short.replace(precision=mine))


def test_teachers_without_exact_density_or_other_columns_are_refused(teacher: pofx.Model) -> None:
    x = TRUTH.sample(500, 1)
    family = pofx.InverseAutoregressiveFlow(**SMALL)
    with pytest.raises(CapabilityError, match="is a student"):
        family.fit(x)
    with pytest.raises(CapabilityError, match="encodes events"):
        family.fit(x, teacher=pofx.GaussianMixture(components=1).fit(x))
    with pytest.raises(CapabilityError, match="teacher's fields"):
        family.fit(np.column_stack([x, x[:, 0] + np.random.default_rng(1).normal(size=500)]), teacher=teacher)
    with pytest.raises(CapabilityError, match="takes no teacher"):
        pofx.Gaussian().fit(x, teacher=teacher)
