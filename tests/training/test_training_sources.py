"""Sources: coverage, order, weights, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import Part, normal, source, to_tensors

from pofx.data.events import Events
from pofx.errors import CapabilityError, DataError, TrainingError
from pofx.training import DatasetSource, FunctionSource, Source, TeacherSource

NET = nn.Identity()


def seen(made: Source, steps: int) -> torch.Tensor:
    return torch.cat([made.next(NET, step).index for step in range(steps)])


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("n", "batch"), [(100, 10), (103, 10), (7, 10), (10, 10), (25, 24)])
def test_every_event_equally_often(n, batch, in_memory):
    made = source(normal(n), batch_size=batch, in_memory=in_memory)
    batches = [made.next(NET, step) for step in range(n)]
    assert {len(b) for b in batches} == {min(n, batch)}
    counts = torch.cat([b.index for b in batches]).bincount(minlength=n)
    assert (counts == min(n, batch)).all()
    assert made.steps_per_epoch == -(-n // min(n, batch))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_batch_is_a_function_of_its_number(in_memory):
    x = normal(103)
    straight, jumping = (source(x, batch_size=10, in_memory=in_memory) for _ in range(2))
    expected = [straight.next(NET, step) for step in range(40)]
    for step in (33, 5, 6, 30, 0, 39):
        batch = jumping.next(NET, step)
        assert torch.equal(batch.index, expected[step].index)
        assert torch.equal(batch.x, torch.from_numpy(x)[batch.index])


def test_order_depends_on_seed_and_epoch():
    x = normal(100)
    assert not torch.equal(seen(source(x, batch_size=10, seed=1), 10), seen(source(x, batch_size=10, seed=2), 10))
    once = seen(source(x, batch_size=10), 20)
    assert not torch.equal(once[:100], once[100:])


def test_weights_have_mean_one_and_may_be_negative():
    weight = np.array([3.0, -1.0, 2.0, 0.0])
    batch = source(normal(4), weight).next(NET, 0)
    assert torch.equal(batch.weight, torch.tensor([3.0, -1.0, 2.0, 0.0], dtype=torch.float64))
    assert source(normal(4), 5 * weight).total_weight == 20


@pytest.mark.parametrize("weight", [[1.0, -1.0], [-1.0, 0.5], [0.0, 0.0], [np.nan, 1.0]])
def test_sum_of_weights_must_be_positive(weight):
    with pytest.raises(DataError, match="positive sum"):
        source(normal(2), np.array(weight))


def test_no_events():
    with pytest.raises(DataError, match="at least one training event"):
        source(normal(0))


@pytest.mark.parametrize("in_memory", [True, False])
def test_noise_of_preparation_is_fresh_every_step_and_keyed_by_event(in_memory):
    def prepare(events, noise):
        return Events({"x": torch.from_numpy(events.x) + noise.uniform("dequantise", 2)})

    data = Part(np.zeros((20, 2)), in_memory=in_memory)
    made, again = (DatasetSource(data, data, prepare, batch_size=20, seed=1) for _ in range(2))
    first, second = made.next(NET, 0), made.next(NET, 1)
    assert not torch.equal(first.x[first.index.argsort()], second.x[second.index.argsort()])
    assert torch.equal(second.x, again.next(NET, 1).x)
    assert torch.equal(next(made.validation()).x, next(made.validation()).x)


def test_preparation_without_noise_happens_once():
    calls = []

    def prepare(events, noise):
        calls.append(len(events))
        return to_tensors(events, noise)

    made = DatasetSource(Part(normal(100)), None, prepare, batch_size=10, seed=1)
    seen(made, 50)
    assert calls == [100]


def test_sweep_and_validation_in_order():
    made = source(normal(9000), val=normal(5))
    assert torch.equal(torch.cat([batch.index for batch in made.sweep()]), torch.arange(9000))
    assert [len(batch) for batch in made.validation()] == [5]
    assert list(source(normal(3)).validation()) == []


def test_another_batch_size():
    made = source(normal(100), batch_size=10)
    assert len(made.rebatched(25).next(NET, 0)) == 25
    assert len(made.next(NET, 0)) == 10


def test_function_source():
    made = FunctionSource(
        lambda net, step, noise: Events({"x": net.weight * noise.normal("z", 3)}), size=8, steps_per_epoch=5, seed=2
    )
    net = nn.Linear(3, 1)
    batch = made.next(net, 4)
    assert isinstance(made, Source)
    assert (made.size, made.steps_per_epoch, len(batch)) == (None, 5, 8)
    assert batch.index.tolist() == list(range(32, 40))
    assert not batch.x.requires_grad
    assert torch.equal(batch.x, made.next(net, 4).x)
    assert list(made.validation()) == []
    with pytest.raises(CapabilityError, match="pass over all"):
        made.sweep()
    with pytest.raises(TrainingError, match="at least 1"):
        FunctionSource(lambda net, step, noise: None, size=0, steps_per_epoch=5)


def test_teacher_source_validates_on_fixed_events():
    made = TeacherSource(
        lambda step, noise: Events({"x": noise.normal("z", 2)}), size=8, steps_per_epoch=3, validation_events=20
    )
    first, second = (torch.cat([batch.x for batch in made.validation()]) for _ in range(2))
    assert first.shape == (20, 2)
    assert torch.equal(first, second)
    assert len(torch.cat([batch.x for batch in made.sweep()]).unique(dim=0)) == 24


def test_the_real_data_set(tmp_path):
    data = pytest.importorskip("pofx.data")
    x = normal(500)
    part = data.as_dataset(x).train
    made = DatasetSource(part, None, to_tensors, batch_size=50, seed=1)
    index = seen(made, made.steps_per_epoch)
    assert len(index.unique()) == len(part)
    batch = made.next(NET, 3)
    assert torch.equal(batch.x.float(), torch.from_numpy(x)[batch.index])
