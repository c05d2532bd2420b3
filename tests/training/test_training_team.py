"""Two processes train as one does."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from team_job import job
from training_toys import normal

from pofx.data.events import Events
from pofx.errors import ConfigError
from pofx.training import Training
from pofx.training.placement import Placement
from pofx.training.team import Team, local_device

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of two processes found, what one alone finds, and the folder of the two."""
    folder, alone = tmp_path_factory.mktemp("team"), tmp_path_factory.mktemp("alone")
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*launcher, str(HERE / "team_job.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=570,
    )
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in (0, 1)], job(alone), folder


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestTwoProcesses:
    def test_find_the_weights_that_one_finds(self, results):
        (first, _), alone, _ = results
        assert first["weights"] == pytest.approx(alone["weights"], rel=1e-6, abs=1e-6)
        assert first["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert first["size"] == pytest.approx(alone["size"], rel=0.1)
        assert first["lonely"] == pytest.approx(alone["lonely"], rel=1e-6, abs=1e-6)
        assert first["total"] == pytest.approx(alone["total"], rel=1e-6)

    def test_validate_as_one_does(self, results):
        (first, _), alone, _ = results
        assert first["validation"] == pytest.approx(alone["validation"], rel=1e-6)
        assert first["best_step"] == alone["best_step"]

    def test_agree_to_the_last_bit(self, results):
        (first, second), _, _ = results
        assert first == second

    def test_resume(self, results):
        (first, _), _, _ = results
        assert first["again"] == first["validation"]

    def test_name_the_event_that_is_not_finite(self, results):
        (first, _), alone, _ = results
        assert "event 70" in alone["divergence"]
        assert first["divergence"] == alone["divergence"]

    def test_stop_together(self, results):
        (first, _), _, _ = results
        assert first["timed"]["fit"] >= 1

    def test_write_once(self, results):
        (first, _), _, folder = results
        rows = list(csv.DictReader((folder / "training.csv").read_text().splitlines()))
        assert [float(row["validation_loss"]) for row in rows] == first["validation"]


def test_alone_there_is_nothing_to_share():
    team, events = Team(), Events({"x": normal(5)})
    assert team.leads
    assert team.share(events) is events
    assert team.gather([1, 2]) == [1, 2]
    assert type(Placement(Training(device="cpu")).team) is Team


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert local_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="one process per GPU"):
        local_device(torch.device("cuda"))
