"""A model to a file and back: what has to be stored besides weights, and the check that the numbers are still the same.

The validation vectors are noise z, the events x that it decodes to (with their contexts c), and log p(x | c). The tolerance that goes
with them is a multiple of the model's own rounding error, measured when it is saved: how far they move when every number inside the
model moves by one unit in its last place. Another processor or linear algebra library makes differences of that kind.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pofx import registry
from pofx.artefact import Artefact, weights_hash, write_artefact
from pofx.config import from_plain, to_plain
from pofx.data.events import Events
from pofx.data.spec import Column, EventSpec, spec_from_dict, spec_to_dict
from pofx.data.store import mask_name
from pofx.errors import ArtefactError, ConfigError
from pofx.models.base import Family, Layout
from pofx.models.fitted import Fitted, Preprocess
from pofx.models.model import Model
from pofx.training.noise import Noise

__all__ = ["fingerprint", "model_from", "restore", "save", "validation_vectors", "verify"]

EVENTS = 64
"""Validation events per saved model; fewer where densities are expensive."""

SEED = 20_230_914
"""Of their noise and contexts."""

MARGIN = 10.0
"""Tolerance in units of the measured rounding error, and ..."""

FLOORS = {torch.float64: 1e-9}
"""... the least tolerance per square root of the number of columns (:data:`FLOOR` for other precisions)."""

FLOOR = 1e-4


def save(model: Model, path: str | Path) -> None:
    """Write a model to one file; the model stays as it is. See :func:`pofx.artefact.load` for the way back.

    Raises
    ------
    ConfigError : the family is not registered, so that nobody could load the file.
    """
    frozen = _frozen(model)
    vectors = validation_vectors(frozen)
    card = {
        **model.card,
        **_structure(frozen),
        "validation": {"events": _events(frozen), "tolerance": _tolerance(frozen, vectors)},
    }
    write_artefact(path, card, _weights(frozen), vectors)


def fingerprint(model: Model) -> str:
    """sha256 of a model's weights and preprocessing: the same before saving and after loading; what a student's card calls its teacher."""
    return weights_hash(_weights(model))


def restore(artefact: Artefact, path: str | Path, device: str = "cpu") -> Model:
    """The model in an artefact, verified on the CPU; ArtefactError if it is none, or gives other numbers than when it was saved."""
    try:
        model = model_from(artefact.card, artefact.weights)
        verify(model, artefact.validation)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return model if device == "cpu" else model.to(device)


def model_from(card: Mapping[str, Any], tensors: Mapping[str, Tensor], device: str = "cpu") -> Model:
    """Build the model that a card describes and fill it with its tensors; ArtefactError for whatever does not fit together."""
    try:
        family, fitted, layout = _skeleton(card)
    except ArtefactError:
        raise
    except Exception as error:  # a card is outside input: anything may be wrong with it
        raise ArtefactError(
            f"the card does not describe a model that this pofx can build: {type(error).__name__}: {error}"
        ) from error
    _fill(fitted, tensors)
    _check_ranges(card, layout)
    return family.assemble(fitted.eval().to(device), layout, dict(card))


def _check_ranges(card: Mapping[str, Any], layout: Layout) -> None:
    """Trained ranges, where there are any, are two numbers per column."""
    fields = {f"x:{name}": field for name, field in layout.spec.items()}
    fields |= {f"context:{name}": field for name, field in (layout.context or {}).items()}
    try:
        for name, known in (card.get("ranges") or {}).items():
            for side in ("low", "high"):
                if torch.tensor(known[side], dtype=torch.float64).shape != (len(fields[name].columns),):
                    raise ValueError(f"{name} needs {len(fields[name].columns)} numbers")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtefactError(f"the card's ranges are damaged: {type(error).__name__}: {error}") from error


def verify(model: Model, vectors: Mapping[str, Tensor]) -> None:
    """Recompute the validation vectors; ArtefactError names the first one that differs by more than the card's tolerance."""
    tolerance = (model.card.get("validation") or {}).get("tolerance") or {}
    try:
        found = _recompute(model, vectors)
        for name, value in found.items():
            allowed = float(tolerance[_kind(name)])
            _compare(name, vectors[name].double(), value.double(), allowed, model.card)
    except ArtefactError:
        raise
    except Exception as error:  # vectors, tolerance and card are outside input too
        raise ArtefactError(f"the validation vectors cannot be recomputed: {type(error).__name__}: {error}") from error


def validation_vectors(model: Model) -> dict[str, Tensor]:
    """``noise/*``, ``events/*``, ``context/*`` and ``log_prob`` of a few events, as far as the family has them."""
    noise = Noise(SEED, torch.arange(_events(model)), dtype=torch.float64, scope="validation")
    vectors = _made_up(noise, "context", model.layout.context or {}, model)
    if model.family.capabilities.decode:
        vectors |= {f"noise/{name}": z for name, z in model.noise(_events(model), seed=SEED).items()}
    else:
        vectors |= _made_up(noise, "x", model.layout.spec, model)
    return vectors | _recompute(model, vectors)


