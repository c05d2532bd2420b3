"""Saved models: the same numbers after loading, the same bytes whenever saved, and a typed error for whatever is not intact."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pofx
from pofx import artefact
from pofx.bijections.preprocessed import Preprocessing
from pofx.bijections.preprocessing import build_preprocessing as build
from pofx.data.events import Events
from pofx.data.spec import Column, vector_spec
from pofx.errors import ArtefactError, ConfigError
from pofx.models.base import Capabilities, Family, Layout
from pofx.models.fitted import Fitted, Preprocess
from pofx.models.model import Model
from pofx.models.saving import fingerprint
from pofx.registry import register
from pofx.training.contract import Phase


@dataclass(frozen=True)
class Tiny(Family):
    """x = W z + U c with W lower triangular: the least a family can be, with buffers of several types and a tied weight."""

    name: ClassVar[str] = "test-tiny"
    capabilities: ClassVar[Capabilities] = Capabilities(periodic=True)

    scale: float = 1.0
    die: bool = False

    def build(self, layout: Layout) -> nn.Module:
        body = nn.Module()
        d = layout.features
        body.raw = nn.Parameter(torch.randn(d, d))
        body.again = body.raw
        body.mix = nn.Linear(max(layout.context_features, 1), d)
        body.register_buffer("precise", torch.zeros(d, dtype=torch.float64))
        body.register_buffer("count", torch.tensor(0))
        body.register_buffer("flags", torch.zeros(d, dtype=torch.bool))
        return body

    def phases(self, layout: Layout) -> tuple[Phase, ...]:
        return ()

    def _map(self, body: Any) -> Tensor:
        return self.scale * (body.raw.tril(-1) + torch.diag(body.raw.diagonal().abs() + 0.5))

    def _shift(self, body: Any, context: Events | None) -> Tensor:
        return body.precise.to(body.raw.dtype) + (0.0 if context is None else body.mix(context.x))

    def decode(self, body: nn.Module, noise: Mapping[str, Tensor], context: Events | None) -> Mapping[str, Tensor]:
        import multiprocessing

        if self.die and multiprocessing.parent_process() is not None:
            os._exit(9)
        return {"x": noise["z"] @ self._map(body).T + self._shift(body, context)}

    def log_density(self, body: nn.Module, events: Events) -> Tensor:
        matrix = self._map(body)
        z = torch.linalg.solve_triangular(matrix, (events.x - self._shift(body, events.context)).T, upper=False).T
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - matrix.diagonal().log().sum()


register("test-tiny", f"{__name__}:Tiny")


def tiny(features: int = 3, context: int = 0, family: Tiny | None = None, double: bool = False) -> Model:
    """A model whose weights are drawn instead of trained, with real preprocessing."""
    rng = torch.Generator().manual_seed(5)
    family = family or Tiny(scale=1.5)
    columns = [Column("phi", "rad", "periodic", -3.0, 3.0), *(Column(f"x{i}", "GeV") for i in range(1, features))]
    spec = vector_spec(columns)
    x = torch.randn(500, features, generator=rng, dtype=torch.float64).clamp(-2.9, 2.9)
    inner = None if not context else vector_spec([f"c{i}" for i in range(context)], "context")
    c = torch.randn(500, max(context, 1), generator=rng, dtype=torch.float64)
    preprocess = Preprocess({"x": build(spec["x"], x)})
    conditions = (
        Preprocess() if inner is None else Preprocess({"context": build(inner["context"], c, method="standardise")})
    )
    layout = Layout(spec, inner, preprocess.circular(), conditions.circular(), events=500, extra={"chosen": 2})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = family.build(layout)
    body.precise += torch.linspace(0.1, 1.0 / 3.0, features, dtype=torch.float64)
    body.count += 7
    ranges = {"x:x": {"low": [-30.0] * features, "high": [30.0] * features}}
    card: dict[str, Any] = {"pofx": pofx.__version__, "software": {"torch": torch.__version__}, "ranges": ranges}
    card["odd"] = {"inf": np.inf, "numpy": np.float32(0.5), "array": np.arange(3), "path": Path("a/b")}
    fitted = Fitted(preprocess, conditions, body.double() if double else body).eval()
    return Model(family, fitted, layout, card)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.pofx"
    tiny().save(path)
    return path


# ---------------------------------------------------------------------- intact files


@pytest.mark.parametrize(("context", "double"), [(0, False), (0, True), (2, False), (2, True)])
def test_saving_and_loading_keeps_every_bit(context: int, double: bool, tmp_path: Path) -> None:
    model = tiny(3, context, double=double)
    model.save(tmp_path / "m.pofx")
    again = pofx.load(tmp_path / "m.pofx")
    state, stored = model.fitted.state_dict(), again.fitted.state_dict()
    assert list(state) == list(stored)
    assert all(state[k].dtype == stored[k].dtype and torch.equal(state[k], stored[k]) for k in state)
    assert stored["body.precise"].dtype == torch.float64
    assert again.fitted.body.raw is again.fitted.body.again
    assert (again.family, again.layout.spec, again.layout.extra) == (
        model.family,
        model.layout.spec,
        model.layout.extra,
    )
    assert again.layout.circular == model.layout.circular == {"x": (0,)}
    assert not again.fitted.training
    c = np.linspace(-1, 1, 2) if context else None
    x = model.sample(2000, c, seed=3)
    assert np.array_equal(x, again.sample(2000, c, seed=3))
    assert np.array_equal(model.log_prob(x, c), again.log_prob(x, c))


def test_the_same_model_gives_the_same_bytes_also_after_loading(saved: Path, tmp_path: Path) -> None:
    tiny().save(tmp_path / "second.pofx")
    pofx.load(saved).save(tmp_path / "third.pofx")
    assert saved.read_bytes() == (tmp_path / "second.pofx").read_bytes() == (tmp_path / "third.pofx").read_bytes()


def test_saving_does_not_change_the_model(tmp_path: Path) -> None:
    model = tiny()
    model.fitted.train()
    card, state = dict(model.card), {k: v.clone() for k, v in model.fitted.state_dict().items()}
    generator = torch.get_rng_state()
    model.save(tmp_path / "m.pofx")
    assert model.card == card
    assert model.fitted.training
    assert all(torch.equal(v, state[k]) for k, v in model.fitted.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


def test_loading_leaves_the_global_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    pofx.load(saved)
    assert torch.equal(before, torch.get_rng_state())


def test_card(saved: Path) -> None:
    card = artefact.read_card(saved)
    assert card["format"] == artefact.FORMAT
    assert card["sha256"] == fingerprint(tiny()) == fingerprint(pofx.load(saved))
    assert card["odd"] == {"inf": np.inf, "numpy": 0.5, "array": [0, 1, 2], "path": "a/b"}
    assert set(card["validation"]["tolerance"]) == {"events", "log_prob"}
    assert 0 < card["validation"]["tolerance"]["log_prob"] < 0.01
    with zipfile.ZipFile(saved) as archive:
        json.loads(archive.read("card.json"), parse_constant=pytest.fail)
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_a_model_without_range_or_with_awkward_names_is_saved(tmp_path: Path) -> None:
    model = tiny()
    model.card.clear()
    model.save(str(tmp_path / "ünï cödé.pofx"))
    assert pofx.load(str(tmp_path / "ünï cödé.pofx")).card["family"] == "test-tiny"


def test_an_unregistered_family_is_refused_when_saving(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Local(Tiny):
        name: ClassVar[str] = "test-tiny"

    with pytest.raises(ConfigError, match="register"):
        tiny(family=Local()).save(tmp_path / "m.pofx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pofx"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        tiny().save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no folder"):
        tiny().save(tmp_path / "absent" / "m.pofx")


# ---------------------------------------------------------------------- damaged files


def refused(data: bytes, path: Path) -> str:
    """Load ``data``; the message of the error, after making sure that it is of the one type."""
    path.write_bytes(data)
    with pytest.raises(ArtefactError) as caught:
        pofx.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_any_flipped_bit_is_noticed(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    places = {
        0,
        4,
        10,
        20,
        31,
        40,
        len(data) - 1,
        len(data) - 60,
        len(data) - 70,
        len(data) - 90,
        *range(100, len(data), 97),
    }
    for place in sorted(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        refused(bytes(flipped), tmp_path / "m.pofx")


def test_truncated_and_foreign_files_are_refused(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    for length in (0, 1, 30, len(data) // 2, len(data) - 200, len(data) - 1):
        refused(data[:length], tmp_path / "m.pofx")
    refused(data + b"\0", tmp_path / "m.pofx")
    assert "not a saved model" in refused(b"hello", tmp_path / "m.pofx")
    buffer = io.BytesIO()
    np.savez(buffer, x=np.eye(2))
    assert "no card.json" in refused(buffer.getvalue(), tmp_path / "m.pofx")
    torch.save({"a": 1}, tmp_path / "pickle.pofx")
    refused((tmp_path / "pickle.pofx").read_bytes(), tmp_path / "m.pofx")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pofx", tmp_path):
        with pytest.raises(ArtefactError, match="cannot be read"):
            pofx.load(path)


def rebuilt(saved: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None], seal: bool = True) -> bytes:
    """The file with something changed and, unless told otherwise, all checksums made right again, as a forger would."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    card = json.loads(members.pop("card.json"))
    change(card, members)
    full = {"card.json": json.dumps(card).encode(), **members}
    if not seal:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in full.items():
                archive.writestr(name, data)
        return buffer.getvalue()
    return artefact._sealed(full)


