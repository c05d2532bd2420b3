"""Invertible maps with log-Jacobians: preprocessing and flow layers are the same thing."""

from pofx.bijections.base import Bijection, Chain, Inverse
from pofx.bijections.elementwise import Affine, Dequantise, Log, Logit, PerColumn, Periodic, Standardise
from pofx.bijections.fields import FieldStandardise
from pofx.bijections.fitted import Fitted, weighted_moments
from pofx.bijections.linear import LU, Permutation, Whitening
from pofx.bijections.marginal import Gaussianise, weighted_quantiles
from pofx.bijections.preprocessing import (
    Method,
    Preprocessing,
    build_preprocessing,
    periodic_columns,
    preprocessing_config,
    preprocessing_from_config,
)

__all__ = [
    "LU",
    "Affine",
    "Bijection",
    "Chain",
    "Dequantise",
    "FieldStandardise",
    "Fitted",
    "Gaussianise",
    "Inverse",
    "Log",
    "Logit",
    "Method",
    "PerColumn",
    "Periodic",
    "Permutation",
    "Preprocessing",
    "Standardise",
    "Whitening",
    "build_preprocessing",
    "periodic_columns",
    "preprocessing_config",
    "preprocessing_from_config",
    "weighted_moments",
    "weighted_quantiles",
]
