"""The null of the check of normality: known moments, and a cache that never changes a number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pofx.classifiers import TreeClassifier
from pofx.classifiers.polynomial import PolynomialClassifier
from pofx.errors import ConfigError
from pofx.metrics import nulls
from pofx.metrics.nulls import Null, cache_folder, gaussian_null

JUDGE = PolynomialClassifier()


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """No null in memory, before and after."""
    nulls._null.cache_clear()
    yield
    nulls._null.cache_clear()


def again(folder: Path, replicas: int = 20) -> Null:
    nulls._null.cache_clear()
    return gaussian_null(30, 2, JUDGE, replicas, cache=folder)


def test_moments_are_those_in_the_books() -> None:
    """Mardia 1970: the skewness is 6/n times a chi2 variable; exact mean and asymptotic variance of the kurtosis."""
    n, d, replicas = 400, 5, 150
    values = gaussian_null(n, d, JUDGE, replicas, cache=False).values
    kurtosis = values[:, 2]
    variance = 8 * d * (d + 2) / n
    assert abs(kurtosis.mean() - d * (d + 2) * (n - 1) / (n + 1)) < 4 * np.sqrt(variance / replicas)
    assert abs(kurtosis.var(ddof=1) / variance - 1) < 4 * np.sqrt(2 / replicas) + 0.1  # 0.1: n is finite
    skewness = n * values[:, 1] / 6  # chi2 with d (d + 1) (d + 2) / 6 = 35 degrees of freedom
    assert abs(skewness.mean() / 35 - 1) < 0.05 + 4 * np.sqrt(2 / 35 / replicas)


def test_data_that_judge_themselves_look_too_normal() -> None:
    """The half that tests has its moments on the other side of the fit from the half that trains."""
    auc = gaussian_null(100, 10, JUDGE, 60, cache=False).values[:, 0]
    assert auc.mean() + 4 * auc.std(ddof=1) / np.sqrt(60) < 0.5


def test_a_file_gives_what_computing_gives(tmp_path: Path) -> None:
    first = gaussian_null(30, 2, JUDGE, 20, cache=tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 1
    for found in (again(tmp_path / "new"), gaussian_null(30, 2, JUDGE, 20, cache=False)):
        np.testing.assert_array_equal(found.values, first.values)
        np.testing.assert_array_equal(found.quantiles, first.quantiles)


def test_the_file_is_what_is_read(tmp_path: Path) -> None:
    made = gaussian_null(30, 2, JUDGE, 20, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    with path.open("wb") as file:
        np.savez(file, values=made.values + 1, quantiles=made.quantiles)
    np.testing.assert_array_equal(again(tmp_path).values, made.values + 1)


def damaged(kind: str, made: Null, path: Path) -> None:
    whole = path.read_bytes()
    if kind in ("shape", "nan", "name"):
        values = {"shape": made.values[1:], "nan": made.values * np.nan, "name": made.values}[kind]
        with path.open("wb") as file:
            np.savez(file, **{"other" if kind == "name" else "values": values, "quantiles": made.quantiles})
    else:
        parts = {"empty": b"", "cut": whole[:-50], "flipped": whole[:500] + b"\xff" * 8 + whole[508:], "text": b"no"}
        path.write_bytes(parts[kind])


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "text", "shape", "nan", "name"])
def test_a_damaged_file_is_made_again(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = gaussian_null(30, 2, JUDGE, 20, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    damaged(kind, first, path)
    with caplog.at_level(logging.WARNING, logger="pofx.metrics.nulls"):
        np.testing.assert_array_equal(again(tmp_path).values, first.values)
    assert "is damaged" in caplog.text
    caplog.clear()
    again(tmp_path)
    assert not caplog.text


def test_a_folder_that_cannot_be_written_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, logger="pofx.metrics.nulls"):
        assert len(gaussian_null(30, 2, JUDGE, 20, cache=tmp_path / "file" / "folder")) == 20
    assert "not kept" in caplog.text


def test_more_replicas_extend_fewer() -> None:
    few, more = (gaussian_null(30, 2, JUDGE, replicas, cache=False).values for replicas in (20, 25))
    np.testing.assert_array_equal(more[:20], few)


def test_each_size_and_judge_has_a_file(tmp_path: Path) -> None:
    for n, d, judge in ((30, 2, JUDGE), (31, 2, JUDGE), (30, 3, JUDGE), (30, 2, PolynomialClassifier(penalty=1.0))):
        gaussian_null(n, d, judge, 2, cache=tmp_path)
    gaussian_null(30, 2, TreeClassifier(trees=2), 2, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_the_folder_is_said_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POFX_CACHE", str(tmp_path / "mine"))
    gaussian_null(30, 2, JUDGE, 2)
    assert len(list((tmp_path / "mine").iterdir())) == 1
    monkeypatch.delenv("POFX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pofx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pofx"
    gaussian_null(31, 2, JUDGE, 2, cache=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@dataclass
class Loose:
    """A judge whose settings may change under way."""

    name = "loose"

    def fit(self, x: Any, label: Any, weight: Any = None, *, seed: int) -> Any:
        raise NotImplementedError


def test_a_judge_that_may_change_is_refused() -> None:
    judge: Any = Loose()
    with pytest.raises(ConfigError, match="frozen"):
        gaussian_null(30, 2, judge, 2, cache=False)
