"""Invertible maps with log-Jacobians: preprocessing and flow layers are the same thing."""

from pofx.bijections.autoregressive import MaskedAutoregressive
from pofx.bijections.base import Bijection, Chain, Inverse
from pofx.bijections.coupling import Coupling
from pofx.bijections.elements import AffineElement, AffineSpline, Element, Elements
from pofx.bijections.elementwise import Affine, Dequantise, Log, Logit, PerColumn, Periodic, Standardise
from pofx.bijections.fields import FieldColumns, FieldStandardise
from pofx.bijections.fitted import Fitted, weighted_moments
from pofx.bijections.linear import LU, Permutation, Whitening
from pofx.bijections.marginal import Gaussianise, weighted_quantiles
from pofx.bijections.preprocessed import (
    Preprocessing,
    periodic_columns,
    preprocessing_config,
    preprocessing_from_config,
)
from pofx.bijections.preprocessing import Method, build_preprocessing
from pofx.bijections.splines import RationalQuadratic

__all__ = [
    "LU",
    "Affine",
    "AffineElement",
    "AffineSpline",
    "Bijection",
    "Chain",
    "Coupling",
    "Dequantise",
    "Element",
    "Elements",
    "FieldColumns",
    "FieldStandardise",
    "Fitted",
    "Gaussianise",
    "Inverse",
    "Log",
    "Logit",
    "MaskedAutoregressive",
    "Method",
    "PerColumn",
    "Periodic",
    "Permutation",
    "Preprocessing",
    "RationalQuadratic",
    "Standardise",
    "Whitening",
    "build_preprocessing",
    "periodic_columns",
    "preprocessing_config",
    "preprocessing_from_config",
    "weighted_moments",
    "weighted_quantiles",
]
