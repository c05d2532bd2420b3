"""Choosing a density: the rule, its error, what is recorded, and that nothing is overfitted."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.covariance import oas

import pofx
from pofx.errors import ConfigError, DataError
from pofx.models import selection
from pofx.models.candidates import Candidate, automatic
from pofx.models.folds import average, fold_numbers, held_out, paired, splits_of
from pofx.models.selection import Score, Selection, select
from pofx.models.trials import Trial, decided, replaces
from pofx.simulators import CorrelatedGaussian, Mixture, correlation_matrix
from pofx.training import Training

pytestmark = pytest.mark.filterwarnings("ignore::pofx.errors.RangeWarning")

GAUSSIANS = {
    "gaussian": pofx.Gaussian(),
    "gaussian-oas": pofx.Gaussian(shrinkage="oas"),
    "gaussian-log": pofx.Gaussian(preprocess="log"),
}
NORMAL = CorrelatedGaussian(np.zeros(5), correlation_matrix(5))
PEAKS = Mixture([0.5, 0.5], [[-2.0, 0.0], [2.0, 1.0]], [0.3 * np.eye(2), [[0.5, 0.3], [0.3, 0.4]]])
QUICK = Training(max_epochs=None, max_steps=60, learning_rate=1e-2, progress=False)
FLOW = Candidate(pofx.SplineFlow(layers=1, hidden=(16,), bins=4), QUICK)


def whole(x: np.ndarray, **more: np.ndarray) -> pofx.Dataset:
    return pofx.Dataset.from_arrays(x, **more).with_split((1, 0, 0))


def by_name(found: Selection) -> dict[str, Score]:
    return {score.name: score for score in found.scores}


# Scores


def test_scores_are_those_of_a_cross_validation_by_hand() -> None:
    """Means and covariances of each fold's training events by numpy, OAS by scikit-learn."""
    x, weight = NORMAL.sample(120, 1), np.random.default_rng(2).uniform(0.5, 2.0, 120)
    data = whole(x)
    found = by_name(select(data, candidates=GAUSSIANS, folds=4, seed=3))
    fold = fold_numbers(data, 4, 3)
    values: dict[str, list[np.ndarray]] = {"gaussian": [], "gaussian-oas": []}
    for k in range(4):
        train, held = x[fold != k], x[fold == k]
        mean, sigma = train.mean(0), train.std(0)
        shrunk = oas((train - mean) / sigma)[0]
        for name, matrix in (("gaussian", np.corrcoef(train.T)), ("gaussian-oas", shrunk)):
            truth = CorrelatedGaussian(mean, sigma[:, None] * matrix * sigma)
            values[name].append(truth.log_prob(held))
    for name, parts in values.items():
        held = np.concatenate(parts)
        assert found[name].nll == pytest.approx(-held.mean(), abs=1e-8)
        assert found[name].error == pytest.approx(held.std() / math.sqrt(120), rel=1e-6)
    reference = max(values, key=lambda name: np.concatenate(values[name]).mean())
    other = next(name for name in values if name != reference)
    difference = np.concatenate(values[other]) - np.concatenate(values[reference])
    assert found[other].gain == pytest.approx(difference.mean(), abs=1e-8)
    assert (found[reference].gain, found[reference].gain_error) == (0.0, 0.0)
    weighted = by_name(select(whole(x, weight=weight), candidates=GAUSSIANS, folds=4, seed=3))
    assert weighted["gaussian"].nll != found["gaussian"].nll


def test_the_error_knows_that_folds_share_events() -> None:
    """It covers the scatter of the estimate over data sets; that from the held-out events alone is too small."""
    gains = []
    for seed in range(24):
        data = whole(NORMAL.sample(60, seed))
        splits = splits_of(data, 3, seed)
        values = [
            [family.fit(split.training(0.0)).log_prob(split.held) for split in splits]
            for family in (pofx.Gaussian(), pofx.Gaussian(shrinkage=0.5))
        ]
        gains.append((paired(*values, splits), average([a - b for a, b in zip(*values, strict=True)], splits)))
    scatter = np.std([gain.value for gain, _ in gains], ddof=1)
    assert 0.8 * scatter < np.mean([gain.error for gain, _ in gains]) < 2.5 * scatter
    assert np.mean([naive.error for _, naive in gains]) < np.mean([gain.error for gain, _ in gains])


