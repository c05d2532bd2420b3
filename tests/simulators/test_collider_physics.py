"""Physics truths of collider events: peaks, balance, substructure, weights; and that they can be repeated."""

from __future__ import annotations

import math
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from running_collider import SmallDilepton, SmallJets, SmallLeptonJets, SmallSignal

import pofx
from pofx.data.events import Events
from pofx.data.options import ReadOptions
from pofx.errors import ConfigError, MissingExtraError
from pofx.simulators import (
    Beams,
    JetNetJets,
    LHCOBackground,
    LHCOSignal,
    MultiJets,
    QCDDijets,
    TopDilepton,
    TopLeptonJets,
    ZJets,
)
from pofx.simulators.base import simulator_class, simulator_names
from pofx.simulators.collider import base
from pofx.simulators.collider.generator import phase_space
from pofx.simulators.collider.particles import NEUTRINOS, decay_products

QUIET = Beams(mpi=False)
ALL = (QCDDijets, LHCOSignal, LHCOBackground, TopDilepton, TopLeptonJets, ZJets, JetNetJets, MultiJets)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def centred(values: np.ndarray, truth: float, tolerance: float) -> None:
    """The median, with its error from the quartiles, within four errors and a tolerance."""
    error = 1.25 * np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.35 / math.sqrt(len(values))
    assert abs(np.median(values) - truth) < 4 * error + tolerance


@pytest.fixture(scope="module")
def signal() -> Events:
    return LHCOSignal(constituents=True).generate(60, rng())


def test_signal_peaks(signal: Events) -> None:
    """W' and the lighter jet of Y; the heavier of X. Jets lose a few per cent to gluons outside of them."""
    mjj, light, more, *_ = signal.fields["dijet"].T
    centred(mjj[mjj > 3.0], 3.5, 0.05)
    centred(light, 0.1, 0.01)
    centred((light + more)[light + more > 0.4], 0.5, 0.02)
    assert np.all(signal.context.fields["label"] == 1)
    assert signal.weight is None


def test_signal_substructure(signal: Events) -> None:
    """tau21 is a part of one, and constituents make up the mass of their jet."""
    tau21 = signal.fields["dijet"][:, 3:]
    assert tau21.min() >= 0
    assert tau21.max() <= 1
    masses = signal.fields["dijet"][:, 1], signal.fields["dijet"][:, 1] + signal.fields["dijet"][:, 2]
    for name, mass in zip(("constituents_j1", "constituents_j2"), masses, strict=True):
        whole = ~signal.masks[name].all(1)  # of more than 128 some are cut off
        eta, phi, pt = np.moveaxis(signal.fields[name][whole], -1, 0)
        e, x, y, z = (np.sum(pt * part, 1) for part in (np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta)))
        np.testing.assert_allclose(np.sqrt(e**2 - x**2 - y**2 - z**2) / 1e3, mass[whole], rtol=1e-6)
        assert np.all(np.diff(pt, axis=1) <= 0)


@pytest.fixture(scope="module")
def tops() -> ak.Array:
    """Pythia's record of 40 dilepton events."""
    return next(QUIET.batches(TopDilepton().process(), rng(2), iter([40]))).particles


def test_momentum_balance(tops: ak.Array) -> None:
    """All that is stable has the beams' energy and no momentum."""
    final = tops[tops.status > 0].p
    for part, wanted in ((final.px, 0.0), (final.py, 0.0), (final.pz, 0.0), (final.e, 13000.0)):
        np.testing.assert_allclose(ak.sum(part, axis=1), wanted, atol=0.02)


def test_top_and_w_peaks(tops: ak.Array) -> None:
    """Two neutrinos an event; with the lepton of the W each has the W's mass; the record's tops have theirs."""
    neutrinos = decay_products(tops, (24,), NEUTRINOS)
    leptons = decay_products(tops, (24,), (11, 13))
    assert ak.all(ak.num(neutrinos) == 2)
    for sign in (1, -1):
        both = neutrinos[sign * neutrinos.id > 0][:, 0] + leptons[sign * leptons.id < 0][:, 0]
        centred(ak.to_numpy(both.mass), 80.4, 1.0)
    centred(ak.to_numpy(ak.flatten(tops.m[(abs(tops.id) == 6) & (tops.status == -62)])), 172.5, 1.0)


