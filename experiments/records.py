"""The files of a workdir, except the checkpoints."""

import dataclasses
import json
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.config import Config
from mnist_jax.data import Dataset
from mnist_jax.parallel import Layout


def create_workdir(workdir: Path) -> None:
    """Make the folder, or take an empty one.

    Raises:
        ValueError: it exists and is not an empty folder, or it cannot be made.
    """
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"--workdir {workdir} exists and is not an empty folder; choose another.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be made: {error.strerror}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def append_json_line(path: Path, content: Any) -> None:
    """Add a line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(content) + "\n")


def environment(layout: Layout) -> dict[str, Any]:
    """Devices, versions and the commit, for `results.json`."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "devices": {
            "kind": layout.devices[0].device_kind,
            "platform": layout.devices[0].platform,
            "count": len(layout.devices),
            "member_groups": layout.groups,
            "data_parallel": layout.data,
        },
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of this code; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Config and data set, for `results.json`."""
    return {
        "config": dataclasses.asdict(config),
        "dataset": {"name": dataset.name, "source": dataset.source},
        "train_size": len(dataset.train.labels),
        "validation_size": len(dataset.validation.labels),
        "test_size": len(dataset.test.labels),
    }


def scalars(epoch: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """An epoch's record as TensorBoard tags and values."""
    yield "cost", epoch["cost"]
    for metric, value in epoch.get("ensemble", {}).items():
        yield metric, value
    for member in epoch.get("members", []) if len(epoch["member_costs"]) > 1 else []:
        for metric, value in member.items():
            if metric != "seed":
                yield f"seed_{member['seed']}/{metric}", value