def _events(model: Model) -> int:
    return min(EVENTS, model.family.density_chunk(model.layout))


def _made_up(noise: Noise, role: str, spec: EventSpec, model: Model) -> dict[str, Tensor]:
    """Fields that look like data: vectors within the trained ranges, others normal in latent coordinates, clouds with half their points."""
    found: dict[str, Tensor] = {}
    prefix = "events" if role == "x" else role
    part = model.fitted.preprocess if role == "x" else model.fitted.context
    for name, field in spec.items():
        if field.kind == "vector":
            found[f"{prefix}/{name}"] = _within_ranges(noise, f"{role}:{name}", field.columns, model.card)
            continue
        drawn, masks = noise.normal(f"{role}:{name}", *field.shape), {}
        if field.kind == "cloud":
            masks[name] = (
                (torch.arange(field.shape[0]) < (field.shape[0] + 1) // 2).expand(_events(model), -1).contiguous()
            )
            found[f"{prefix}/{mask_name(name)}"] = masks[name]
        only = Preprocess({name: part[name]})
        found[f"{prefix}/{name}"] = only.from_latent({name: drawn}, masks)[name]
    return found


# ---------------------------------------------------------------------- to the file


def _frozen(model: Model) -> Model:
    """A copy on the CPU in evaluation mode: saving changes nothing."""
    copied = model.to("cpu")
    copied.fitted.eval()
    return copied


def _weights(model: Model) -> dict[str, Tensor]:
    state = model.fitted.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ConfigError(f"{model.family.name} keeps state that is no tensor and cannot be saved: {', '.join(odd)}")
    return state


def _structure(model: Model) -> dict[str, Any]:
    """The part of the card that loading depends on, taken from the model itself."""
    layout, config = model.layout, to_plain(model.family)
    if registry.family_class(model.family.name) is not type(model.family):
        raise ConfigError(
            f"{type(model.family).__name__} is not what is registered as {model.family.name!r}: see pofx.registry.register"
        )
    from_plain(config)
    return {
        "family": model.family.name,
        "config": config,
        "spec": spec_to_dict(layout.spec),
        "context": None if layout.context is None else spec_to_dict(layout.context),
        "layout": {"events": layout.events, "extra": dict(layout.extra)},
        "preprocessing": {"events": model.fitted.preprocess.config(), "context": model.fitted.context.config()},
        "precision": str(model.fitted.dtype).removeprefix("torch."),
    }


def _tolerance(model: Model, vectors: Mapping[str, Tensor]) -> dict[str, float]:
    """Allowed difference, in nats for ``log_prob`` and in standard deviations of a column for ``events``."""
    features = sum(field.size for field in model.layout.spec.values())
    floor = FLOORS.get(model.fitted.dtype, FLOOR) * max(1.0, features**0.5)
    measured = _rounding(model, vectors)
    return {kind: float(f"{max(floor, MARGIN * measured.get(kind, 0.0)):.3g}") for kind in ("events", "log_prob")}


def _rounding(model: Model, vectors: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest change of the vectors when every number inside the model, and every event, moves by its own rounding error."""
    moved = type(model)(model.family, copy.deepcopy(model.fitted), model.layout, model.card)
    generator = torch.Generator().manual_seed(SEED)
    for tensor in [*moved.fitted.parameters(), *moved.fitted.buffers()]:
        if tensor.is_floating_point():
            tensor.data = _nudged(tensor.data, generator)
    inputs = {
        name: _nudged(value, generator) if name.startswith("events/") and value.is_floating_point() else value
        for name, value in vectors.items()
    }
    worst: dict[str, float] = {}
    for name, value in _recompute(moved, inputs).items():
        difference = _differences(name, vectors[name].double(), value.double())
        finite = difference[torch.isfinite(difference)]
        worst[_kind(name)] = max(worst.get(_kind(name), 0.0), float(finite.max()) if len(finite) else 0.0)
    return worst


def _nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Up or down by one unit in the last place, at random."""
    sign = 2 * torch.randint(2, tensor.shape, generator=generator, dtype=tensor.dtype) - 1
    return tensor * (1 + torch.finfo(tensor.dtype).eps * sign)


# ---------------------------------------------------------------------- from the file


def _skeleton(card: Mapping[str, Any]) -> tuple[Family, Fitted, Layout]:
    """Family, untrained module and layout out of a card."""
    expected, family = registry.family_class(card["family"]), from_plain(card["config"])
    if type(family) is not expected:
        raise ArtefactError(
            f"the card names the family {card['family']!r} but has the config of a {type(family).__name__}"
        )
    preprocess, context = (Preprocess.from_config(card["preprocessing"][part]) for part in ("events", "context"))
    layout = Layout(
        spec=spec_from_dict(card["spec"]),
        context=None if card["context"] is None else spec_from_dict(card["context"]),
        circular=preprocess.circular(),
        circular_context=context.circular(),
        events=card["layout"]["events"],
        extra=card["layout"]["extra"],
        to_user=preprocess.to_user,
    )
    with torch.random.fork_rng(devices=[]):
        body = family.build(layout)
    return family, Fitted(preprocess, context, body), layout


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors in, each in the precision in which it was stored; names and shapes must agree."""
    own = module.state_dict(keep_vars=True)
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unknown:
        raise ArtefactError(f"the weights do not fit the card: missing {_some(missing)}; not expected {_some(unknown)}")
    for name, tensor in own.items():
        stored = tensors[name]
        if stored.shape != tensor.shape or stored.is_floating_point() != tensor.is_floating_point():
            raise ArtefactError(f"weight {name!r}: expected {_form(tensor)}; got {_form(stored)}")
        tensor.data = tensor.data.to(stored.dtype)
    module.load_state_dict(dict(tensors), strict=True)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


# ---------------------------------------------------------------------- validation vectors


def _recompute(model: Model, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``events/*`` from the noise, ``log_prob`` from the events."""
    context = _part(vectors, "context")
    noise = {name.partition("/")[2]: value for name, value in vectors.items() if name.startswith("noise/")}
    out: dict[str, Tensor] = {}
    if noise:
        with torch.no_grad():
            decoded = model.decode(noise, context)
        fields = decoded if isinstance(decoded, Events) else Events({model.layout.only: decoded})
        out |= {f"events/{name}": value.double() for name, value in fields.fields.items()}
        out |= {f"events/{mask_name(name)}": mask for name, mask in fields.masks.items()}
    if model.density != "none":
        events = _part({**out, **vectors}, "events")
        if events is not None:
            given = events.replace(context=context).map(lambda tensor: tensor.numpy())
            out["log_prob"] = torch.as_tensor(model.log_prob_events(given))
    return out


def _part(vectors: Mapping[str, Tensor], prefix: str) -> Events | None:
    """The fields and masks of a name, as events; None where there are none."""
    named = {name.partition("/")[2]: value for name, value in vectors.items() if name.startswith(f"{prefix}/")}
    fields = {name: value for name, value in named.items() if value.dtype != torch.bool}
    masks = {name: named[mask_name(name)] for name in fields if mask_name(name) in named}
    return Events(fields, masks) if fields else None


def _within_ranges(
    noise: Noise, role: str, columns: tuple[Column, ...] | list[Column], card: Mapping[str, Any]
) -> Tensor:
    """Uniform over the range that each column was trained on (or declared, or [0, 1]), ``(n, len(columns))``."""
    known = card.get("ranges", {}).get(role)
    low = [c.low or 0.0 for c in columns] if known is None else known["low"]
    high = (
        [a + 1.0 if c.high is None else c.high for a, c in zip(low, columns, strict=True)]
        if known is None
        else known["high"]
    )
    start, stop = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    value = start + (stop - start) * noise.uniform(role, len(columns))
    whole = torch.tensor([column.type == "discrete" for column in columns])
    return torch.where(whole, value.round(), value)


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _differences(name: str, expected: Tensor, found: Tensor) -> Tensor:
    """|found - expected|, in standard deviations of each column for events; 0 where both are the same infinity or both NaN."""
    same = (found == expected) | (found.isnan() & expected.isnan())
    scale = torch.ones((), dtype=torch.float64)
    if name.startswith("events/"):
        spread, size = expected.std(0), expected.abs().amax(0)
        scale = torch.where(torch.isfinite(spread), spread, 0.0) + 1e-6 * torch.where(torch.isfinite(size), size, 0.0)
    difference = (found - expected).abs() / scale.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(same, 0.0, torch.where(difference.isnan(), torch.inf, difference))


def _compare(name: str, expected: Tensor, found: Tensor, allowed: float, card: Mapping[str, Any]) -> None:
    if expected.shape != found.shape:
        raise ArtefactError(
            f"validation vector {name!r} has shape {tuple(expected.shape)}; recomputed, it has {tuple(found.shape)}"
        )
    difference = _differences(name, expected, found)
    if bool((difference <= allowed).all()):
        return
    at = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
    unit = "nats" if name == "log_prob" else "standard deviations"
    raise ArtefactError(
        f"validation vector {name!r} is not reproduced: at {at} stored {float(expected[at]):.9g}, recomputed {float(found[at]):.9g}, "
        f"{float(difference[at]):.3g} {unit} apart (tolerance {allowed:.3g}); {_versions(card)}"
    )


def _versions(card: Mapping[str, Any]) -> str:
    from pofx import __version__

    software = card.get("software") or {}
    saved = f"saved by pofx {card.get('pofx')} with torch {software.get('torch')}"
    return f"{saved}, loaded by pofx {__version__} with torch {torch.__version__}"
