"""The command line through its real entry point: results on stdout, one clean line per error on stderr, exit codes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_artefact import tiny

import pofx
from pofx import cli, cli_support, registry
from pofx.cli import main
from pofx.errors import ConfigError
from pofx.training.settings import Training


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``pofx`` with these words: exit code, stdout, stderr; whatever happens, no traceback."""

    def call(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leave:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(leave.value.code or 0), out, err

    return call


@pytest.fixture
def refused(run: Any) -> Any:
    """Run ``pofx`` and expect exit code 2 and one line; gives the line."""

    def call(*words: Any) -> str:
        code, out, err = run(*words)
        assert (code, out) == (2, ""), err
        assert err.startswith("pofx: error: ")
        assert err.count("\n") == 1
        return str(err)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with a context and a periodic column, a model of each sort."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(1)
    e = rng.uniform(1, 5, 800)
    table = {"pt": rng.normal(e), "y": rng.normal(size=800), "e": e, "w": rng.uniform(0.5, 1.5, 800)}
    pofx.write(folder / "toys.h5", table)
    pofx.write(folder / "plain.csv", {name: table[name] for name in ("pt", "y")})
    pofx.write(folder / "angle.h5", {"phi": rng.uniform(-3, 3, 300), "y": rng.normal(size=300)})
    pofx.write(folder / "contexts.h5", {"e": np.linspace(1.5, 4.5, 7), "other": np.zeros(7)})
    np.save(folder / "numbered.npy", np.column_stack([table["pt"], table["y"]]))
    (folder / "broken.csv").write_text("a,b\n1,2\n3,\n")
    (folder / "text.csv").write_text("hello\n")
    pofx.Gaussian().fit(folder / "plain.csv").save(folder / "plain.pofx")
    pofx.Gaussian().fit(folder / "toys.h5", context="e", weight="w").save(folder / "given.pofx")
    return folder


# ---------------------------------------------------------------------- the round trip


def test_round_trip(run: Any, folder: Path, tmp_path: Path) -> None:
    model, new, scores = tmp_path / "m.pofx", tmp_path / "new.h5", tmp_path / "scores.npy"
    code, out, err = run("fit", folder / "plain.csv", "--model", "gaussian", "-o", model, "--seed", 3)
    assert (code, err) == (0, "")
    assert "gaussian" in out
    assert "nats per event" in out

    code, out, _ = run("info", model)
    assert code == 0
    for word in ("gaussian", "pt", "y", "sha256", "real"):
        assert word in out
    code, out, _ = run("info", model, "--json")
    assert json.loads(out)["family"] == "gaussian"

    assert run("sample", model, "-n", 2000, "-o", new, "--seed", 5) == (0, f"{new}: 2000 events\n", "")
    assert np.array_equal(pofx.read(new).arrays().x, pofx.load(model).sample(2000, seed=5))
    assert "pt" in run("info", new)[1]

    code, out, _ = run("logprob", model, new, "-o", scores)
    assert code == 0
    expected = pofx.load(model).log_prob(pofx.read(new).arrays().x)
    assert np.array_equal(np.load(scores).ravel(), expected)
    assert f"{expected.mean():.6g}"[:6] in out
    assert "2000 events" in out
    assert "+-" in out


def test_contexts(run: Any, folder: Path, tmp_path: Path) -> None:
    options = ("--columns", "pt,y", "--context", "e", "--weight", "w", "--split", "0.5,0.25,0.25")
    assert run("fit", folder / "toys.h5", "-m", "gaussian", "-o", tmp_path / "m.pofx", *options)[0] == 0
    model = pofx.load(tmp_path / "m.pofx")
    assert model.card["data"]["train"] == 400
    contexts = ("--context", folder / "contexts.h5")
    code, out, _ = run("sample", tmp_path / "m.pofx", *contexts, "-n", 4, "-o", tmp_path / "new.h5")
    assert (code, out.split(": ")[1]) == (0, "4 events for each of 7 contexts\n")
    rows = np.linspace(1.5, 4.5, 7)[:, None]
    assert np.array_equal(pofx.read(tmp_path / "new.h5").arrays().x, model.sample(4, rows, seed=0).reshape(28, 2))
    assert run("sample", tmp_path / "m.pofx", *contexts, "-o", tmp_path / "each.h5")[0] == 0
    assert np.array_equal(pofx.read(tmp_path / "each.h5").arrays().x, model.sample(context=rows, seed=0))
    assert "28 events" in run("logprob", tmp_path / "m.pofx", tmp_path / "new.h5")[1]
    again = ("--context", tmp_path / "new.h5")
    assert run("sample", tmp_path / "m.pofx", *again, "-o", tmp_path / "again.h5")[0] == 0
    assert len(pofx.read(tmp_path / "again.h5")) == 28


def test_declared_columns_and_settings(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pofx"
    words = ("--column", "phi:rad:periodic:-pi:pi", "--set", "layers=1", "--set", "hidden=[8]", "--steps", 3)
    code, _, err = run(
        "fit", folder / "angle.h5", "-m", "spline-flow", "-o", out, *words, "--training", "schedule=constant"
    )
    assert code == 0, err
    card = pofx.load(out).card
    assert (card["config"]["layers"], card["training"]["steps"]) == (1, 3)
    assert card["spec"]["x"]["columns"][0]["type"] == "periodic"
    assert card["training"]["settings"]["schedule"] == "constant"


def test_dry_run_writes_nothing(run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("fit", folder / "angle.h5", "-m", "spline-flow", "--set", "layers=1", "--epochs", 2, "--dry-run")
    assert code == 0
    assert "parameters" in out
    assert "per epoch" in out
    assert list(tmp_path.iterdir()) == []


def test_columns_are_found_by_name_or_by_number(run: Any, refused: Any, folder: Path) -> None:
    model = folder / "plain.pofx"
    assert "800 events" in run("logprob", model, folder / "toys.h5")[1]
    code, out, err = run("logprob", model, folder / "numbered.npy")
    assert code == 0
    assert "taken in their order" in err
    assert out == run("logprob", model, folder / "plain.csv")[1]
    assert "pt" in refused("logprob", model, folder / "angle.h5")


def test_warnings_are_single_lines(run: Any, folder: Path, tmp_path: Path) -> None:
    pofx.write(tmp_path / "far.h5", {"pt": [1e3, 1.0], "y": [0.0, 0.0]})
    code, out, err = run("logprob", folder / "plain.pofx", tmp_path / "far.h5")
    assert code == 0
    assert "mean log p" in out
    assert err.startswith("pofx: warning: x outside the range")
    assert err.count("\n") == 1


def test_list_shows_every_family(run: Any) -> None:
    code, out, _ = run("list")
    assert code == 0
    for name in registry.family_names():
        assert name in out


def test_verbose_goes_to_stderr(run: Any, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("--verbose", "sample", folder / "plain.pofx", "-n", 10, "-o", tmp_path / "a.h5")
    assert (code, out) == (0, f"{tmp_path / 'a.h5'}: 10 events\n")
    assert "sampled 10 of 10" in err or "1024" in err


def test_version_and_help(run: Any) -> None:
    assert run("--version") == (0, f"pofx {pofx.__version__}\n", "")
    for words in ((), ("--help",), ("-h",)):
        code, out, _ = run(*words)
        assert code == 0
        assert "logprob" in out
    for verb in ("fit", "sample", "logprob", "info", "list", "report", "run", "simulate"):
        assert run(verb, "--help")[0] == 0


# ---------------------------------------------------------------------- errors


def test_fit_needs_nothing_but_a_file(run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("fit", folder / "plain.csv", "--steps", "2")[0] == 0
    assert "spline-flow" in run("info", "plain.pofx")[1]


def test_usage_errors(refused: Any, folder: Path, tmp_path: Path) -> None:
    data, model, out = folder / "plain.csv", folder / "plain.pofx", tmp_path / "m.pofx"
    assert "Did you mean 'fit'" in refused("fitt")
    assert "spline-flow" in refused("fit", data, "-m", "splineflow", "-o", out)
    assert "key=value" in refused("fit", data, "-m", "gaussian", "-o", out, "--set", "layers")
    assert "layers=" in refused("fit", data, "-m", "spline-flow", "-o", out, "--set", "lyers=2")
    assert "got 'two'" in refused("fit", data, "-m", "spline-flow", "-o", out, "--set", "layers=two")
    assert "max_epochs" in refused("fit", data, "-m", "gaussian", "-o", out, "--training", "max_epoch=2")
    assert "learning_rate" in refused("fit", data, "-m", "gaussian", "-o", out, "--learning-rate", "-1")
    assert "three numbers" in refused("fit", data, "-m", "gaussian", "-o", out, "--split", "1,2")
    assert "--checkpoint" in refused("fit", data, "-m", "gaussian", "-o", out, "--resume")
    assert "keep" in refused("fit", data, "-m", "gaussian", "-o", out, "--nan", "keep")
    assert "-n" in refused("sample", model, "-o", tmp_path / "a.h5")
    assert "at least 0" in refused("sample", model, "-n", "-3", "-o", tmp_path / "a.h5")
    assert "worker" in refused("sample", model, "-n", "3", "-o", tmp_path / "a.h5", "--workers", 0)
    assert "extension" in refused("sample", model, "-n", "3", "-o", tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


def test_data_errors(refused: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pofx"
    assert "no such file" in refused("fit", tmp_path / "absent.h5", "-m", "gaussian", "-o", out)
    assert "nan" in refused("fit", folder / "broken.csv", "-m", "gaussian", "-o", out)
    assert "ptt" in refused("fit", folder / "plain.csv", "-m", "gaussian", "-o", out, "--columns", "ptt")
    assert "got 'odd'" in refused(
        "fit", folder / "plain.csv", "-m", "gaussian", "-o", out, "--column", "y:rad:odd:-pi:pi"
    )
    refused("fit", folder / "text.csv", "-m", "gaussian", "-o", out)
    refused("info", tmp_path / "absent.h5")
    assert not out.exists()


def test_model_errors(refused: Any, folder: Path, tmp_path: Path) -> None:
    assert "cannot be read" in refused("info", tmp_path / "absent.pofx")
    (tmp_path / "bad.pofx").write_bytes((folder / "plain.pofx").read_bytes()[:500])
    for words in (("info",), ("sample", "-n", 3, "-o", tmp_path / "a.h5"), ("logprob", folder / "plain.csv")):
        verb, *rest = words
        line = refused(verb, tmp_path / "bad.pofx", *rest)
        assert "bad.pofx" in line
    assert "context" in refused("sample", folder / "given.pofx", "-n", 3, "-o", tmp_path / "a.h5")
    contexts = ("--context", folder / "contexts.h5")
    assert "without a context" in refused("sample", folder / "plain.pofx", "-o", tmp_path / "a.h5", *contexts)


def test_files_are_never_overwritten_unless_forced(run: Any, refused: Any, folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.h5"
    old.write_bytes(b"old")
    model = folder / "plain.pofx"
    commands = [
        ("fit", folder / "plain.csv", "-m", "gaussian", "-o", old),
        ("sample", model, "-n", 3, "-o", old),
        ("logprob", model, folder / "plain.csv", "-o", old),
        ("report", model, folder / "plain.csv", "-o", old),
    ]
    for words in commands:
        assert "--force" in refused(*words)
        assert old.read_bytes() == b"old"
    assert "no folder" in refused("sample", model, "-n", 3, "-o", tmp_path / "absent" / "a.h5")
    assert "is a folder" in refused("sample", model, "-n", 3, "-o", tmp_path)
    assert run("sample", model, "-n", 3, "-o", old, "--force")[0] == 0
    assert len(pofx.read(old)) == 3


def test_machine_trouble(run: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def raising(error: BaseException) -> None:
        def fail() -> str:
            raise error

        monkeypatch.setattr("pofx.models.table.capability_table", fail)

    raising(OSError(errno.ENOSPC, "No space left on device"))
    assert "No space left" in refused("list")
    raising(OSError(errno.EACCES, "Permission denied", "some.h5"))
    assert "some.h5: Permission denied" in refused("list")
    raising(MemoryError())
    assert "out of memory" in refused("list")
    raising(KeyboardInterrupt())
    code, out, err = run("list")
    assert (code, out, err.strip()) == (cli_support.EXIT_INTERRUPT, "", "pofx: error: interrupted")
    raising(ZeroDivisionError("oh\nno"))
    code, _, err = run("list")
    assert code == cli_support.EXIT_INTERNAL
    assert "internal error, please report it (ZeroDivisionError: oh no); rerun with --debug" in err
    assert err.count("\n") == 1
    for words in (["--debug", "list"], ["list", "--debug"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "Traceback" in capsys.readouterr().err


def test_console_leaves_logging_and_warnings_as_they_were(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    import logging
    import warnings

    before = (logging.getLogger("pofx").handlers, logging.getLogger("pofx").propagate, warnings.showwarning)
    run("--version")
    assert before == (logging.getLogger("pofx").handlers, logging.getLogger("pofx").propagate, warnings.showwarning)


def test_interrupted_training_saves_the_model_and_says_so(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pofx.models.base import Family

    def fit(self: Family, *_: Any, **__: Any) -> Any:
        model = tiny()
        model.card["training"] = {"stopped_by": "interrupt", "steps": 3, "seconds": 0.1}
        model.card["parameters"] = 1
        return model

    monkeypatch.setattr(Family, "fit", fit)
    code, out, _ = run("fit", folder / "plain.csv", "-m", "gaussian", "-o", tmp_path / "m.pofx")
    assert code == cli_support.EXIT_INTERRUPT
    assert "3 steps" in out
    assert pofx.load(tmp_path / "m.pofx").family.name == "test-tiny"


def test_the_process_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pofx.cli", "info", str(tmp_path / "absent.pofx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pofx: error: ")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------------- key=value


def test_settings() -> None:
    made = cli_support.settings(
        Training(), ["seed=3", "max-epochs=none", "max_steps=5", "clip=1e-2", "device=cpu"], "--t"
    )
    assert (made.seed, made.max_epochs, made.max_steps, made.clip, made.device) == (3, None, 5, 0.01, "cpu")
    assert cli_support.settings(Training(), ["deterministic=true"], "--t").deterministic is True
    assert cli_support.settings(pofx.SplineFlow(), ["hidden=[8, 8]"], "--set").hidden == (8, 8)
    assert cli_support.settings(pofx.SplineFlow(), ["preprocess=none"], "--set").preprocess == "none"
    assert cli_support.settings(Training(), [], "--t") == Training()
    for wrong in ("seed", "=3", "sead=3", "seed.x=3", "seed=x", "seed=-1"):
        with pytest.raises(ConfigError):
            cli_support.settings(Training(), [wrong], "--t")


def test_every_command_is_documented() -> None:
    assert all(command.callback.__doc__ for command in cli.app.registered_commands)


def test_a_student_is_given_its_teacher(run: Any, refused: Any, tmp_path: Path) -> None:
    pofx.write(tmp_path / "x.csv", np.random.default_rng(1).normal(size=(200, 2)), columns=["a", "b"])
    data, teacher, student = tmp_path / "x.csv", tmp_path / "teacher.pofx", tmp_path / "student.pofx"
    small = ("--set", "layers=1", "--steps", 2)
    assert run("fit", data, "-m", "spline-flow", *small, "-o", teacher)[0] == 0
    found = run("fit", data, "-m", "inverse-autoregressive-flow", *small, "--teacher", teacher, "-o", student)
    assert found[0] == 0
    assert pofx.load(student).card["teacher"] is not None
    assert "is no student" in refused(
        "fit", data, "-m", "gaussian", "--teacher", teacher, "-o", tmp_path / "other.pofx"
    )
