"""Negative weights against a truth: a density that is a difference of two, from events of weight plus and minus one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from training_toys import Part, quick, source, to_tensors

import pofx
from pofx.data.events import Events
from pofx.errors import DataError
from pofx.models.fitting import prepare_fit
from pofx.models.model import Model
from pofx.training import DatasetSource, Training, train
from pofx.training.resampling import Angular, MeanWeight, PositiveWeights, learn_positive_weights

SETTINGS = Training(max_epochs=60, learning_rate=1e-2, seed=1, progress=False, device="cpu")
FLOW = pofx.SplineFlow(layers=1, hidden=(16,))


def signed_events(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """p = 1.3 N(0, 1) - 0.3 N(0.5, 0.3), which is positive everywhere."""
    rng, positive = np.random.default_rng(seed), round(n * 1.3 / 1.6)
    x = np.concatenate([rng.normal(0, 1, positive), rng.normal(0.5, 0.3, n - positive)])
    weight = np.concatenate([np.ones(positive), -np.ones(n - positive)])
    order = rng.permutation(n)
    return x[order, None], weight[order]


def signed_data(n: int, seed: int) -> pofx.Dataset:
    x, weight = signed_events(n, seed)
    return pofx.Dataset.from_arrays(x, weight=weight)


def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1.3 N(0, 1) and 0.3 N(0.5, 0.3)."""
    normal = lambda mean, std: np.exp(-0.5 * ((x - mean) / std) ** 2) / std / math.sqrt(2 * math.pi)  # noqa: E731
    return 1.3 * normal(0, 1), 0.3 * normal(0.5, 0.3)


def divergence(model: Model) -> float:
    """KL divergence of the model from the truth, on a fine grid."""
    x = np.linspace(-4, 4, 1601)
    truth = np.subtract(*parts(x))
    return float((truth * (np.log(truth) - model.log_prob(x[:, None]))).sum() * (x[1] - x[0]))