@pytest.mark.parametrize(
    ("simulator", "format"),
    [
        (SmallDilepton(), "nu2-flows"),
        (SmallLeptonJets(), "nu-flows"),
        (SmallJets(jet="t"), "jetnet"),
        (SmallSignal(), "lhco-dijets"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_public_formats(simulator: TopDilepton, format: str, tmp_path: Path) -> None:
    """What is made is written as others read it, recognised and read again."""
    data = simulator(simulator.block, seed=3)
    made = data.arrays()
    name = tmp_path / f"events.{'npz' if format == 'lhco-dijets' else 'h5'}"
    pofx.write(name, data, format=format)
    back = pofx.read(name, options=ReadOptions(format=format)).arrays()
    for one, two in ((made, back), (made.context, back.context)):
        for field, values in one.fields.items():
            np.testing.assert_allclose(two.fields[field], values, rtol=1e-5, atol=1e-6)
        for field, mask in one.masks.items():
            np.testing.assert_array_equal(two.masks[field], mask)
    if "neutrinos" in made.fields:
        _tops_make_sense(made, simulator)


def _tops_make_sense(made: Events, simulator: TopDilepton) -> None:
    """Missing momentum is about that of the neutrinos; leptons and jets pass the cuts; tags are among the jets."""
    context = made.context.fields
    pt, phi = made.fields["neutrinos"][:, ::3], made.fields["neutrinos"][:, 2::3]
    met, angle = context["met"].T
    apart = np.hypot(met * np.cos(angle) - (pt * np.cos(phi)).sum(1), met * np.sin(angle) - (pt * np.sin(phi)).sum(1))
    assert np.median(apart) < 30
    assert np.all(context["leptons"][:, ::5] > simulator.lepton_pt)
    mask, jets = made.context.masks["jets"], context["jets"]
    np.testing.assert_array_equal(mask.sum(1), context["misc"][:, 0])
    np.testing.assert_array_equal(jets[..., 4].sum(1), context["misc"][:, 1])
    assert np.all(jets[mask][:, 0] > simulator.jet_pt)
    assert 0.25 < jets[..., 4].sum() / (2 * len(made)) < 0.9


def test_z_jets() -> None:
    """Soft drop's z is above its cut or there was no splitting; what is seen follows what was made."""
    made = ZJets().generate(50, rng(4))
    gen, sim = made.fields["gen"], made.context.fields["sim"]
    for x in (gen, sim):
        assert np.all((x[:, 4] == 0) | ((x[:, 4] >= 0.1) & (x[:, 4] <= 0.5)))
        assert np.all((x[:, 5] >= 0) & (x[:, 5] <= 1.2))
        assert np.all(x[:, 2] > 0)
    for column in (0, 1, 2):
        assert np.corrcoef(gen[:, column], sim[:, column])[0, 1] > 0.5


def test_gluon_quark_and_top_jets() -> None:
    """Quarks make fewer particles and less mass than gluons; a top jet has the top's mass."""
    made = {kind: JetNetJets(beams=QUIET, jet=kind).generate(50, rng(5)) for kind in "gqt"}
    pt, _, mass, count = np.moveaxis(np.stack([made[kind].context.fields["jet"] for kind in "gqt"]), -1, 0)
    assert np.all((pt > 800) & (pt < 1600))
    middle = {kind: (np.median(mass[i]), np.median(count[i])) for i, kind in enumerate("gqt")}
    assert middle["q"][0] < middle["g"][0] < middle["t"][0]
    assert middle["q"][1] < middle["g"][1]
    assert 160 < middle["t"][0] < 200
    for events in made.values():
        mask, points = events.masks["particles"], events.fields["particles"]
        np.testing.assert_array_equal(mask.sum(1), np.minimum(events.context.fields["jet"][:, 3], 30))
        assert np.all(np.hypot(points[..., 0], points[..., 1]) < 1.3)
        assert np.all(points[..., 2].sum(1) < 1.2)
        assert np.all(points[~mask] == 0)


def test_biased_phase_space_gives_back_the_spectrum() -> None:
    """Hard partons alone: weights are the stated power, and weighted counts agree with natural ones, bin by bin."""
    low, parton = 200.0, ("HardQCD:all = on", "PartonLevel:ISR = off", "PartonLevel:FSR = off", "HadronLevel:all = off")
    spectra = []
    for bias in (0.0, 4.0):
        batch = next(QUIET.batches((*parton, *phase_space(low, bias=bias)), rng(6), iter([2000])))
        momentum = batch.particles.p[abs(batch.particles.status) == 23]
        pt = ak.to_numpy(np.hypot(momentum.px, momentum.py)[:, 0])
        np.testing.assert_allclose(batch.weight, (low / pt) ** bias, rtol=1e-3)
        where = np.digitize(pt, [220, 250, 300, 400])
        share = np.bincount(where, batch.weight, 5) / batch.weight.sum()
        spectra.append((share, np.sqrt(np.bincount(where, batch.weight**2, 5)) / batch.weight.sum()))
    (one, error), (two, other) = spectra
    pulls = (one - two) / np.hypot(error, other)
    assert np.all(np.abs(pulls) < 4)
    assert other[-1] / two[-1] < 0.7 * error[-1] / one[-1]  # which is what the bias is for


@pytest.mark.parametrize(
    "simulator", [QCDDijets(beams=QUIET), MultiJets(beams=QUIET), LHCOBackground()], ids=lambda s: s.name
)
def test_weighted_events(simulator: QCDDijets | MultiJets | LHCOBackground) -> None:
    """Weights between zero and one; cuts hold."""
    made = simulator.generate(10, rng(7))
    assert np.all((made.weight > 0) & (made.weight <= 1))
    x = next(iter(made.fields.values()))
    assert np.isfinite(x).all()
    if isinstance(simulator, MultiJets):
        assert np.all(x[:, 0] >= simulator.jets)
        assert np.all(x[:, 2] > simulator.lead_pt)
        assert np.all(x[:, 1] >= x[:, 2:6].sum(1) - 1e-9)
        assert np.all(np.diff(x[:, 2:6], axis=1) <= 0)
    elif isinstance(simulator, QCDDijets):
        assert np.all(x[:, 0] > simulator.pt_min)
        assert np.all(x[:, 0] >= x[:, 4])
        apart = np.abs(np.angle(np.exp(1j * (x[:, 2] - x[:, 6]))))
        assert np.median(apart) > 2.8
    else:
        assert np.all((x[:, 0] > 1.2) & (x[:, 2] >= 0))


def test_a_block_depends_on_nothing_but_its_number() -> None:
    """Nor on what was made before it; so the number of workers cannot matter."""
    small = SmallSignal()
    again = [small.block_events(2, block).x for block in (1, 0, 1)]
    np.testing.assert_array_equal(again[0], again[2])
    assert len(np.unique(np.concatenate(again[:2])[:, 0])) == 10


def test_batches_of_which_nothing_passes() -> None:
    """Small batches often are; the arrays are empty and of the right shape."""
    batch = next(QUIET.batches(("SoftQCD:nonDiffractive = on",), rng(8), iter([2])))
    for kind in ALL:
        made = kind().select(batch, rng())
        for spec, part in ((kind().spec(), made), (kind().context_spec(), made.context)):
            for name, field in (spec or {}).items():
                assert part.fields[name].shape == (0, *field.shape)


@pytest.mark.slow
def test_workers_do_not_matter() -> None:
    one, two = (SmallSignal()(9, seed=2, workers=workers).arrays() for workers in (1, 2))
    np.testing.assert_array_equal(one.x, two.x)


@pytest.mark.parametrize("kind", ALL)
def test_registered_and_described(kind: type[QCDDijets]) -> None:
    """A name, a spec, a card, without any generator."""
    assert kind.name in simulator_names()
    assert simulator_class(kind.name) is kind
    assert kind().spec()
    assert set(kind().versions()) == {"pythia8mc", "fastjet"}


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (
        lambda: Beams(shower="dire"),
        lambda: JetNetJets(jet="b"),
        lambda: LHCOSignal(mass=500.0),
        lambda: MultiJets(jets=0),
    ):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(ConfigError, match="HardQCD:nothing"):
        next(QUIET.batches(("HardQCD:nothing = on",), rng(), iter([1])))
    monkeypatch.setattr(base, "TRIES", 20)
    with pytest.raises(ConfigError, match="none of"):
        QCDDijets(beams=QUIET, pt_min=5000.0).generate(20, rng())
    monkeypatch.setattr(QCDDijets, "modules", ("pythia8mc_that_is_not_there",))
    with pytest.raises(MissingExtraError, match="pip install"):
        QCDDijets().generate(1, rng())
