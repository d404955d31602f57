"""What was trained on the page as a workdir, for the other commands."""

import dataclasses
from datetime import datetime
from typing import Any

import numpy as np
from etils import epath

from experiments.live_page.setting import Setting
from experiments.workdir import evaluation, progress, records
from experiments.workdir.progress import Progress
from experiments.workdir.records import TrainedOn
from mnist_jax import kernels
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.training import TrainState


def write_workdir(setting: Setting, state: TrainState, now: Progress) -> epath.Path:
    """Make a new folder in `runs/` with all that the other commands, and `--resume`, need.

    Args:
        state: on the host, of `training.make_adjustable`.

    Raises:
        ValueError: the folder cannot be made or written.
        CheckpointError, OSError: its files cannot.
    """
    folder = records.make_workdir(epath.Path("runs") / f"live-{datetime.now():%Y%m%d-%H%M%S}")
    epochs = max(setting.config.epochs, now.epochs + (now.steps > 0))
    config = dataclasses.replace(setting.config, epochs=epochs)
    about: TrainedOn = setting.about
    records.begin_workdir(folder, config, setting.dataset.name, setting.dataset.source, about)
    records.write_json_lines(folder / "metrics.jsonl", now.history)
    # What the optimizer of `experiments.run` has: the same without what was adjustable.
    plain = state._replace(opt_state=state.opt_state.inner_state)
    details = {
        "config": dataclasses.asdict(config),
        "fingerprint": setting.fingerprint,
        "progress": now._asdict(),
    }
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(progress.steps_done(now), {setting.name: plain}, details)
    return folder


def write_results(
    folder: epath.Path,
    setting: Setting,
    now: Progress,
    test_logits: np.ndarray | None,
    validation_logits: np.ndarray | None,
) -> dict[str, Any]:
    """Write `results.json`, as `experiments.run` does at its end, and return it."""
    dataset = setting.dataset
    members = [{"network": setting.name, "seed": seed} for seed in setting.stack.seeds]
    unsure = None
    if validation_logits is not None:
        unsure = evaluation.unsure(validation_logits, dataset.validation.labels)
    layouts = {setting.name: setting.stack.layout}
    scores: dict[str, Any] = {}
    if test_logits is not None:
        scores = evaluation.split_scores("test", members, test_logits, dataset.test.labels)
    results = (
        records.describe(setting.config, dataset)
        | scores
        | {
            "unsure": unsure,
            "epochs": now.epochs + now.steps / setting.steps_per_epoch,
            "train_seconds": round(now.train_seconds, 3),
            "images_per_second": round(now.images / max(now.train_seconds, 1e-9), 1),
        }
        | records.environment(layouts, kernels.available())
    )
    records.write_json(folder / "results.json", results)
    return results
