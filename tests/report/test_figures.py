"""Every figure on small, empty, constant, wide, weighted and broken data."""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest

from pofx.data.spec import Column
from pofx.errors import ColumnError, ConfigError, DataError, NonFiniteError, ShapeError
from pofx.report import (
    Figures,
    bin_spectrum,
    corner,
    correlation,
    log_density,
    spectra,
    spectra_pages,
    style,
    training_curves,
)
from pofx.report.histograms import choose_edges, compare_binned
from pofx.report.style import escaped, scaled, shortened
from pofx.report.tables import as_table


def epochs(phase, n, **changes):
    row = {"validation_loss": 1.0, "validation_error": 0.1, "learning_rate": 1e-3, **changes}
    return [{"phase": phase, "epoch": i, "step": 10 * i + 10, "train_loss": 1 / (i + 1), **row} for i in range(n)]


def test_spectra_has_two_panels_per_column(rng, draw):
    figure = spectra(rng.normal(size=(300, 3)), rng.normal(size=(500, 3)))
    assert len(figure.axes) == 6
    draw(figure, pdf=False)


def test_spectra_puts_the_most_discrepant_first_and_pages(rng, draw):
    truth, model = rng.normal(size=(400, 20)), rng.normal(size=(400, 20))
    model[:, 17] += 2.0
    assert spectra_pages(20) == 2
    first, second = spectra(truth, model), spectra(truth, model, page=1)
    assert first.axes[1].get_xlabel() == "x17"
    assert len(first.axes) == 32
    assert len(second.axes) == 8
    draw(second, pdf=False)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        spectra(truth, model, page=2)


def test_a_hundred_and_sixteen_columns(rng, draw):
    x = rng.normal(size=(200, 116))
    assert spectra_pages(116) == 8
    assert len(spectra(x, x, page=7).axes) == 2 * (116 - 7 * 16)
    draw(correlation(x, rng.normal(size=(200, 116))), pdf=False)
    draw(bin_spectrum(np.full(116, 1e-39), np.full(116, 1e-40), 1e-39 + 1e-40 * x, unit="cm^2"), pdf=False)


COLUMNS = [
    Column("p_T", "GeV"),
    Column("n", "", "discrete", 0),
    Column("phi", "rad", "periodic", -np.pi, np.pi),
    Column("sigma", "cm^2/GeV", "bounded", 0.0),
    Column("constant $x_{"),
    Column("面 <&>"),
]


def mixed(rng, n):
    return np.column_stack(
        [
            rng.lognormal(0, 2, n),
            rng.poisson(2.0, n),
            rng.uniform(-np.pi, np.pi, n),
            1e-39 * rng.exponential(1.0, n),
            np.full(n, 5.0),
            rng.normal(size=n),
        ]
    )


@pytest.mark.parametrize("n", [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 200))])
def test_all_kinds_of_columns_and_tiny_samples(rng, draw, n):
    truth = as_table(mixed(rng, n), COLUMNS)
    draw(spectra(truth, mixed(rng, 50)), pdf=n == 200)
    draw(corner(truth, mixed(rng, 50)), pdf=n == 200)


def test_edges_follow_the_column(rng):
    x = mixed(rng, 1000)
    edges = [choose_edges(column, x[:, i]) for i, column in enumerate(COLUMNS)]
    assert edges[0].log
    assert edges[1].values[0] == -0.5
    assert (edges[2].values[0], edges[2].values[-1]) == (-np.pi, np.pi)
    assert edges[3].values[0] == 0.0
    assert edges[4].values[0] < 5.0 < edges[4].values[-1]


def test_pulls_between_samples_of_the_same_truth_are_standard_normal(rng):
    pulls = []
    for _ in range(50):
        truth, model = (
            as_table(rng.normal(size=300)),
            as_table(rng.normal(size=1500), weight=rng.uniform(0.5, 1.5, 1500)),
        )
        found = compare_binned(truth, model, 0, choose_edges(Column("x"), truth.values[:, 0]))
        pulls.append(found.pulls[np.isfinite(found.pulls)])
    values = np.concatenate(pulls)
    assert abs(values.mean()) < 0.15
    assert 0.88 < values.std() < 1.12


def test_weights_count_as_repeated_events(rng):
    x, w = rng.normal(size=(100, 1)), rng.integers(1, 4, 100)
    model = as_table(rng.normal(size=(50, 1)))
    edges = choose_edges(Column("x"), x[:, 0])
    weighted = compare_binned(as_table(x, weight=w), model, 0, edges)
    repeated = compare_binned(as_table(np.repeat(x, w, axis=0)), model, 0, edges)
    np.testing.assert_allclose(weighted.truth, repeated.truth)
    np.testing.assert_allclose(weighted.model, repeated.model)


def test_events_outside_are_counted(rng):
    edges = choose_edges(Column("x"), np.linspace(0, 1, 100))
    found = compare_binned(as_table(np.linspace(0, 1, 100)), as_table(np.linspace(0, 4, 100)), 0, edges)
    assert found.model.sum() + sum(found.outside_model) == pytest.approx(100)
    assert found.outside_model[1] > 60


def test_negative_weights_draw(rng, draw):
    weight = rng.choice([1.0, 1.0, 1.0, -0.5], 300)
    truth = as_table(rng.normal(size=(300, 2)), weight=weight)
    for figure in (spectra, corner, correlation):
        draw(figure(truth, rng.normal(size=(300, 2))), pdf=False)


