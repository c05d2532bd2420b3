"""The recommended settings of every family for the toys of `pofx.simulators`, one entry per row of the acceptance table.

50 000 events, at most about a minute of training on one thread. A setting may be changed for a kind of field, and for a set by name:
`SETTINGS["flow-matching"].of("grid-field", "grid")` is the family and the training of that set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pofx
from pofx.models.autoencoder import DecoderSettings
from pofx.models.base import Family
from pofx.networks import CausalTransformer, EPiC, GridGenerator, ResidualMLP, UNet, VectorGenerator
from pofx.training.settings import Training

__all__ = ["SETTINGS", "Changes", "Setting", "steps"]

Class = Literal["exact", "student", "gan", "other"]
"""What bar holds on the ten shapes: flows, flow matching, EDM and the transformer; students of one or two steps; GANs; none."""


@dataclass(frozen=True)
class Changes:
    """Fields of the family and of the training that are different for a kind of field or for a set."""

    family: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """A family and how it is trained.

    Attributes
    ----------
    family, training : for vectors, unless `changes` says otherwise.
    teacher : the name of another setting, whose model is the teacher.
    bar : the class of families that decides the bar.
    density_events : fresh events whose density is compared with the truth's; fewer where one is dear.
    changes : by kind of field (`"grid"`, `"cloud"`) or by name of a set; the set comes last.
    """

    family: Family
    training: Training
    teacher: str | None = None
    bar: Class = "other"
    density_events: int = 2000
    changes: Mapping[str, Changes] = field(default_factory=dict)

    def of(self, name: str, kind: str = "vector") -> tuple[Family, Training]:
        """Family and training for a set of this name and kind of field."""
        family, training = self.family, self.training
        for key in (kind, name):
            change = self.changes.get(key, Changes())
            family, training = replace(family, **change.family), training.replace(**change.training)
        return family, training


def steps(number: int, learning_rate: float = 2e-3, batch_size: int = 512, **changes: Any) -> Training:
    """Training by a number of steps, on the CPU, with seed 1."""
    made = Training(
        max_epochs=None,
        max_steps=number,
        learning_rate=learning_rate,
        batch_size=batch_size,
        ema=0.995,
        seed=1,
        device="cpu",
        progress=False,
    )
    return made.replace(**changes)


NETWORK = ResidualMLP(width=128, layers=3, waves=32)
GRIDS = Changes({"network": UNet(channels=(16, 32), embedding=32)}, {"max_steps": 800, "batch_size": 64})
CLOUDS = Changes({"network": EPiC(width=64, layers=3)}, {"max_steps": 1500, "batch_size": 128})
FIELDS = {"grid": GRIDS, "cloud": CLOUDS}
"""Of families whose only network is called `network`."""

ADVERSARY = ResidualMLP(width=128, layers=2, activation="leaky_relu")
"""A critic of many columns, which has no use for waves of random direction."""

LONG = Changes(
    {"network": CausalTransformer(width=48, layers=2), "components": 8}, {"max_steps": 500, "batch_size": 128}
)
"""Of the transformer on events of many columns."""

CODER: dict[str, Any] = {
    "encoder": ResidualMLP(width=128, layers=2),
    "decoder": DecoderSettings(network=VectorGenerator(ResidualMLP(width=128, layers=2))),
}
CODERS = {
    "grid": Changes(
        {"encoder": UNet(channels=(16, 32), embedding=32), "decoder": DecoderSettings()},
        {"max_steps": 1000, "batch_size": 64},
    ),
    "cloud": Changes({"encoder": None, "decoder": DecoderSettings()}, {"max_steps": 1000, "batch_size": 128}),
}
"""Of variational and probabilistic autoencoders."""


def codes(shell: int, mixture: int, copula: int) -> dict[str, Changes]:
    """Columns of the latent vector on the toys of many columns, which leave none out."""
    return {
        name: Changes({"latent": latent})
        for name, latent in {"shell": shell, "mixture-20": mixture, "copula-50": copula}.items()
    }


LATTICE = {"twenty-five-gaussians": Changes({"layers": 5})}
"""Of spline flows: 24 valleys between modes take more layers than edges do."""

SETTINGS: dict[str, Setting] = {
    "gaussian": Setting(pofx.Gaussian(), steps(1)),
    "gaussian-mixture": Setting(
        pofx.GaussianMixture(components=32), steps(1), changes={"copula-50": Changes({"components": 8})}
    ),
    "gaussian-copula": Setting(pofx.GaussianCopula(), steps(1)),
    "coupling-flow": Setting(pofx.CouplingFlow(layers=6, hidden=(64, 64), bins=16), steps(1500), bar="exact"),
    "autoregressive-flow": Setting(
        pofx.AutoregressiveFlow(layers=4, hidden=(64, 64), element="spline", bins=16), steps(1500), bar="exact"
    ),
    "spline-flow": Setting(
        pofx.SplineFlow(layers=3, hidden=(64, 64), bins=16), steps(1500), bar="exact", changes=LATTICE
    ),
    "hybrid-flow": Setting(
        pofx.HybridFlow(layers=3, hidden=(64, 64), bins=16), steps(2000), bar="exact", changes=LATTICE
    ),
    "energy-based-model": Setting(
        pofx.EnergyBasedModel(network=ResidualMLP(width=128, layers=2), levels=30),
        steps(1200, learning_rate=3e-3, validate_every=4),
        changes={
            "grid": Changes(
                {
                    "network": UNet(channels=(16, 32), embedding=32),
                    "smallest": 0.05,
                    "levels": 10,
                    "leapfrogs": 2,
                    "chains": 64,
                },
                {"max_steps": 300, "batch_size": 64},
            ),
            "cloud": Changes(
                {"network": EPiC(width=64, layers=2), "smallest": 0.05, "levels": 10, "leapfrogs": 2},
                {"max_steps": 1000, "batch_size": 128},
            ),
        },
    ),
    "rbm": Setting(
        pofx.RBM(hidden=12, sweeps=2),
        steps(2000, learning_rate=1e-2, validate_every=10),
        changes={name: Changes({"hidden": 128}) for name in ("mixture-20", "copula-50")},
    ),
    "flow-matching": Setting(pofx.FlowMatching(network=NETWORK), steps(2000), bar="exact", changes=FIELDS),
    "edm": Setting(pofx.EDM(network=NETWORK), steps(2000), bar="exact", changes=FIELDS),
    "score-sde": Setting(pofx.ScoreSDE(network=NETWORK), steps(2000), changes=FIELDS),
    "ddpm": Setting(pofx.DDPM(network=NETWORK), steps(2000), changes=FIELDS),
    "continuous-flow": Setting(
        pofx.ContinuousFlow(network=NETWORK),
        steps(2000).replace(max_steps={"flow-matching": 2000, "likelihood": 30}),
        bar="exact",
        changes={"copula-50": Changes({}, {"max_steps": {"flow-matching": 2000, "likelihood": 5}})},
    ),
    "autoregressive-transformer": Setting(
        pofx.AutoregressiveTransformer(network=CausalTransformer(layers=2)),
        steps(1500),
        bar="exact",
        changes={
            "mixture-20": Changes(LONG.family, {"max_steps": 2000, "batch_size": 256}),
            "copula-50": LONG,
        },
    ),
    "mixture-density-network": Setting(
        pofx.MixtureDensityNetwork(components=32),
        steps(1500, learning_rate=5e-3),
        changes={"copula-50": Changes({"components": 8}, {"max_steps": 700})},
    ),
    "gan": Setting(
        pofx.GAN(
            generator=VectorGenerator(ResidualMLP(width=128, layers=3, activation="leaky_relu")),
            critic=ResidualMLP(width=128, layers=2, activation="leaky_relu", waves=32),
            latent=2,
            strength=0.1,
        ),
        steps(2000, batch_size=1024),
        bar="gan",
        changes={
            "grid": Changes(
                {
                    "generator": GridGenerator(channels=(16, 32)),
                    "critic": UNet(channels=(16, 32), embedding=32),
                    "latent": 256,
                },
                {"max_steps": 500, "batch_size": 64, "learning_rate": 1e-3},
            ),
            "cloud": Changes(
                {"generator": None, "critic": EPiC(width=64, layers=3), "latent": 8},
                {"max_steps": 1500, "batch_size": 128, "learning_rate": 1e-3},
            ),
            "shell": Changes({"critic": ADVERSARY, "latent": 5}),
            "mixture-20": Changes({"critic": ADVERSARY, "latent": 20}),
            "copula-50": Changes({"critic": ADVERSARY, "latent": 50}),
        },
    ),
    "inverse-autoregressive-flow": Setting(
        pofx.InverseAutoregressiveFlow(layers=5, hidden=(64, 64), bins=16),
        steps(1500, learning_rate=5e-3).replace(max_steps={"maps": 900, "likelihood": 450}),
        teacher="spline-flow",
        bar="student",
        changes={
            "mixture-20": Changes({"layers": 3}),
            "copula-50": Changes({"layers": 3}, {"max_steps": {"maps": 550, "likelihood": 300}}),
        },
    ),
    "consistency": Setting(
        pofx.Consistency(network=NETWORK), steps(2000), teacher="flow-matching", bar="student", changes=FIELDS
    ),
    "consistency-training": Setting(
        pofx.ConsistencyTraining(network=NETWORK, steps=2),
        steps(2000).replace(max_steps={"velocity": 2000, "training": 3000}),
        bar="student",
        changes=FIELDS,
    ),
    "progressive-distillation": Setting(
        pofx.ProgressiveDistillation(network=NETWORK),
        steps(700),
        teacher="flow-matching",
        bar="student",
        changes={**FIELDS, "grid-field": Changes({}, {"max_steps": 450})},
    ),
    "mean-flow": Setting(
        pofx.MeanFlow(network=NETWORK, steps=2, step=1 / 8, target_decay=0.9),
        steps(2000).replace(max_steps={"velocity": 2500, "mean-flow": 4500}),
        bar="student",
        changes=FIELDS,
    ),
    "shortcut": Setting(
        pofx.Shortcut(network=NETWORK, finest=128, steps=2, target_decay=0.9),
        steps(2000).replace(max_steps={"velocity": 2000, "shortcut": 7000}),
        bar="student",
        changes=FIELDS,
    ),
    "vae": Setting(pofx.VAE(warm_up=300, **CODER), steps(1800), changes={**CODERS, **codes(5, 20, 50)}),
    "hierarchical-vae": Setting(
        pofx.HierarchicalVAE(levels=2, warm_up=400, **CODER), steps(1500), changes={**CODERS, **codes(3, 10, 25)}
    ),
    "probabilistic-autoencoder": Setting(
        pofx.ProbabilisticAutoencoder(flow=pofx.SplineFlow(hidden=(64, 64)), **CODER),
        steps(900),
        changes={**CODERS, **codes(5, 20, 50)},
    ),
    "vq-vae": Setting(
        pofx.VQVAE(**CODER),
        steps(1000).replace(max_steps={"autoencoder": 1000, "prior": 400}),
        changes={
            "grid": Changes({"encoder": None, "decoder": DecoderSettings()}, {"max_steps": 1000, "batch_size": 128}),
            "cloud": Changes({"encoder": None, "decoder": DecoderSettings()}, {"max_steps": 1000, "batch_size": 128}),
            **{name: Changes({}, {"max_steps": 1000}) for name in ("shell", "mixture-20", "copula-50")},
        },
    ),
    "bib-ae": Setting(
        pofx.BIBAE(latent=2),
        steps(1000, learning_rate=1e-3, batch_size=256),
        changes={
            "grid": Changes(
                {"latent": None}, {"max_steps": {"autoencoder": 350, "post-processor": 150}, "batch_size": 64}
            ),
            **codes(5, 20, 50),
        },
    ),
}