def test_a_gain_that_rests_on_one_event_does_not_count() -> None:
    split = held_out(whole(NORMAL.sample(500, 1)), 0.2, 1, "test")
    level = np.zeros(100)
    outlier = np.where(np.arange(100) == 7, 1000.0, 0.0)
    gain = paired([outlier], [level], [split])
    assert 0 < gain.value < gain.error
    assert not replaces(Trial("b", FLOW, values=[outlier]), Trial("a", FLOW, values=[level]), [split])


def test_zero_densities() -> None:
    split = held_out(whole(NORMAL.sample(20, 1)), 0.2, 1, "test")
    good, bad = np.zeros(4), np.array([5.0, 5.0, 5.0, -math.inf])
    first, second = Trial("a", FLOW, values=[good]), Trial("b", FLOW, values=[bad])
    assert not replaces(second, first, [split])
    assert replaces(first, second, [split])
    assert paired([bad], [bad], [split]).value == 0.0


def test_folds_are_equal_disjoint_and_keep_copies_together() -> None:
    data = whole(NORMAL.sample(100, 1))
    fold = fold_numbers(data, 5, 0)
    assert np.bincount(fold).tolist() == [20] * 5
    copies = data.take(np.repeat(np.arange(100), 3))
    np.testing.assert_array_equal(fold_numbers(copies, 5, 0), np.repeat(fold, 3))
    assert (fold_numbers(data, 5, 1) != fold).any()


def test_hopeless_candidates_are_dropped_and_clear_ones_are_spared_further_folds() -> None:
    splits = splits_of(whole(NORMAL.sample(500, 1)), 5, 0)
    noise = [np.random.default_rng(k).normal(size=100) for k in range(5)]
    choice = Trial("a", FLOW, values=[np.zeros(100)] * 5)
    cases = {"worse": (noise[0] - 5, False), "cannot": (np.full(100, 1e-3), True), "better": (noise[0] + 5, True)}
    for word, (values, trained) in cases.items():
        trial = Trial("b", FLOW, trained=trained, values=[values])
        assert decided(trial, choice, splits)
        assert trial.note.startswith(word)
        assert trial.dropped == (word != "better")
    for values, trained in ((noise[0], False), (noise[0] + 5, False), (noise[0], True)):
        assert not decided(Trial("b", FLOW, trained=trained, values=[values]), choice, splits)


# Choices


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_on_a_gaussian_truth_nothing_worse_than_the_gaussian_is_chosen(seed: int) -> None:
    data = whole(NORMAL.sample(200, seed))
    hybrid = Candidate(pofx.HybridFlow(layers=1, hidden=(16,)), QUICK)
    closed = dict(list(automatic(200).items())[:8])
    found = select(data, candidates={**closed, "hybrid-flow": hybrid, "spline-flow": FLOW}, seed=seed)
    x = NORMAL.sample(4000, 100 + seed)
    for shrinkage in ("none", "ledoit-wolf", "oas"):
        gaussian = pofx.Gaussian(shrinkage=shrinkage).fit(data)
        assert np.mean(found.model.log_prob(x) - gaussian.log_prob(x)) > -0.05
    assert {"hybrid-flow", "spline-flow", "gaussian-mixture-3", "gaussian-copula"} < set(by_name(found))


@pytest.mark.slow
def test_a_mixture_is_found_and_so_is_a_flow() -> None:
    data = whole(PEAKS.sample(600, 1))
    mixtures = {"gaussian-mixture-2": pofx.GaussianMixture(components=2), "spline-flow": FLOW}
    found = select(data, candidates={**GAUSSIANS, **mixtures})
    assert found.chosen == "gaussian-mixture-2"
    x = PEAKS.sample(3000, 2)
    assert np.mean(PEAKS.log_prob(x) - found.model.log_prob(x)) < 0.05
    assert by_name(found)["gaussian-mixture-2"].gain > 0.3
    flow = select(data, candidates={**GAUSSIANS, "spline-flow": Candidate(FLOW.family, QUICK.replace(max_steps=200))})
    assert flow.chosen == "spline-flow"
    assert flow.model.layout.events == 540