@pytest.mark.parametrize("figure", [spectra, corner, correlation])
def test_bad_data_are_refused_by_name(figure, rng):
    x = rng.normal(size=(50, 2))
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="row 3, column 'x1'"):
        figure(bad, x)
    with pytest.raises(NonFiniteError):
        figure(x, bad)
    with pytest.raises(ShapeError, match="2 columns"):
        figure(x, x[:, :1])
    with pytest.raises(DataError, match="at least one event"):
        figure(x[:0], x)
    with pytest.raises(ColumnError, match="'nope'"):
        figure(x, x, ["nope"])


def test_corner_limits(rng, draw):
    x = rng.normal(size=(200, 7))
    with pytest.raises(ColumnError, match="at most 6"):
        corner(x, x)
    draw(corner(x, x, [0]), pdf=False)
    assert len(corner(x, x, [0, 3, 5]).axes) == 6


def test_correlation_errors_are_those_of_repeated_samples(rng):
    from pofx.report.correlation import correlation_errors

    def sample():
        x = rng.exponential(size=(400, 2))
        x[:, 1] += x[:, 0]
        return correlation_errors(as_table(x))

    found = [sample() for _ in range(200)]
    spread = np.std([rho[0, 1] for rho, _ in found])
    assert spread == pytest.approx(np.mean([error[0, 1] for _, error in found]), rel=0.2)


def test_correlation_leaves_constants_out(rng, draw):
    x = rng.normal(size=(100, 4))
    x[:, 2] = 7.0
    figure = correlation(x, x)
    assert len(figure.axes[0].get_xticks()) == 3
    draw(figure)
    with pytest.raises(DataError, match="at least two columns"):
        correlation(x[:, :1], x[:, :1])
    with pytest.raises(DataError, match="four events"):
        correlation(x[:3], x)


def test_bin_spectrum(rng, draw):
    mean = 1e-39 * np.geomspace(1, 1e-3, 12)
    toys = mean * rng.lognormal(0, 0.3, (200, 12))
    figure = bin_spectrum(
        mean, 0.1 * mean, toys, as_table(toys, weight=rng.uniform(size=200)), unit="cm^2", groups=[("a", 5), ("b $", 7)]
    )
    assert figure.axes[0].get_yscale() == "log"
    assert "10^{-39}" in figure.axes[0].get_ylabel()
    draw(figure)
    draw(bin_spectrum([1.0], [0.1]), pdf=False)
    draw(bin_spectrum([0.0, -1.0], [0.1, 0.2], rng.normal(size=(50, 2))), pdf=False)


def test_bin_spectrum_refuses(rng):
    with pytest.raises(ShapeError, match="as many errors"):
        bin_spectrum([1.0, 2.0], [0.1])
    with pytest.raises(ShapeError, match="2 bins"):
        bin_spectrum([1.0, 2.0], [0.1, 0.1], rng.normal(size=(5, 3)))
    with pytest.raises(NonFiniteError, match="bin 1"):
        bin_spectrum([1.0, np.nan], [0.1, 0.1])


def test_training_curves(draw):
    figure = training_curves({"history": [*epochs("one", 3), *epochs("two", 30)], "best_step": 20})
    assert len(figure.axes) == 4
    draw(figure)
    draw(training_curves({"history": epochs("one", 1), "best_step": None}), pdf=False)
    history = epochs("one", 4, validation_loss=None, validation_error=None, learning_rate=None)
    draw(training_curves({"history": history}), pdf=False)
    with pytest.raises(DataError, match="at least one epoch"):
        training_curves({"history": []})


def test_log_density(rng, draw):
    logp = rng.normal(size=100)
    assert len(log_density(logp, logp).axes) == 1
    figure = log_density(np.append(logp, -np.inf), logp, np.append(logp + 0.5, 0.0))
    assert "0.500 ± 0.000" in figure.axes[2].get_title(loc="left")
    assert "−∞ for 1 held out" in figure.axes[0].get_title(loc="left")
    draw(figure)
    draw(log_density(np.ones(1), np.ones(1), np.ones(1)), pdf=False)
    with pytest.raises(NonFiniteError, match="truth_logp"):
        log_density(np.array([np.nan]), logp)
    with pytest.raises(ShapeError, match="as many exact values"):
        log_density(logp, logp, logp[:3])
    with pytest.raises(DataError, match="at least one finite"):
        log_density(np.array([-np.inf]), logp)


def test_nothing_is_changed_globally_and_nothing_stays_open(rng, draw):
    before = dict(mpl.rcParams)
    draw(spectra(rng.normal(size=(50, 1)), rng.normal(size=(50, 1))))
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_the_same_figure_gives_the_same_bytes(rng):
    x = rng.normal(size=(100, 1))
    first, second = (Figures().add("f", spectra(x, x)) for _ in range(2))
    assert first == second


def test_figures_have_names_of_their_own(tmp_path):
    with style():
        from matplotlib.figure import Figure

        figures = Figures()
        names = [figures.add(name, Figure()).name for name in ("A/../b", "a b", "面")]
    assert names == ["a-b", "a-b-2", "figure"]
    assert sorted(path.name for path in figures.write(tmp_path / "out") if path.suffix == ".pdf") == [
        "a-b-2.pdf",
        "a-b.pdf",
        "figure.pdf",
    ]


def test_labels():
    assert scaled(Column("E", "GeV"), [3.0]).label == "E [GeV]"
    assert scaled(Column("x"), [0.0]).exponent == 0
    assert scaled(Column("x"), [2e7])([2e7]) == pytest.approx([2.0])
    assert escaped("a $x_{ b$") == r"a \$x_{ b\$"
    assert escaped("$p_T$") == "$p_T$"
    assert len(shortened("x" * 100)) == 32
