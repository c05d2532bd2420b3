r"""Variational autoencoder: events from a standard normal latent vector and a decoder with noise (arXiv:1312.6114).

.. math:: p(x|c) = \int p(x | z, c)\, N(z; 0, 1)\, dz, \qquad q(z | x, c) = N\bigl(m(x, c), s(x, c)\bigr)

The encoder q is learnt with the decoder, by the bound in :mod:`pofx.models.variational`. The width of the decoder's noise is learnt too
(arXiv:2006.13202), so that the bound is one on the density of events, not on blurred ones: samples have the noise added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from pofx.models.base import Layout
from pofx.models.variational import VariationalBody, VariationalFamily, at_beta

__all__ = ["VAE", "at_beta"]


@dataclass(frozen=True)
class VAE(VariationalFamily):
    """Gaussian encoder, decoder with learnt noise; vectors, grids and clouds, density by an importance-weighted bound.

    ``pofx.models.vae.at_beta`` gives another compression of a model whose ``beta`` is an input.

    >>> import numpy as np, pofx
    >>> x = np.random.default_rng(1).normal(size=(500, 2))
    >>> model = VAE(latent=3).fit(x, training=pofx.Training(max_steps=5, seed=1))
    >>> model.sample(3, seed=1).shape, model.density
    ((3, 2), 'bound')
    """

    name: ClassVar[str] = "vae"

    def build(self, layout: Layout) -> nn.Module:
        latent = self.latent_columns(layout)
        return VariationalBody(layout, self, outputs=2 * latent, inputs=latent, times=self.times)
