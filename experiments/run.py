"""Train and evaluate: `python -m experiments.run --config deep`."""

import dataclasses
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import cli, records
from experiments.config import Config
from experiments.display import TrainingDisplay, draw
from mnist_jax import data, ensemble, loop, metrics, models, parallel, training
from mnist_jax.data import Dataset
from mnist_jax.parallel import Layout

INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parsed = cli.parse(sys.argv[1:] if argv is None else argv)
    if parsed is None:
        return 0
    name, config, workdir = parsed
    warnings.showwarning = cli.show_warning
    cli.use_compilation_cache()
    try:
        parallel.use_cpu_cores(config.devices)
        layout = _plan(config)
        models.create(config.network, **config.network_options)
        dataset = data.load(config.dataset, config.data_dir, validation=config.validation)
        training.steps_per_epoch(len(dataset.train.labels), config.batch_size)
        workdir = workdir or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        records.create_workdir(workdir)
    except (ValueError, data.DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or "See python -m experiments.run --help.")
    except KeyboardInterrupt:
        print("Interrupted before training began; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    return run(config, dataset, layout, workdir)


def run(config: Config, dataset: Dataset, layout: Layout, workdir: Path) -> int:
    """Train, evaluate, and write everything into the workdir, an empty folder.

    Returns:
        0, or 130 after an interrupt (what was trained is saved and evaluated), or 1 when the loss
        became NaN or infinite (the workdir keeps the state after the last whole epoch).
    """
    # These take a second to import, which a mistyped command should not have to wait for.
    from tensorboardX import SummaryWriter

    from mnist_jax.checkpoints import Checkpoints

    print(
        f"{config.members} x {config.network} on {len(dataset.train.labels):,} images of "
        f"{dataset.name} ({dataset.source}), {_devices_line(layout)}; into {workdir}",
        flush=True,
    )
    records.write_json(workdir / "config.json", dataclasses.asdict(config))
    network = models.create(config.network, len(dataset.class_names), **config.network_options)
    steps = config.epochs * training.steps_per_epoch(len(dataset.train.labels), config.batch_size)
    optimizer = training.make_optimizer(
        config.learning_rate, steps, config.optimizer, config.schedule, config.weight_decay
    )
    predict = parallel.make_predict(layout, network)
    state = parallel.init(layout, network, optimizer, config.seeds)
    epoch_losses: list[np.ndarray] = []
    seconds = images_seen = 0.0
    with (
        Checkpoints(workdir / "checkpoints") as checkpoints,
        SummaryWriter(str(workdir / "tensorboard")) as board,
        TrainingDisplay(config.epochs, config.batch_size * config.members) as display,
        loop.interrupts() as interrupted,
    ):
        checkpoints.save(0, parallel.gather(layout, state))
        try:
            for chunk in loop.train(
                layout,
                network,
                optimizer,
                state,
                config.seeds,
                dataset.train.images,
                dataset.train.labels,
                batch_size=config.batch_size,
                epochs=config.epochs,
                data_seed=config.data_seed,
            ):
                display.update(chunk)
                epoch_losses.append(chunk.losses)
                seconds += chunk.seconds
                images_seen += chunk.losses.size * config.batch_size
                if chunk.steps_done < chunk.steps and not interrupted:
                    continue
                state = parallel.gather(layout, chunk.state)
                checkpoints.save(int(state.step[0]), state)
                losses = np.concatenate(epoch_losses, axis=1)
                epoch = _epoch_record(chunk, losses)
                if len(dataset.validation.labels):
                    logits = predict(chunk.state.params, dataset.validation.images)
                    epoch |= _scores(config, "validation", logits, dataset.validation.labels)
                epoch_losses.clear()
                records.append_json_line(workdir / "metrics.jsonl", epoch)
                for tag, value in records.scalars(epoch):
                    board.add_scalar(tag, value, int(state.step[0]))
                display.print(_epoch_line(epoch))
                if interrupted:
                    display.print("Interrupted: what is trained is saved, and evaluated now.")
                    break
        except loop.NonFiniteLoss as error:
            print(f"error: {error}", file=sys.stderr)
            print(f"The last good state is in {workdir / 'checkpoints'}.", file=sys.stderr)
            return 1
    logits = predict(chunk.state.params, dataset.test.images)
    results = (
        records.describe(config, dataset)
        | _scores(config, "test", logits, dataset.test.labels)
        | {
            "epochs": chunk.epoch - 1 + chunk.steps_done / chunk.steps,
            "train_seconds": round(seconds, 3),
            "compile_seconds": round(chunk.compile_seconds, 3),
            "images_per_second": round(images_seen / seconds, 1),
        }
        | records.environment(layout)
    )
    records.write_json(workdir / "results.json", results)
    _print_results(results, logits, dataset)
    return INTERRUPTED if interrupted else 0


def _plan(config: Config) -> Layout:
    devices = jax.local_devices()
    if config.devices is not None and config.devices > len(devices):
        raise ValueError(f"--devices must be at most {len(devices)}, not {config.devices}.")
    return parallel.plan(config.members, devices[: config.devices], config.data_parallel)


def _devices_line(layout: Layout) -> str:
    count = len(layout.devices)
    devices = f"{count} {layout.devices[0].device_kind} device{'s' if count > 1 else ''}"
    if layout.groups == 1:
        return devices if count == 1 else f"{devices} sharing each batch"
    return f"{devices}, {layout.data} a member" if layout.data > 1 else f"{devices} sharing members"


def _scores(config: Config, split: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy and NLL of each member and of the ensemble, named after the split.

    The ensemble's accuracy is that of summed logits, the lab's rule; its NLL that of the members'
    mean probability.
    """
    accuracies, nlls = metrics.accuracy(logits, labels), metrics.nll(logits, labels)
    together = {
        f"{split}_accuracy": float(metrics.accuracy(ensemble.sum_logits(logits), labels)),
        f"{split}_nll": float(metrics.nll(ensemble.mean_probability(logits), labels)),
    }
    return {
        "members": [
            {"seed": seed, f"{split}_accuracy": float(accuracy), f"{split}_nll": float(nll)}
            for seed, accuracy, nll in zip(config.seeds, accuracies, nlls, strict=True)
        ],
        "ensemble": together,
    }


def _epoch_record(chunk: loop.Chunk, losses: np.ndarray) -> dict[str, Any]:
    """A line of `metrics.jsonl` without scores; `losses` are the epoch's `[members, steps]`."""
    return {
        "epoch": chunk.epoch,
        "steps": losses.shape[1],
        "cost": float(losses.mean()),
        "member_costs": losses.mean(axis=1).tolist(),
    }


def _epoch_line(epoch: dict[str, Any]) -> str:
    line = f"Epoch: {epoch['epoch']:04d} cost = {epoch['cost']:.9f}"
    if "ensemble" in epoch:
        line += f" validation accuracy = {epoch['ensemble']['validation_accuracy']:.4f}"
    return line


def _print_results(results: dict[str, Any], logits: np.ndarray, dataset: Dataset) -> None:
    if len(results["members"]) > 1:
        for i, member in enumerate(results["members"]):
            print(f"{i} Accuracy: {member['test_accuracy']:.4f}")
        print(f"Ensemble accuracy: {results['ensemble']['test_accuracy']:.4f}")
    else:
        print(f"Accuracy: {results['ensemble']['test_accuracy']:.4f}")
    random = np.random.default_rng(results["config"]["seed"])
    digit = int(random.integers(len(dataset.test.labels)))
    print(f"Label: {dataset.class_names[dataset.test.labels[digit]]}")
    print(f"Prediction: {dataset.class_names[logits[:, digit].sum(axis=0).argmax()]}")
    print(draw(dataset.test.images[digit]))
    print(
        f"Trained in {results['train_seconds']:.1f} s "
        f"({results['images_per_second']:,.0f} images/s), "
        f"compiled in {results['compile_seconds']:.1f} s."
    )


if __name__ == "__main__":
    sys.exit(main())