def split(n: int, seed: int, batch_size: int) -> DatasetSource:
    """Signed events with a tenth as many for validation."""
    train_part, val_part = Part(*signed_events(n, seed)), Part(*signed_events(n // 10, seed + 100))
    return DatasetSource(train_part, val_part, to_tensors, batch_size=batch_size, seed=1)


def naive(x: np.ndarray, weight: np.ndarray) -> Model:
    """The likelihood with its negative weights."""
    _, data, fitted, layout = prepare_fit(FLOW, x, None, weight, training=SETTINGS)
    train(fitted.body, FLOW.phases(layout), data, SETTINGS)
    return Model(FLOW, fitted.eval(), layout, {})


@pytest.mark.slow
def test_a_flow_finds_the_positive_truth():
    """KL divergence and mean within what so many events can tell: 2 KL N is about the number of free parameters, here about thirty."""
    models = [FLOW.fit(signed_data(4000, seed), training=SETTINGS.replace(max_epochs=30)) for seed in (1, 2, 3)]
    notes = models[0].card["weights"]
    effective = notes["effective_events_before"]
    assert effective == pytest.approx(3200 / 1.6**2, rel=0.1)
    assert effective < notes["effective_events"] < 3200
    assert notes["negative_fraction"] == pytest.approx(0.3 / 1.6, abs=0.02)
    assert notes["clipped_fraction"] < 0.2
    assert np.mean([divergence(model) for model in models]) < 30 / effective
    means = [model.sample(20_000, seed=1).mean() for model in models]
    assert np.mean(means) == pytest.approx(-0.15, abs=4 / math.sqrt(3 * effective))


@pytest.mark.slow
def test_where_positive_and_negative_events_cancel_the_naive_likelihood_runs_away():
    """p = N(0, 1); events of N(0, 3) come with either sign. A density without lone negative events is infinitely good."""
    x = np.linspace(-5, 5, 2001)
    truth = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    found: dict[str, list[float]] = {"positive": [], "naive": []}
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        events, weight = np.r_[rng.normal(0, 1, 2500), rng.normal(0, 3, 1500)], np.r_[np.ones(3250), -np.ones(750)]
        order = rng.permutation(4000)
        events, weight = events[order, None], weight[order]
        for how, model in (
            ("positive", FLOW.fit(events, weight=weight, training=SETTINGS)),
            ("naive", naive(events, weight)),
        ):
            found[how].append(float((truth * (np.log(truth) - model.log_prob(x[:, None]))).sum() * (x[1] - x[0])))
    assert max(found["positive"]) < 0.03
    assert max(found["naive"]) > 0.1


def test_conditional_mean_weight_is_that_of_the_truth():
    learnt = learn_positive_weights(split(20_000, 2, batch_size=512), quick())
    inside = np.linspace(-2, 2, 41)
    positive, negative = parts(inside)
    events = Events({"x": torch.from_numpy(inside[:, None])})
    expected = 1.6 * (positive - negative) / (positive + negative)  # weights of a source have mean one
    assert learnt._body.mean(events).detach().numpy() == pytest.approx(expected, abs=0.2)


def test_sum_is_kept_and_weights_are_positive():
    learnt = learn_positive_weights(split(1000, 3, batch_size=128), quick())
    found = torch.cat([piece.weight for piece in learnt.sweep()])
    assert found.sum().item() == pytest.approx(1000, rel=1e-9)
    assert (found >= 0).all()
    assert learnt.notes["effective_events"] == pytest.approx((found.sum() ** 2 / found.square().sum()).item())
    assert all((piece.weight >= 0).all() for piece in learnt.validation())
    batch, again = learnt.next(torch.nn.Identity(), 3), learnt.rebatched(50).next(torch.nn.Identity(), 3)
    assert (len(batch), len(again)) == (128, 50)
    assert batch.weight == pytest.approx(found[batch.index], rel=1e-5)


def test_the_same_seed_gives_the_same_weights():
    x, weight = signed_events(600, 4)
    one, two, other = (FLOW.fit(x, weight=weight, training=SETTINGS.replace(max_epochs=2, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(one.log_prob(x), two.log_prob(x))
    assert one.card["weights"] == two.card["weights"]
    assert one.card["weights"] != other.card["weights"]


def test_positive_weights_and_families_that_can_are_left_alone(monkeypatch):
    def never(*args):
        raise AssertionError

    monkeypatch.setattr("pofx.models.fitting.learn_positive_weights", never)
    x, weight = signed_events(500, 5)
    quickly = SETTINGS.replace(max_epochs=1)
    assert "weights" not in FLOW.fit(x, weight=np.abs(weight), training=quickly).card
    assert "weights" not in FLOW.fit(x, training=quickly).card
    assert "weights" not in pofx.Gaussian().fit(x, weight=weight, training=quickly).card
    with pytest.raises(AssertionError):
        FLOW.fit(x, weight=weight, training=quickly)


def test_resume_goes_on_with_the_same_weights(tmp_path):
    x, weight = signed_events(600, 6)
    settings = SETTINGS.replace(max_epochs=2, checkpoint=tmp_path / "state")
    first = FLOW.fit(x, weight=weight, training=settings)
    assert sorted(path.name for path in tmp_path.iterdir() if "previous" not in path.name) == ["state", "state.weights"]
    again = FLOW.fit(x, weight=weight, training=settings, resume="must")
    assert np.array_equal(first.log_prob(x), again.log_prob(x))
    assert again.card["weights"] == first.card["weights"]


def test_every_kind_of_event_is_read():
    """Clouds (padding does not matter), grids, contexts and angles."""
    rng = np.random.default_rng(1)
    fields = {
        "jet": torch.from_numpy(rng.normal(size=(50, 4, 3))),
        "grid": torch.from_numpy(rng.normal(size=(50, 2, 5))),
    }
    mask = torch.from_numpy(rng.random((50, 4)) < 0.6)
    context = Events({"c": torch.from_numpy(rng.normal(size=(50, 2)))})
    net = MeanWeight(Events(fields, {"jet": mask}, context), 2.0, Angular({}, {"c": (1,)})).double()
    expected = net.mean(Events(fields, {"jet": mask}, context))
    turned = Events({"c": context.x + torch.tensor([0.0, 2 * math.pi], dtype=torch.float64)})
    padded = torch.where(mask[:, :, None], fields["jet"], 99.0)
    found = net.mean(Events({**fields, "jet": padded}, {"jet": mask}, turned))
    assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), rel=1e-9)
    assert expected.shape == (50,)


def test_no_positive_mean_weight_anywhere():
    class Negative(MeanWeight):
        def mean(self, events):
            return -torch.ones(len(events), dtype=torch.float64)

    data = source(*signed_events(100, 7))
    with pytest.raises(DataError, match="nowhere positive"):
        PositiveWeights(data, Negative(next(data.sweep()), 1.0))
