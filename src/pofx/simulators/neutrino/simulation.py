r"""The simulated sample, and its reweighting: the response of the detector for any values of the parameters.

Events are generated once, at nominal values; :mod:`~pofx.simulators.neutrino.reweighting` says what other values do to their weights.
Nothing is interpolated, and no weight is approximate. Pauli-blocked events are kept with weight zero until kappa frees them.

Few-event bins would be poorly simulated by unweighted events, and full ones needlessly well. So each true bin keeps at most
``events / bins`` of those that were generated, and its weights are such that its nominal sum is the rate of the closed form
(:mod:`~pofx.simulators.neutrino.prediction`): stratified sampling with known shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pofx.errors import ConfigError
from pofx.simulators.neutrino import background as pions
from pofx.simulators.neutrino import detector
from pofx.simulators.neutrino.binning import Binning
from pofx.simulators.neutrino.events import Background, Signal, generate_background, generate_signal
from pofx.simulators.neutrino.extraction import Response
from pofx.simulators.neutrino.nucleus import FERMI_MOMENTUM
from pofx.simulators.neutrino.parameters import NOMINAL, Parameters
from pofx.simulators.neutrino.prediction import flux_averaged
from pofx.simulators.neutrino.reweighting import FluxTerms, Muons, Structure

__all__ = ["Simulation", "simulate"]

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

GENERATED = 12
"""Events generated per event kept, so that bins with few events are filled."""
LEAST = 5_000
"""As many are generated at least as for so many events."""
PIONS = 4
"""One background event for so many signal events."""
SOFT = 0.75
"""Events whose ejected nucleon is below this share of p_F are dropped: kappa is 8 sigma above."""


@dataclass(frozen=True)
class Sample:
    """Events in order of their true bin; ``base`` is the nominal weight over all factors that parameters change."""

    binning: Binning
    true: Integers
    base: Array
    flux: FluxTerms
    muons: Muons

    @cached_property
    def nominal_efficiency(self) -> Array:
        return self.muons.efficiency(NOMINAL)

    @cached_property
    def nominal_measured(self) -> Integers:
        return self.muons.measured(NOMINAL, self.binning)

    def efficiency(self, values: Parameters) -> Array:
        same = _same(values, "efficiency", "efficiency_threshold", "efficiency_side")
        return self.nominal_efficiency if same else self.muons.efficiency(values)

    def measured(self, values: Parameters) -> Integers:
        same = _same(values, "momentum_scale", "momentum_resolution", "angular_resolution")
        return self.nominal_measured if same else self.muons.measured(values, self.binning)


@dataclass(frozen=True)
class SignalSample(Sample):
    """Quasi-elastic events: structure, ejected momentum in GeV, and depth of :func:`~pofx.simulators.neutrino.detector.proton_depth`."""

    structure: Structure
    nucleon: Array
    depth: Array

    @cached_property
    def nominal_weight(self) -> Array:
        return self.interaction(NOMINAL) * self.flux.shape(NOMINAL, NOMINAL.removal_energy)

    @cached_property
    def starts(self) -> Integers:
        """Where each true bin begins."""
        return np.searchsorted(self.true, np.arange(len(self.binning) + 1))

    def interaction(self, values: Parameters) -> Array:
        """What cross section and Pauli blocking make of each event, ``(n,)``, before the flux."""
        result = self.structure.value(values.axial_mass, values.enhancement)
        result *= self.base
        result *= self.nucleon > values.pauli * FERMI_MOMENTUM
        return result

    def weights(self, values: Parameters) -> tuple[Array, Array]:
        """Events that happen, and that would happen in the nominal flux, ``(n,)`` each."""
        flux = {name: getattr(NOMINAL, name) for name in ("flux_normalisation", "flux_peak", "flux_tail")}
        if _same(values, "axial_mass", "removal_energy", "enhancement", "pauli", *flux):
            return self.nominal_weight, self.nominal_weight
        interaction = self.interaction(values)
        reference = interaction * self.flux.shape(values._replace(**flux), values.removal_energy)
        if _same(values, *flux):
            return reference, reference
        return interaction * self.flux.shape(values, values.removal_energy), reference

    def counts(self, values: Parameters) -> tuple[Array, Array, Array]:
        """True events per bin, and those in the nominal flux, the last for muons outside all bins, ``(bins + 1,)`` each; selected
        events by true and measured bin."""
        weight, reference = self.weights(values)
        bins = len(self.binning)
        truth, nominal = (np.add.reduceat(w, self.starts) for w in (weight, reference))
        seen = weight * self.efficiency(values)
        seen *= np.exp(self.depth * -values.proton_reinteraction)
        cell = self.true * (bins + 1) + self.measured(values)
        selected = np.bincount(cell, seen, (bins + 1) ** 2).astype(np.float64, copy=False)
        return truth, nominal, selected.reshape(bins + 1, bins + 1)[:, :bins]


@dataclass(frozen=True)
class BackgroundSample(Sample):
    """Pion production: Q^2 in GeV^2, and depth of :func:`~pofx.simulators.neutrino.detector.pion_depth`."""

    q2: Array
    depth: Array

    def weight(self, values: Parameters) -> Array:
        result = self.flux.shape(values)
        result *= self.base
        result *= values.background_normalisation * pions.q2_density(self.q2, values.background_mass)
        result *= -np.expm1(self.depth * -values.pion_absorption)
        return result

    def counts(self, values: Parameters) -> Array:
        """Selected events per measured bin."""
        bins = len(self.binning)
        seen = self.weight(values) * self.efficiency(values)
        return np.bincount(self.measured(values), seen, bins + 1).astype(np.float64, copy=False)[:bins]


@dataclass(frozen=True)
class Simulation:
    """Signal and background; see :func:`simulate`."""

    signal: SignalSample
    background: BackgroundSample

    def response(self, values: Parameters = NOMINAL) -> Response:
        """What a measurement looks like if nature has these values."""
        truth, reference, selected = self.signal.counts(values)
        return Response(truth[:-1], reference[:-1], selected[:-1], selected[-1] + self.background.counts(values))


def simulate(binning: Binning, events: int, nucleons: float, seed: int) -> Simulation:
    """A sample of about ``events`` signal and a quarter as many background events.

    Parameters
    ----------
    binning : of the measurement.
    events : most signal events to keep; at least 20 per bin (ConfigError otherwise).
    nucleons : integrated nominal flux per cm^2 times nucleons in the target.
    seed : of the generators and the smearing.
    """
    if events < 20 * len(binning):
        raise ConfigError(f"expected at least {20 * len(binning)} events, 20 per bin; got {events}")
    signal_seed, background_seed, smearing = np.random.SeedSequence(seed).generate_state(3).tolist()
    rng = np.random.default_rng(smearing)
    generated = GENERATED * max(events, LEAST)
    signal, _ = generate_signal(generated, signal_seed)
    background, cross_section = generate_background(generated // PIONS, background_seed)
    return Simulation(
        _signal_sample(signal, binning, events, nucleons, rng),
        _background_sample(background, binning, events // PIONS, cross_section * nucleons, rng),
    )


def _signal_sample(
    generated: Signal, binning: Binning, events: int, nucleons: float, rng: np.random.Generator
) -> SignalSample:
    true = binning.find(generated.momentum, np.arccos(generated.cosine))
    free = generated.nucleon > FERMI_MOMENTUM
    kept, _ = _stratified(np.where(generated.nucleon > SOFT * FERMI_MOMENTUM, true, -1), len(binning), events)
    one = Signal(*(column[kept] for column in generated))
    found = np.bincount(true[kept], free[kept], len(binning) + 1)
    if not found.all():
        raise ConfigError(f"bin {int(np.argmin(found))} got no simulated events out of {len(true)}; raise `events`")
    rates = flux_averaged(binning.edges) * binning.areas * nucleons
    inside = np.bincount(true[free], minlength=len(binning) + 1)
    rates = np.append(rates, rates.sum() * inside[-1] / inside[:-1].sum())
    weight = (rates / found)[true[kept]]
    flux, structure = FluxTerms.of(one.energy), Structure.of(one.q2, one.x)
    weight /= flux.shape(NOMINAL, NOMINAL.removal_energy) * structure.value(NOMINAL.axial_mass, NOMINAL.enhancement)
    muons = Muons.of(one.momentum, one.cosine, rng)
    depth = detector.proton_depth(one.nucleon)
    return SignalSample(binning, true[kept], weight, flux, muons, structure, one.nucleon, depth)


def _background_sample(
    generated: Background, binning: Binning, events: int, rate: float, rng: np.random.Generator
) -> BackgroundSample:
    true = binning.find(generated.momentum, np.arccos(generated.cosine))
    kept, factor = _stratified(true, len(binning), events)
    one = Background(*(column[kept] for column in generated))
    weight = factor * (rate / len(true))
    flux, depth = FluxTerms.of(one.energy), detector.pion_depth(one.pion)
    weight /= flux.shape(NOMINAL) * pions.q2_density(one.q2)
    muons = Muons.of(one.momentum, one.cosine, rng)
    return BackgroundSample(binning, true[kept], weight, flux, muons, one.q2, depth)


def _stratified(true: Integers, bins: int, events: int) -> tuple[Integers, Array]:
    """The first ``events / bins`` events of each bin (outside included, negative ones not), and how many each stands for."""
    order = np.argsort(true, kind="stable")
    starts = np.searchsorted(true[order], np.arange(bins + 2))
    cap = events // (bins + 1)
    parts = [order[start : min(stop, start + cap)] for start, stop in pairwise(starts.tolist())]
    many = np.diff(starts)
    factor = np.concatenate([np.full(len(part), n / max(len(part), 1)) for part, n in zip(parts, many, strict=True)])
    return np.concatenate(parts), factor


def _same(values: Parameters, *names: str) -> bool:
    return all(getattr(values, name) == getattr(NOMINAL, name) for name in names)