def test_logs_are_taken_where_they_help() -> None:
    x = np.exp(0.5 * NORMAL.sample(300, 1))
    assert select(whole(x), candidates=GAUSSIANS).chosen == "gaussian-log"


def test_a_simpler_candidate_stays_if_another_is_as_good() -> None:
    found = select(whole(NORMAL.sample(300, 1)), candidates={"first": pofx.Gaussian(), "second": pofx.Gaussian()})
    assert found.chosen == "first"
    assert by_name(found)["second"].gain == 0.0


def test_fewer_events_than_columns() -> None:
    truth = CorrelatedGaussian(np.zeros(40), correlation_matrix(40))
    found = select(whole(truth.sample(30, 1)), candidates=dict(list(automatic(30).items())[:5]), folds=3)
    assert found.chosen in ("gaussian-ledoit-wolf", "gaussian-oas", "gaussian-copula")
    assert "rows" in (by_name(found)["gaussian"].refused or "")
    assert np.isfinite(found.model.log_prob(truth.sample(10, 2))).all()


def test_contexts_and_weights() -> None:
    joint = NORMAL.sample(400, 1)
    x, context = joint[:, 1:], joint[:, :1]
    found = select(x, context, np.random.default_rng(1).uniform(0.5, 1.0, 400), candidates=GAUSSIANS)
    assert found.model.log_prob(x[:5], context[:5]).shape == (5,)


# What is fitted, and what is recorded


def test_the_model_sees_all_training_events_and_never_the_test_split() -> None:
    data = pofx.Dataset.from_arrays(NORMAL.sample(300, 1))
    found = select(data, candidates=GAUSSIANS)
    assert found.model.card["data"]["train"] == len(data.train) + len(data.val)
    both = np.concatenate([data.train.arrays().x, data.val.arrays().x])
    expected = GAUSSIANS[found.chosen].fit(whole(both)).log_prob(both[:20])
    np.testing.assert_allclose(found.model.log_prob(both[:20]), expected, atol=1e-9)
    changed = data.arrays().x.copy()
    changed[data.test.rows.numbers] += 100.0
    again = select(pofx.Dataset.from_arrays(changed), candidates=GAUSSIANS)
    np.testing.assert_array_equal(again.model.log_prob(both[:20]), found.model.log_prob(both[:20]))
    assert by_name(again)["gaussian"].nll == by_name(found)["gaussian"].nll


def test_the_same_seed_gives_the_same_choice() -> None:
    x = PEAKS.sample(150, 1)
    candidates = {**GAUSSIANS, "spline-flow": FLOW}
    first, again, other = (select(x, candidates=candidates, seed=seed, folds=2) for seed in (1, 1, 2))
    assert [score.nll for score in first.scores] == [score.nll for score in again.scores]
    assert [score.nll for score in first.scores] != [score.nll for score in other.scores]
    np.testing.assert_array_equal(first.model.log_prob(x), again.model.log_prob(x))


