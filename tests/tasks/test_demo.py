"""The demonstration at smoke scale, as users run it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pofx
from pofx.errors import ConfigError
from pofx.simulators.densities import t2k_like
from pofx.tasks.demo import predictions, run, tail_probability


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, run(out, "smoke")


def test_everything_is_written(demo):
    out, table = demo
    assert {p.name for p in out.iterdir()} == {"toys.h5", "toys.pofx", "table.json", "report.html", "report-figures"}
    stored = json.loads((out / "table.json").read_text())
    assert stored["densities"]["flow"]["gap"]["value"] == table["densities"]["flow"]["gap"].value


def test_the_flow_is_nearer_to_the_truth_than_the_gaussian(demo):
    densities = demo[1]["densities"]
    flow, gaussian = densities["flow"]["gap"], densities["Gaussian"]["gap"]
    assert flow.value + 3 * np.hypot(flow.error, gaussian.error) < gaussian.value
    assert gaussian.value > 5 * gaussian.error


def test_p_values_of_the_flow_are_those_of_the_truth(demo):
    for row in demo[1]["predictions"]:
        p = row["p_value"]
        assert p["flow"].value == pytest.approx(p["exact"].value, abs=0.1)
        assert p["flow"].low <= p["flow"].value <= p["flow"].high


def test_the_saved_model_is_the_one_reported(demo):
    out, _ = demo
    data, model = pofx.read(out / "toys.h5"), pofx.load(out / "toys.pofx")
    assert data.spec["x"].columns[0].unit == "cm^2"
    assert np.isfinite(model.log_prob(data.test.arrays().x)).all()


def test_unknown_scale(tmp_path):
    with pytest.raises(ConfigError, match="smoke, cpu"):
        run(tmp_path, "huge")


def test_predictions_and_tails():
    assert all(x.shape == (1, 58) for x in predictions(t2k_like()).values())
    found = tail_probability(-10.0, np.zeros(100))
    assert (found.value, found.low) == (0.0, 0.0)
    assert str(found) == "< 0.02"
    assert str(tail_probability(1.0, np.zeros(100))).startswith("> 0.98")
