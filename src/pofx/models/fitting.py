"""What ``fit`` does for every family: data to source, preprocessing on the training split, one training loop, one card."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pofx.config import to_plain
from pofx.data import Dataset, as_dataset, check_trainable, concat
from pofx.data.events import Events
from pofx.data.spec import EventSpec, spec_to_dict
from pofx.errors import CapabilityError, ConfigError
from pofx.models.base import Family, Layout
from pofx.models.fitted import Fitted, Preprocess, to_tensors
from pofx.models.model import Model
from pofx.models.saving import fingerprint
from pofx.training.contract import Source
from pofx.training.loop import train
from pofx.training.noise import Noise, derive_seed
from pofx.training.resampling import Angular, learn_positive_weights
from pofx.training.settings import Training
from pofx.training.sources import DatasetSource

__all__ = ["fit", "prepare_fit"]

PREPROCESSING_BYTES = 8 * 2**20
"""Preprocessing of a streamed data set is fitted on as many training events as fit in here in float64, the first of the shuffled stream."""

EXPENSIVE = 128
"""Events of the held-out splits that an expensive density is judged on: it may take longer than the training otherwise."""


def fit(
    family: Family,
    data: Any,
    context: Any,
    weight: Any,
    *,
    training: Training | None,
    init: Model | None,
    teacher: Model | None,
    resume: str,
) -> Model:
    """See :meth:`pofx.models.base.Family.fit`."""
    training = _own_precision(family, training or Training())
    dataset, source, fitted, layout = prepare_fit(
        family, data, context, weight, training=training, init=init, teacher=teacher
    )
    source, notes = _without_negative_weights(family, source, layout, training, resume)
    record = train(fitted.body, family.phases(layout), source, training, resume=resume)
    fitted.eval()
    model = family.assemble(fitted, layout, _card(family, fitted, layout, dataset, teacher) | notes)
    model.card["training"] = record.to_dict()
    if dataset is not None:
        model.card["metrics"] = _metrics(model, dataset)
    return model


def prepare_fit(
    family: Family,
    data: Any,
    context: Any,
    weight: Any,
    *,
    training: Training,
    init: Model | None = None,
    teacher: Model | None = None,
) -> tuple[Dataset | None, Source, Fitted, Layout]:
    """Everything up to the first step: the data set (None for a source), the source, the untrained module, the layout."""
    training = _own_precision(family, training)
    if family.capabilities.teacher and teacher is None:
        raise CapabilityError(f"{type(family).__name__} is a student: give fit(..., teacher=model)")
    dataset = None if _is_source(data) else as_dataset(data, context, weight, trainable=False)
    if dataset is not None:
        check_trainable(dataset, few_rows=family.few_events)
    spec, context_spec = (data.spec, data.context_spec) if dataset is None else (dataset.spec, dataset.context_spec)
    _check_kinds(family, spec, context_spec)
    if teacher is not None:
        _check_teacher(family, teacher, spec, context_spec)
    sample = None if dataset is None or init is not None else to_tensors(_sample(dataset.train, training.seed))
    taught_by = teacher if family.capabilities.teacher else None
    preprocess, context_preprocess = _preprocessing(family, sample, spec, context_spec, init or taught_by)
    layout = Layout(
        spec,
        context_spec,
        preprocess.circular(),
        context_preprocess.circular(),
        events=len(dataset.train) if dataset is not None else 0,
        teacher=teacher,
        extra={} if init is None else init.layout.extra,
        to_user=preprocess.to_user,
    )
    if any(layout.circular.values()) and not family.capabilities.periodic:
        raise CapabilityError(
            f"{type(family).__name__} cannot keep periodic columns periodic; use SplineFlow, or declare them bounded"
        )
    if sample is not None:
        layout = _structured(family, layout, sample, preprocess, context_preprocess, training.seed)
    fitted = Fitted(preprocess, context_preprocess, _seeded_body(family, layout, training))
    if init is not None:
        _warm_start(fitted, init, family)
    if dataset is None:
        return None, data, fitted, layout
    source = DatasetSource(
        dataset.train,
        dataset.val,
        lambda events, noise: fitted.prepare(events, noise)[0],
        batch_size=training.batch_size,
        seed=training.seed,
    )
    return dataset, source, fitted, layout


def _own_precision(family: Family, training: Training) -> Training:
    precision = family.capabilities.precision
    return training if precision is None else training.replace(precision=precision)


def _without_negative_weights(
    family: Family, source: Source, layout: Layout, training: Training, resume: str
) -> tuple[Source, dict[str, Any]]:
    """The source, with learnt positive weights where the family needs them, and what the card says about it."""
    if family.capabilities.negative_weights or not getattr(source, "signed", False):
        return source, {}
    angular = Angular(layout.circular, layout.circular_context)
    positive = learn_positive_weights(source, training, angular, resume)
    return positive, {"weights": positive.notes}


def _is_source(data: Any) -> bool:
    return isinstance(data, Source) and hasattr(data, "spec")


def _check_kinds(family: Family, spec: EventSpec, context: EventSpec | None) -> None:
    for role, fields, allowed in (
        ("events", spec, family.capabilities.kinds),
        ("contexts", context or {}, family.capabilities.context),
    ):
        for name, field in fields.items():
            if field.kind not in allowed:
                raise CapabilityError(
                    f"{type(family).__name__} takes {role} of kind {', '.join(sorted(allowed)) or 'none'}; field {name!r} is a {field.kind}"
                )


def _check_teacher(family: Family, teacher: Model, spec: EventSpec, context: EventSpec | None) -> None:
    """A student lives in its teacher's coordinates, so fields, columns and their ranges have to be the same."""
    if not family.capabilities.teacher:
        raise CapabilityError(f"{type(family).__name__} is no student: it takes no teacher")
    for role, wanted, found in (
        ("events", teacher.layout.spec, spec),
        ("contexts", teacher.layout.context or {}, context or {}),
    ):
        if dict(wanted) != dict(found):
            raise CapabilityError(
                f"{type(family).__name__}: expected {role} of the teacher's fields {', '.join(wanted) or 'none'} with the same columns; "
                f"got {', '.join(found) or 'none'}"
            )


