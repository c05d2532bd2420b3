"""Fit a family to toys of a known density and compare log-densities on fresh ones; T2K's release."""

import math
import time
import warnings
from typing import Any

import numpy as np
import torch
from common import Row
from measuring import mean, public_data

from pofx.data import Dataset, Release, read_release
from pofx.errors import RangeWarning
from pofx.models.base import Family
from pofx.models.model import Model
from pofx.training.settings import Training

T2K = "t2k/JointNuMuAntiNuMuCC0piXsecDataRelease.root"
HISTOGRAMS = ["hNuMuCC0piXsecLinearResult", "hAntiNuMuCC0piXsecLinearResult"]
MATRICES = ["JointNuMuAntiNuMuCC0piXsecCovMatrixStat", "JointNuMuAntiNuMuCC0piXsecCovMatrixSyst"]


def t2k_release() -> Release:
    """58 + 58 bins (numu, numubar) of arXiv:2002.09323 in 1e-39 cm^2, statistical and systematic covariance added."""
    return read_release(public_data() / T2K, HISTOGRAMS, MATRICES, scale=1e39)


def timed_fit(family: Family, data: Dataset, training: Training, teacher: Model | None = None) -> tuple[Model, Row]:
    """The model, and what its training took; the minutes are those of all that `fit` does, by the clock and of the processor."""
    begun, busy = time.monotonic(), time.process_time()
    model = family.fit(data, training=training, teacher=teacher)
    minutes, cpu = (time.monotonic() - begun) / 60, (time.process_time() - busy) / 60
    took = {"minutes": round(minutes, 3), "cpu_minutes": round(cpu, 3), "threads": torch.get_num_threads()}
    return model, {**took, **trained(model)}


def trained(model: Model) -> Row:
    """What the card says about the training."""
    record = model.card["training"]
    kept = {key: record[key] for key in ("steps", "best_step", "stopped_by")}
    return {"parameters": model.card["parameters"], "training_minutes": round(record["seconds"] / 60, 3), **kept}


def gap(exact: Any, model: Model, x: Any, context: Any = None) -> Row:
    """Mean of log p(x) - log q(x) with its paired error, their correlation, and both negative log-likelihoods.

    Bounds and estimates have an error of their own, in part the same for all events (draws of the latents, log Z): its mean is added.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)  # toys from far tails
        learnt = model.log_prob(x, context)
        shared = 0.0 if model.density == "exact" else float(model.log_prob_error(x, context).mean())
    value, paired = mean(exact - learnt)
    nll = {"nll": float(-learnt.mean()), "nll_of_truth": float(-exact.mean())}
    correlation = float(np.corrcoef(exact, learnt)[0, 1])
    error = {"error": math.hypot(paired, shared), "paired_error": paired, "shared_error": shared}
    return {"value": value, **error, "events": len(exact), "correlation": correlation, **nll}
