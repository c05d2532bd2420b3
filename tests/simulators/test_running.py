"""Running a simulator: the same bits however many workers, resumed, with a card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from running_toys import Absent, Broken, Failing, Jets

import pofx
from pofx.data.events import Events
from pofx.errors import ConfigError, DataError, MissingExtraError
from pofx.simulators.base import simulator_class
from pofx.simulators.running import read_card, simulate_to_file


def same(first: Events, second: Events) -> None:
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.mask, second.mask)
    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.context.x, second.context.x)


def test_number_of_workers_does_not_matter() -> None:
    one, two = (Jets()(57, seed=3, workers=workers).arrays() for workers in (1, 2))
    assert len(one) == 57
    same(one, two)


def test_first_events_do_not_depend_on_how_many_follow() -> None:
    same(Jets()(57, seed=3).arrays()[:13], Jets()(13, seed=3).arrays())


def test_seeds_and_settings() -> None:
    first = Jets()(20, seed=1).arrays()
    assert not np.array_equal(first.x, Jets()(20, seed=2).arrays().x)
    assert not np.array_equal(first.x, Jets()(20, seed=-1).arrays().x)
    np.testing.assert_allclose(Jets(width=2.0)(20, seed=1).arrays().x, 2.0 * first.x)


def test_blocks_are_independent() -> None:
    """No block repeats another."""
    x = Jets()(40, seed=1).arrays().weight.reshape(4, 10)
    assert len(np.unique(x)) == 40


def test_file_and_card(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = simulate_to_file(
        Jets(width=0.5), 34, tmp_path / "jets.h5", seed=7, progress=lambda k, n: seen.append((k, n))
    )
    same(pofx.read(path).arrays(), Jets(width=0.5)(34, seed=7).arrays())
    assert pofx.read(path).spec["points"].columns[0].unit == "GeV"
    assert seen == [(10, 34), (20, 34), (30, 34), (34, 34)]
    card = read_card(path)
    assert card is not None
    assert card["settings"]["width"] == 0.5
    assert (card["simulator"], card["seed"], card["events"]) == ("toy-jets", 7, 34)
    assert card["versions"]["pofx"] == pofx.__version__
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jets.h5", "jets.h5.card.json"]
    assert read_card(tmp_path / "other.h5") is None


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    flag, out = tmp_path / "off", tmp_path / "jets.h5"
    flag.touch()
    simulator = Failing(flag=str(flag))
    with pytest.raises(RuntimeError, match="switched off"):
        simulate_to_file(simulator, 50, out, seed=1)
    blocks = tmp_path / "jets.h5.blocks"
    assert not out.exists()
    assert sorted(p.name for p in blocks.glob("*.npz")) == ["0.npz", "1.npz"]
    before = (blocks / "0.npz").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="blocks of another run"):
        simulate_to_file(simulator, 50, out, seed=2)
    flag.unlink()
    made: list[int] = []
    assert (blocks / "0.npz").stat().st_mtime_ns == before
    simulate_to_file(simulator, 50, out, seed=1, progress=lambda k, _: made.append(k))
    assert made == [30, 40, 50]
    same(pofx.read(out).arrays(), simulator(50, seed=1).arrays())
    assert not blocks.exists()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy-broken: expected fields"):
        Broken()(10, seed=1)
    with pytest.raises(MissingExtraError, match=r'toy-absent needs no_such_generator: pip install "pofx\[sim\]"'):
        Absent()(10, seed=1)
    for n, workers in ((0, 1), (5, 0)):
        with pytest.raises(ConfigError, match="at least one event and one worker"):
            Jets()(n, seed=1, workers=workers)
    with pytest.raises(ConfigError, match="no simulator is called"):
        simulator_class("no-such-thing")
    (tmp_path / "a.h5.card.json").write_text(json.dumps({})[:1])
    with pytest.raises(DataError, match="not a card"):
        read_card(tmp_path / "a.h5")
