"""The student of a flow: the same map as its teacher's, the other way round."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pofx
from pofx.errors import CapabilityError
from pofx.simulators import CorrelatedGaussian, VonMisesChain

TRUTH = CorrelatedGaussian([1.0, -2.0], [[2.0, 0.7], [0.7, 0.5]])
QUICK = pofx.Training(max_epochs=None, max_steps=300, batch_size=256, learning_rate=5e-3, seed=1)
SMALL = {"layers": 2, "hidden": (16,), "bins": 4}


@pytest.fixture(scope="module")
def teacher() -> pofx.Model:
    return pofx.SplineFlow(**SMALL).fit(TRUTH.sample(4000, 1), training=QUICK)


@pytest.fixture(scope="module")
def student(teacher: pofx.Model) -> pofx.Model:
    return pofx.InverseAutoregressiveFlow(**SMALL).fit(TRUTH.sample(4000, 1), teacher=teacher, training=QUICK)


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


def test_likelihood_objective_learns_a_gaussian(teacher: pofx.Model) -> None:
    family = pofx.InverseAutoregressiveFlow(**SMALL, objective="likelihood")
    model = family.fit(TRUTH.sample(4000, 1), teacher=teacher, training=QUICK)
    x = TRUTH.sample(3000, 5)
    assert abs((TRUTH.log_prob(x) - model.log_prob(x)).mean()) < 0.05


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