def _preprocessing(
    family: Family, sample: Events | None, spec: EventSpec, context: EventSpec | None, init: Model | None
) -> tuple[Preprocess, Preprocess]:
    if init is not None:
        return init.fitted.preprocess, init.fitted.context
    if sample is None:
        return Preprocess.identity(spec), Preprocess.identity(context or {})
    methods = {name: family.preprocess_of(name, spec) for name in spec}
    events = Preprocess.from_data(spec, sample, methods, sample.weight)
    if context is None or sample.context is None:
        return events, Preprocess()
    return events, Preprocess.from_data(context, sample.context, dict.fromkeys(context, "standardise"), sample.weight)


def _structured(
    family: Family, layout: Layout, sample: Events, preprocess: Preprocess, context: Preprocess, seed: int
) -> Layout:
    """The layout with what the family finds in the sample, in latent coordinates (see :meth:`Family.structure`)."""
    if type(family).structure is Family.structure:
        return layout
    noise = Noise(seed, torch.arange(len(sample)), dtype=torch.float64, scope="structure")
    given = None if sample.context is None else sample.context.replace(fields=context.to_latent(sample.context)[0])
    latent = sample.replace(fields=preprocess.to_latent(sample, noise)[0], context=given)
    return replace(layout, extra=dict(family.structure(layout, latent)))


