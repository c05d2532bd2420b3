"""Kill a training with SIGKILL at chosen moments, resume it, and compare with one that was left alone, bit by bit.

``python kill.py FOLDER [key=value ...]`` trains a small model; :func:`compare_after_kills` runs it in subprocesses. The benchmark
``benchmarks/acceptance/02_resume.py`` uses the same functions at another size.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def job(
    folder: Path, steps: int = 400, width: int = 16, batch: int = 64, every: int = 20, pause: float = 0.0
) -> dict[str, Any]:
    """Train with everything that has state: two updates, two phases, EMA, momentum, dropout, accumulation, validation, a sampler."""
    import torch
    from training_toys import mlp, normal, quick, source

    from pofx.training import Loss, Phase, Update, train

    def loss(net, events, noise):
        if pause and net.training:
            time.sleep(pause)
        x = events.x + 0.1 * noise.normal("jitter", 2)
        return Loss((net(x) - x).square().sum(1), logs={"size": x.norm(dim=1)})

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = torch.nn.Sequential(
            mlp(2, width, width), torch.nn.BatchNorm1d(width), torch.nn.Dropout(0.2), torch.nn.Linear(width, 2)
        )
    sgd = lambda named: torch.optim.SGD([p for _, p in named], lr=1e-3, momentum=0.9, nesterov=True)  # noqa: E731
    phases = [
        Phase("one", (Update("all", loss), Update("last", loss, parameters=("3.*",), repeat=2, optimiser=sgd))),
        Phase("two", (Update("all", loss),), keep="last", training={"learning_rate": 1e-4}),
    ]
    data = source(normal(1000), val=normal(200, 1), batch_size=batch, in_memory=folder.name.startswith("memory"))
    settings = quick(
        max_epochs=None,
        max_steps=steps,
        ema=0.98,
        clip=1.0,
        accumulate=2,
        checkpoint=folder / "state",
        checkpoint_every=every,
    )
    record = train(net, phases, data, settings)
    numbers = [(row.step, row.train_loss, row.validation_loss, row.gradient_norm, row.logs) for row in record.history]
    return {"weights": digest(net), "history": numbers, "best_step": record.best_step, "steps": record.steps}


def digest(module: Any) -> str:
    """SHA-256 of all weights and buffers."""
    made = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        made.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()


def launch(folder: Path, arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The job in a process of its own."""
    command = [
        sys.executable,
        str(HERE / "kill.py"),
        str(folder),
        *(f"{key}={value}" for key, value in arguments.items()),
    ]
    path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


def kill_when(process: subprocess.Popen[bytes], folder: Path, moment: float) -> bool:
    """SIGKILL ``moment`` seconds after the first checkpoint was begun; False where the job was done before."""
    while process.poll() is None and not any(folder.glob("state*")):
        time.sleep(0.001)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def compare_after_kills(folder: Path, moments: list[float], kind: str = "memory", **arguments: Any) -> dict[str, Any]:
    """Run the job undisturbed, and killed at every moment in turn (each counted from the start of the resumed run); both results.

    What is killed runs in processes of its own; what comes to its end runs here, where torch is imported already.
    """
    import torch

    alone, killed = folder / f"{kind}-alone", folder / f"{kind}-killed"
    for place in (alone, killed):
        place.mkdir(parents=True)
    kills = sum(kill_when(launch(killed, arguments), killed, moment) for moment in moments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"alone": job(alone, **arguments), "killed": job(killed, **arguments), "kills": kills}
    finally:
        torch.set_num_threads(threads)


def random_moments(number: int, longest: float, seed: int) -> list[float]:
    """Moments between nothing and ``longest`` seconds."""
    generator = random.Random(seed)
    return [generator.uniform(0, longest) for _ in range(number)]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    given = {key: float(value) if "." in value else int(value) for key, value in (a.split("=") for a in sys.argv[2:])}
    result = job(place, **given)
    (place / "result.json").write_text(json.dumps(result))
