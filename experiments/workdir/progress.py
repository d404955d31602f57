"""How far a run is: what a checkpoint holds beside the members' states, as plain values."""

from typing import Any, NamedTuple

import numpy as np

from mnist_jax.loop import Chunk


class Progress(NamedTuple):
    """Only what JSON can hold, so that it comes back from a checkpoint as it was."""

    epochs: int  # whole ones done
    steps: int  # of the next one
    losses: list[list[float]]  # [members][steps]
    history: list[dict[str, Any]]  # a record an epoch
    images: int  # trained on, times members
    train_seconds: float  # without compilation
    epoch_seconds: float = 0.0  # those of the epoch that is not done yet
    epoch_images: int = 0


def start(members: int) -> Progress:
    """Before the first step."""
    return Progress(0, 0, [[] for _ in range(members)], [], 0, 0.0)


def advance(progress: Progress, chunk: Chunk, batch_size: int) -> Progress:
    """After a chunk of steps; its losses are `[members, steps]`."""
    new = zip(progress.losses, chunk.losses.tolist(), strict=True)
    images = chunk.losses.size * batch_size
    return progress._replace(
        steps=chunk.steps_done,
        losses=[before + after for before, after in new],
        images=progress.images + images,
        train_seconds=progress.train_seconds + chunk.seconds,
        epoch_seconds=progress.epoch_seconds + chunk.seconds,
        epoch_images=progress.epoch_images + images,
    )


def end_epoch(progress: Progress, scores: dict[str, Any], learning_rate: float) -> Progress:
    """After an epoch's last step: its record joins the history.

    Args:
        scores: of validation.
        learning_rate: of the last step.
    """
    costs = np.mean(progress.losses, axis=1)
    record = {
        "epoch": progress.epochs + 1,
        "steps": progress.steps,
        "cost": float(costs.mean()),
        "member_costs": costs.tolist(),
        "learning_rate": learning_rate,
        "images_per_second": round(progress.epoch_images / progress.epoch_seconds, 1),
        "train_seconds": round(progress.train_seconds, 3),
    } | scores
    return progress._replace(
        epochs=progress.epochs + 1,
        steps=0,
        epoch_seconds=0.0,
        epoch_images=0,
        losses=[[] for _ in progress.losses],
        history=[*progress.history, record],
    )


def steps_done(progress: Progress) -> int:
    """Of the whole run, also where earlier epochs had other numbers of steps."""
    return sum(record["steps"] for record in progress.history) + progress.steps


def is_best(progress: Progress) -> bool:
    """Whether an epoch has just ended in which validation was right most often so far."""
    accuracies = [
        record["ensemble"]["validation_accuracy"]
        for record in progress.history
        if "ensemble" in record
    ]
    return progress.steps == 0 and bool(accuracies) and accuracies[-1] >= max(accuracies)