def edit(saved: Path, change: Callable[[dict[str, Any]], Any]) -> bytes:
    return rebuilt(saved, lambda card, _: change(card))


def test_an_edited_card_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pofx"
    assert "seal" in refused(rebuilt(saved, lambda card, _: card.update(licence="mine"), seal=False), path)
    assert "no family" in refused(edit(saved, lambda card: card.update(family="nonsense")), path)
    assert "config of a Tiny" in refused(edit(saved, lambda card: card.update(family="gaussian")), path)
    assert "not part of pofx" in refused(edit(saved, lambda card: card["config"].update(type="os:path")), path)
    assert "KeyError" in refused(edit(saved, lambda card: card.pop("spec")), path)
    assert "format version" in refused(edit(saved, lambda card: card.pop("format")), path)
    assert "sha256" in refused(edit(saved, lambda card: card.update(sha256="0" * 64)), path)
    refused(edit(saved, lambda card: card.update(validation=None)), path)
    refused(edit(saved, lambda card: card["validation"].pop("tolerance")), path)
    two = edit(saved, lambda card: card["spec"]["x"].update(shape=[2], columns=card["spec"]["x"]["columns"][:2]))
    assert "expected float32 of shape (2, 2); got float32 of shape (3, 3)" in refused(two, path)


def test_a_newer_format_says_to_upgrade(saved: Path, tmp_path: Path) -> None:
    message = refused(
        edit(saved, lambda card: card.update(format=artefact.FORMAT + 1, pofx="9.9")), tmp_path / "m.pofx"
    )
    assert "pofx 9.9" in message
    assert "upgrade" in message