def test_refused_candidates_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A typed error, a divergence, no density, and an error of linear algebra."""

    class NoDensity(pofx.Gaussian):
        capabilities = pofx.models.base.Capabilities(density="none")

    class Broken(pofx.Gaussian):
        def phases(self, layout):
            raise np.linalg.LinAlgError("singular matrix")

    x = NORMAL.sample(100, 1)
    x[:, 0] = np.sign(x[:, 0])
    bad = {
        "diverging": Candidate(FLOW.family, QUICK.replace(learning_rate=1e30, clip=None, ema=None)),
        "no density": NoDensity(),
        "broken": Broken(),
    }
    found = select(x, candidates={**GAUSSIANS, **bad}, folds=2)
    scores = by_name(found)
    for name, word in (("no density", "Capability"), ("broken", "singular matrix"), ("diverging", "DivergenceError")):
        assert word in (scores[name].refused or "")
        assert scores[name].nll is None
        assert f"{name} is out" in caplog.text
    assert found.chosen in GAUSSIANS
    with pytest.raises(DataError, match="none of the candidates"):
        select(x, candidates={"broken": Broken()})


def test_tables_strings_and_cards() -> None:
    found = select(NORMAL.sample(100, 1), candidates=GAUSSIANS, folds=2)
    assert [row["name"] for row in found.table() if row["chosen"]] == [found.chosen]
    assert json.loads(json.dumps(found.table())) == found.table()
    assert all(name in str(found) for name in GAUSSIANS)
    assert found.rule in str(found)
    assert found.model.card["selection"]["scores"] == found.table()


def test_a_saved_selection_can_be_loaded(tmp_path) -> None:
    found = select(NORMAL.sample(100, 1), candidates=GAUSSIANS, folds=2)
    found.model.save(tmp_path / "model.pofx")
    assert pofx.load(tmp_path / "model.pofx").card["selection"]["rule"] == found.rule


# Many events


def test_many_events_are_screened_and_the_finalists_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ONE_SPLIT", 1000), ("SCREEN", 600), ("HELD", 300)):
        monkeypatch.setattr(selection, name, value)
    data = pofx.Dataset.from_arrays(PEAKS.sample(4000, 1))
    candidates = {
        **GAUSSIANS,
        "gaussian-mixture-2": pofx.GaussianMixture(components=2),
        "autoregressive-flow": Candidate(pofx.AutoregressiveFlow(layers=1, hidden=(8,)), QUICK),
        "spline-flow": FLOW,
    }
    found = select(data, candidates=candidates)
    scores = by_name(found)
    assert list(scores) == list(candidates)
    assert found.chosen == "gaussian-mixture-2"
    assert found.model.card["data"]["train"] == 3600
    finalists = {name for name, score in scores.items() if "screened" not in score.note}
    assert {"gaussian-mixture-2"} < finalists < set(candidates)
    assert scores["gaussian-mixture-2"].events == 3300
    assert all(scores[name].events == 450 for name in set(candidates) - finalists)
    flow = select(data, candidates={"gaussian": pofx.Gaussian(), "spline-flow": FLOW}, minutes=0.2)
    assert flow.chosen == "spline-flow"
    assert "has not seen" in flow.rule
    assert flow.model.card["data"]["train"] < 3300


def test_on_gaussian_events_no_flow_is_trained_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ONE_SPLIT", 500)
    found = select(whole(NORMAL.sample(2000, 1)), candidates={"gaussian": pofx.Gaussian(), "spline-flow": FLOW})
    assert found.chosen == "gaussian"
    assert "screened" in by_name(found)["spline-flow"].note


def test_time_is_shared_and_what_comes_too_late_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Candidate(FLOW.family, QUICK.replace(max_steps=None, max_epochs=100_000))
    found = select(
        whole(PEAKS.sample(300, 1)), candidates={"gaussian": pofx.Gaussian(), "flow": slow}, folds=2, minutes=0.01
    )
    assert by_name(found)["flow"].folds >= 1
    clock = SimpleNamespace(monotonic=iter(np.arange(0.0, 1e6, 100.0)).__next__)
    monkeypatch.setattr(selection, "time", clock)
    late = select(
        whole(PEAKS.sample(300, 1)), candidates={"gaussian": pofx.Gaussian(), "flow": slow}, folds=2, minutes=1
    )
    assert late.chosen == "gaussian"
    assert by_name(late)["flow"].note == "the time was spent"


# What there is to choose among


def test_simple_candidates_come_first() -> None:
    for events in (500, 100_000):
        names = list(automatic(events))
        assert names[0] == "gaussian"
        assert names.index("hybrid-flow") < names.index("spline-flow") < names.index("flow-matching")


def test_bad_settings_are_refused() -> None:
    x = NORMAL.sample(50, 1)
    for bad in ({"folds": 1}, {"minutes": 0}, {"candidates": "all"}, {"candidates": {}}):
        with pytest.raises(ConfigError):
            select(x, **bad)
