"""The student of a flow: the same map as its teacher's, the other way round."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pofx
from pofx.errors import CapabilityError, ConfigError
from pofx.simulators import SHAPES, CorrelatedGaussian, VonMisesChain

TRUTH = CorrelatedGaussian([1.0, -2.0], [[2.0, 0.7], [0.7, 0.5]])
QUICK = pofx.Training(max_epochs=None, max_steps=300, batch_size=256, learning_rate=5e-3, seed=1)
SMALL = {"layers": 2, "hidden": (16,), "bins": 4}


@pytest.fixture(scope="module")
def teacher() -> pofx.Model:
    return pofx.SplineFlow(**SMALL).fit(TRUTH.sample(4000, 1), training=QUICK)


@pytest.fixture(scope="module")
def student(teacher: pofx.Model) -> pofx.Model:
    family = pofx.InverseAutoregressiveFlow(**SMALL, objective="maps")
    return family.fit(TRUTH.sample(4000, 1), teacher=teacher, training=QUICK)


def test_the_same_noise_gives_the_same_events(teacher: pofx.Model, student: pofx.Model) -> None:
    noise = teacher.noise(2000, seed=3)
    apart = (student.decode(noise) - teacher.decode(noise)).detach() / torch.tensor([math.sqrt(2.0), math.sqrt(0.5)])
    assert float(apart.square().mean().sqrt()) < 0.1


def test_density_of_the_student_is_exact(student: pofx.Model) -> None:
    """That of its own samples: the change of variables along one sample, by autograd."""
    noise = student.noise(5, seed=1)["z"].double()
    model = pofx.Model(student.family, student.to("cpu").fitted.double(), student.layout, student.card)
    for z in noise:
        jacobian = torch.autograd.functional.jacobian(lambda v: model.decode(v[None])[0], z)
        x = model.decode(z[None]).detach().numpy()
        expected = -0.5 * float((z**2).sum()) - math.log(2 * math.pi) - math.log(abs(float(jacobian.det())))
        assert model.log_prob(x)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("objective", ["auto", "maps"])
def test_angles_are_compared_the_short_way_round(objective: str) -> None:
    """Where normal noise stands for them, angles beside each other may be far apart."""
    truth, size = VonMisesChain(2), {"layers": 1, "hidden": (32,), "bins": 8}
    data = pofx.Dataset.from_arrays(truth.sample(4000, 1), columns=truth.columns())
    teacher = pofx.SplineFlow(**size).fit(data, training=QUICK)
    model = pofx.InverseAutoregressiveFlow(**size, objective=objective).fit(data, teacher=teacher, training=QUICK)
    x = truth.sample(3000, 5)
    lost = (teacher.log_prob(x) - model.log_prob(x)).mean()  # 3 where the noise is compared as normal
    assert lost < 0.3


def test_the_likelihood_puts_right_what_the_maps_leave(teacher: pofx.Model) -> None:
    """Two moons, whose maps are bent: both divergences are smaller than after as many steps of the maps alone, by 5 to 25 %."""
    truth, size, lost = SHAPES["two-moons"], {"layers": 2, "hidden": (32,), "bins": 8}, {}
    data, x = truth.sample(4000, 1), truth.sample(3000, 5)
    taught_by = pofx.SplineFlow(**size).fit(data, training=QUICK)
    for objective, steps in (("maps", 600), ("auto", 300)):
        family = pofx.InverseAutoregressiveFlow(**size, objective=objective)
        model = family.fit(data, teacher=taught_by, training=QUICK.replace(max_steps=steps))
        made = model.sample(3000, seed=3)
        lost[objective] = (
            (taught_by.log_prob(x) - model.log_prob(x)).mean(),
            (model.log_prob(made) - taught_by.log_prob(made)).mean(),
        )
    assert lost["auto"][0] < lost["maps"][0], lost
    assert lost["auto"][1] < lost["maps"][1], lost
    assert list(model.card["training"]["phase_steps"]) == ["maps", "likelihood"]


def test_likelihood_objective_learns_a_gaussian(teacher: pofx.Model) -> None:
    family = pofx.InverseAutoregressiveFlow(**SMALL, objective="likelihood")
    model = family.fit(TRUTH.sample(4000, 1), teacher=teacher, training=QUICK)
    x = TRUTH.sample(3000, 5)
    assert abs((TRUTH.log_prob(x) - model.log_prob(x)).mean()) < 0.05


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