def _sample(train: Dataset, seed: int) -> Events:
    forms = [*train.spec.values(), *(train.context_spec or {}).values()]
    wanted = max(PREPROCESSING_BYTES // (8 * sum(form.size for form in forms)), 1000)
    if train.in_memory or len(train) <= wanted:
        return train.arrays()
    chunks: list[Events] = []
    stream: Iterator[Events] = train.shuffled(min(wanted, 8192), seed=derive_seed(seed, "preprocess"), epoch=0)
    while sum(map(len, chunks)) < wanted:
        chunks.append(next(stream))
    return concat(chunks)


def _seeded_body(family: Family, layout: Layout, training: Training) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(training.seed, "weights"))
        body = family.build(layout)
    return body.double() if training.precision == "float64" else body


def _warm_start(fitted: Fitted, init: Model, family: Family) -> None:
    if type(init.family) is not type(family):
        raise ConfigError(f"init must be a fitted {type(family).__name__}; got a fitted {type(init.family).__name__}")
    try:
        fitted.body.load_state_dict(init.fitted.body.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"init has another structure than {family}: {error}") from error


def _card(
    family: Family, fitted: Fitted, layout: Layout, dataset: Dataset | None, teacher: Model | None
) -> dict[str, Any]:
    from pofx import __version__

    return {
        "pofx": __version__,
        "family": family.name,
        "config": to_plain(family),
        "spec": spec_to_dict(layout.spec),
        "context": None if layout.context is None else spec_to_dict(layout.context),
        "layout": {"events": layout.events, "extra": dict(layout.extra)},
        "preprocessing": {"events": fitted.preprocess.config(), "context": fitted.context.config()},
        "coordinates": {"events": fitted.preprocess.describe(), "context": fitted.context.describe()},
        "precision": str(fitted.dtype).removeprefix("torch."),
        "parameters": sum(tensor.numel() for tensor in fitted.body.state_dict().values()),
        "data": None
        if dataset is None
        else {"sha256": dataset.fingerprint, "events": len(dataset), "train": len(dataset.train)},
        "ranges": {} if dataset is None else _ranges(dataset),
        "teacher": None if teacher is None else fingerprint(teacher),
        "software": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "licence": None,
        "citation": None,
    }


def _ranges(dataset: Dataset) -> dict[str, Any]:
    """Smallest and largest training value per column of vector fields of events and context."""
    low: dict[str, np.ndarray[Any, Any]] = {}
    high: dict[str, np.ndarray[Any, Any]] = {}
    for events in dataset.train.chunks(65536):
        named = {f"x:{name}": a for name, a in events.fields.items()} | {
            f"context:{name}": a for name, a in (events.context.fields.items() if events.context else ())
        }
        for name, array in named.items():
            if array.ndim == 2:
                low[name] = np.minimum(low.get(name, np.inf), array.min(0))
                high[name] = np.maximum(high.get(name, -np.inf), array.max(0))
    return {name: {"low": low[name].tolist(), "high": high[name].tolist()} for name in low}


def _metrics(model: Model, dataset: Dataset) -> dict[str, Any]:
    """Negative log-likelihood per event on the held-out splits, in the user's units, with its standard error."""
    if model.density == "none":
        return {}
    found: dict[str, Any] = {}
    for name, part in (("validation", dataset.val), ("test", dataset.test)):
        if len(part):
            found[name] = _nll(model, part)
    return {"nll": found, "unit": "nats per event, density in the units of the columns", "floor": None}


def _nll(model: Model, part: Dataset) -> dict[str, float | int]:
    values, weights = [], []
    size = model.family.density_chunk(model.layout)
    expensive = size < model.family.chunk(model.layout)
    most = max(size, min(4 * size, EXPENSIVE)) if expensive else 100_000
    for events in part.chunks(min(8 * size, most)):
        values.append(-model.log_prob_events(events))
        weights.append(np.ones(len(events)) if events.weight is None else np.asarray(events.weight))
        if sum(map(len, values)) >= most:
            break
    value, weight = np.concatenate(values), np.concatenate(weights)
    mean = float((weight * value).sum() / weight.sum())
    error = math.sqrt(float((weight**2 * (value - mean) ** 2).sum())) / float(weight.sum())
    return {"value": mean, "error": error, "events": len(value)}
