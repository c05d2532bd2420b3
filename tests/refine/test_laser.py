"""Refined models: closed-form targets in the space of the noise, and what every model promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pofx
from pofx.classifiers.network import NetworkClassifier
from pofx.errors import CapabilityError, ConfigError, NoDensityError
from pofx.models.base import NoiseShape
from pofx.refine.laser import Laser
from pofx.refine.laser_body import join_noise, split_noise

SMALL = NetworkClassifier(hidden=(16,), epochs=2, dropout=0.0)
ABLE = NetworkClassifier(hidden=(32,), frequencies=8, epochs=20, batch_size=128, dropout=0.0, weight_decay=0.1)
TRAINING = pofx.Training(seed=1, max_epochs=4, progress=False, device="cpu")


class GaussianWeight(nn.Module):
    """log w = -(z - m)^2 / (2 s^2): noise of this weight is normal with mean m / (1 + s^2) and variance s^2 / (1 + s^2)."""

    def __init__(self, m: float, s: float) -> None:
        super().__init__()
        self.m, self.s = m, s

    def forward(self, rows: Tensor) -> Tensor:
        return -0.5 * ((rows[:, 0] - self.m) / self.s).square()

    @property
    def target(self) -> Any:
        spread = 1 + self.s**2
        return stats.norm(self.m / spread, self.s / np.sqrt(spread))


def known(weight: GaussianWeight, **settings: Any) -> pofx.Model:
    """A standard normal that is refined by this weight; the step is for it."""
    x = np.random.default_rng(1).normal(size=(200, 1))
    made = Laser(classifier=SMALL, folds=2, pullback="network", **settings).fit(
        x, teacher=pofx.Gaussian().fit(x), training=TRAINING
    )
    made.fitted.body.ratio = weight
    made.fitted.body.log_step.fill_(np.log(0.6 * weight.target.std()))
    return made


@pytest.mark.parametrize(("candidates", "moves"), [(1, 40), (64, 0), (8, 6)])
def test_chains_and_candidates_reach_the_closed_form(candidates: int, moves: int) -> None:
    weight = GaussianWeight(1.2, 0.8)
    model = known(weight, candidates=candidates, moves=moves)
    noise = model.noise(4000, seed=3)
    body: Any = model.fitted.body
    with torch.no_grad():
        z = body.walk(body.start(noise["z"], noise["choice"], None), noise, None, model.family.leapfrogs)[:, 0].numpy()
    assert stats.kstest(z, weight.target.cdf).pvalue > 0.01 / 3


@pytest.fixture(scope="module")
def learnt() -> tuple[pofx.Model, np.ndarray]:
    """Two peaks, learnt by a Gaussian, and refined."""
    x = peaks(3000, 1)
    family = Laser(pofx.Gaussian(), classifier=ABLE, folds=2, candidates=32, moves=2)
    return family.fit(x, training=TRAINING), x


def peaks(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], (n, 1)) + 0.5 * rng.normal(size=(n, 1))


def test_a_gap_that_the_model_fills_is_emptied(learnt: tuple[pofx.Model, np.ndarray]) -> None:
    model, _ = learnt
    truth, before, after = (
        peaks(3000, 2),
        pofx.Gaussian().fit(peaks(3000, 1)).sample(3000, seed=1),
        model.sample(3000, seed=1),
    )
    gap = [float((np.abs(x) < 0.8).mean()) for x in (truth, before, after)]
    assert gap[0] < 0.02
    assert gap[1] > 0.2
    assert gap[2] < 0.05
    distance = [stats.ks_2samp(truth[:, 0], x[:, 0]).statistic for x in (before, after)]
    assert distance[1] < 0.06
    assert distance[0] > 0.12


def test_samples_do_not_depend_on_what_is_drawn_beside_them(learnt: tuple[pofx.Model, np.ndarray]) -> None:
    model, _ = learnt
    whole = model.sample(1100, seed=2)
    assert (model.sample_range(1020, 1030, seed=2) == whole[1020:1030]).all()
    assert (model.sample(7, seed=2) == whole[:7]).all()
    events, weights = model.sample(5, seed=2, weights=True)
    assert (weights == 1).all()
    assert (events == whole[:5]).all()


def test_a_file_holds_it_all(learnt: tuple[pofx.Model, np.ndarray], tmp_path: Path) -> None:
    model, _ = learnt
    model.save(tmp_path / "refined.pofx")
    again = pofx.load(tmp_path / "refined.pofx")
    assert (again.sample(20, seed=1) == model.sample(20, seed=1)).all()
    assert again.card["refined"] == model.card["refined"]
    assert 0 < again.card["refined"]["effective share"] < 0.9


def test_context_decides_the_weight() -> None:
    rng = np.random.default_rng(3)
    c = rng.choice([-1.0, 1.0], (3000, 1))
    x = c * np.abs(rng.normal(size=(3000, 1)))  # half normals; the Gaussian is right about neither
    family = Laser(pofx.Gaussian(), classifier=ABLE, folds=2, candidates=32, moves=1)
    model = family.fit(x, c, training=TRAINING)
    drawn = model.sample(500, np.array([[-1.0], [1.0]]), seed=1)
    before = pofx.Gaussian().fit(x, c, training=TRAINING).sample(500, np.array([[-1.0], [1.0]]), seed=1)
    wrong = [float((each[0] > 0.1).mean() + (each[1] < -0.1).mean()) for each in (before, drawn)]
    assert wrong[1] < 0.3 * wrong[0]


def test_a_flow_draws_the_noise() -> None:
    x = 0.5 * np.random.default_rng(4).normal(size=(3000, 1)) + 1.0
    wide = pofx.Gaussian(preprocess="none").fit(2.0 * np.random.default_rng(5).normal(size=(3000, 1)))
    model = Laser(classifier=ABLE, folds=2, flow=pofx.Gaussian(), pullback="network").fit(
        x, teacher=wide, training=TRAINING
    )
    drawn = model.sample(3000, seed=1)
    assert abs(drawn.mean() - 1.0) < 0.06
    assert abs(drawn.std() - 0.5) < 0.06


def test_noise_goes_there_and_back() -> None:
    shapes = {"z": NoiseShape("normal", (2, 3)), "u": NoiseShape("uniform", ())}
    noise = {
        "z": torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)).double(),
        "u": torch.linspace(0.1, 0.9, 5).double(),
    }
    rows = join_noise(noise, shapes)
    assert rows.shape == (5, 7)
    back = split_noise(rows, shapes)
    for name, value in noise.items():
        torch.testing.assert_close(back[name], value)


def test_mistakes_are_named() -> None:
    with pytest.raises(CapabilityError, match="teacher=model"):
        Laser().fit(np.zeros((10, 1)))
    with pytest.raises(ConfigError, match="NetworkClassifier"):
        Laser(classifier="trees")  # type: ignore[arg-type]
    x = np.random.default_rng(1).normal(size=(100, 1))
    with pytest.raises(ConfigError, match="the teacher is"):
        Laser(pofx.CouplingFlow()).fit(x, teacher=pofx.Gaussian().fit(x))


def test_there_is_no_density(learnt: tuple[pofx.Model, np.ndarray]) -> None:
    with pytest.raises(NoDensityError):
        learnt[0].log_prob(learnt[1])
