"""Every toy by name: written to a file and read back, the same for any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pofx
from pofx.errors import ConfigError
from pofx.simulators.base import simulator_class
from pofx.simulators.catalogue import CATALOGUE, ShapeSimulator, ToySimulator, toy, toy_table
from pofx.simulators.running import simulate_to_file


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_toy_is_a_data_set(name: str) -> None:
    data = ToySimulator(name)(30, seed=1)
    again = ToySimulator(name).generate(2000, ToySimulator(name).rng(1, 0))
    for field in data.spec:
        np.testing.assert_array_equal(data.arrays().fields[field], np.asarray(again.fields[field])[:30])
    assert data.dropped == 0


def test_file_and_command_line(tmp_path: Path) -> None:
    path = simulate_to_file(ToySimulator("dijet-bump"), 50, tmp_path / "a.h5", seed=3)
    assert pofx.read(path).spec["dijet"].columns[0].unit == "TeV"
    assert simulator_class("shape") is ShapeSimulator
    assert ShapeSimulator("rings")(20, seed=1).names == ("x0", "x1")


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"no toy is called 'near_far'; .*near-far"):
        toy("near_far")
    with pytest.raises(ConfigError, match="no toy is called"):
        ToySimulator("nothing")
    with pytest.raises(ConfigError, match="which must be one of"):
        ShapeSimulator("cube")
    assert len(toy_table().splitlines()) == len(CATALOGUE) + 2