def test_a_card_that_is_no_json(tmp_path: Path) -> None:
    for text, word in ((b"\xff\xfe", "not JSON"), (b"[1]", "expected an object"), (b"{", "not JSON")):
        assert word in refused(artefact._sealed({"card.json": text}), tmp_path / "m.pofx")


def test_missing_members(saved: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "validation.safetensors"):
        assert f"no {name}" in refused(
            rebuilt(saved, lambda _, members, name=name: members.pop(name)), tmp_path / "m.pofx"
        )


def test_a_model_that_gives_other_numbers_is_refused(saved: Path, tmp_path: Path) -> None:
    whole = artefact.read_artefact(saved)

    def written(**weights: Tensor) -> bytes:
        artefact.write_artefact(tmp_path / "other.pofx", whole.card, whole.weights | weights, whole.validation)
        return (tmp_path / "other.pofx").read_bytes()

    changed = {name: whole.weights[name] * 1.01 for name in ("body.raw", "body.again")}
    message = refused(written(**changed), tmp_path / "m.pofx")
    for word in (
        "'events/x'",
        "standard deviations apart",
        "tolerance",
        f"pofx {pofx.__version__}",
        f"torch {torch.__version__}",
    ):
        assert word in message
    scaled = edit(saved, lambda card: card["config"].update(scale=1.6))
    assert "not reproduced" in refused(scaled, tmp_path / "m.pofx")
    assert "not expected body.odd" in refused(written(**{"body.odd": torch.zeros(1)}), tmp_path / "m.pofx")


def test_a_changed_density_alone_is_noticed(saved: Path, tmp_path: Path) -> None:
    whole = artefact.read_artefact(saved)
    vectors = {**whole.validation, "log_prob": whole.validation["log_prob"] + 0.1}
    artefact.write_artefact(tmp_path / "other.pofx", whole.card, whole.weights, vectors)
    assert "'log_prob' is not reproduced: at (" in refused((tmp_path / "other.pofx").read_bytes(), tmp_path / "m.pofx")


def test_differences_within_the_tolerance_are_accepted(saved: Path, tmp_path: Path) -> None:
    whole = artefact.read_artefact(saved)
    vectors = {
        **whole.validation,
        "log_prob": whole.validation["log_prob"] + 0.5 * whole.card["validation"]["tolerance"]["log_prob"],
    }
    artefact.write_artefact(tmp_path / "other.pofx", whole.card, whole.weights, vectors)
    pofx.load(tmp_path / "other.pofx")


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    model = tiny()
    model.fitted.body.odd = Odd()
    with pytest.raises(ConfigError, match="no tensor"):
        model.save(tmp_path / "m.pofx")


def test_loading_runs_no_code_from_the_file(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        assert not any(b"pickle" in archive.read(name) for name in archive.namelist())


def test_preprocessing_none_and_no_steps(tmp_path: Path) -> None:
    model = tiny(2)
    plain = replace(model.layout, circular={})
    bare = Model(model.family, Fitted(Preprocess({"x": Preprocessing(2)}), Preprocess(), model.fitted.body), plain, {})
    bare.save(tmp_path / "m.pofx")
    assert np.array_equal(pofx.load(tmp_path / "m.pofx").sample(5, seed=1), bare.sample(5, seed=1))
