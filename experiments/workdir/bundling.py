"""What `experiments.bundle` does once JAX is imported: a workdir's weights as a small folder."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from experiments.console import cli
from experiments.console.display import WorkDisplay
from experiments.workdir import config as configs
from experiments.workdir import evaluation, evaluator, records, trained
from experiments.workdir.trained import Trained
from mnist_jax import pretrained, shifts, weights_file
from mnist_jax.data import Dataset, DataUnavailable
from mnist_jax.weights_file import Content
from mnist_jax.words import counted

CARD = "MODEL_CARD.md"
_DIGITS_ARE_FOR = """\
For pictures of digits written by hand, one or several on a picture, as `python -m
experiments.predict PICTURE` takes them. Answers marked `unsure` are for a person to look at.

Not for letters, for the digits of other scripts, or for pictures that show something else: what is
no digit is often, not always, marked `unsure`. Not for amounts, postcodes, forms or examination
papers that nobody checks: about one digit in {} of MNIST's is wrong, and more of other people's.
MNIST's were written by employees of the American Census Bureau and by American pupils, in the way
that digits are written there."""
_OTHERS_ARE_FOR = """\
For what is like the data that they were trained on, and for nothing else."""


def run(workdir: epath.Path, output: epath.Path) -> int:
    """Make the folder; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    cli.start_jax()
    unfinished = output.parent / f"{output.name}.{os.getpid()}.tmp"
    try:
        loaded = trained.load(workdir)
        dataset = trained.load_dataset(loaded)
        _write(loaded, dataset, unfinished)
        if output.exists():
            output.rmdir()  # it is empty
        unfinished.rename(output)
    except (ValueError, DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or "See python -m experiments.bundle --help.")
    except OSError as error:
        print(f"error: {output} cannot be written: {error.strerror or error}.", file=sys.stderr)
        return cli.FAILED
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return cli.INTERRUPTED
    finally:
        if unfinished.exists():
            unfinished.rmtree()
    size = (output / weights_file.NAME).stat().length
    print(f"{output}: {size / 1e6:.2f} MB of weights; {CARD} tells what they are.")
    packaged = pretrained.FOLDER / weights_file.NAME
    if packaged.exists() and packaged.read_bytes() == (output / weights_file.NAME).read_bytes():
        print("The weights are, to the bit, those that come with the package.")
    asked = f"{shlex.quote(str(output))} {loaded.config.predict_takes}"
    print(f"python -m experiments.predict {asked} uses them.")
    return 0


def _write(loaded: Trained, dataset: Dataset, folder: epath.Path) -> None:
    """Write all files: what is in them depends on the weights and the data alone.

    Raises:
        ValueError: the members are snapshots, or their weights do not go into half precision.
        OSError: the folder cannot be written.
    """
    if loaded.config.snapshots > 1:
        raise ValueError(f"{loaded.workdir} holds snapshots, which a bundle cannot hold.")
    # Where files lay on this machine is of no use elsewhere.
    vectors = loaded.config.vectors and Path(loaded.config.vectors).name
    config = dataclasses.replace(loaded.config, data_dir=None, vectors=vectors)
    folder.mkdir(parents=True)
    records.write_json(folder / "config.json", dataclasses.asdict(config))
    dataset = dataclasses.replace(dataset, source=f"SHA-256 {loaded.fingerprint}")
    records.write_dataset(folder, dataset.name, dataset.source, loaded.trained_on)
    details = {"step": loaded.step, "fingerprint": loaded.fingerprint}
    weights_file.write(folder / weights_file.NAME, Content(_stacked(loaded), details))
    bundled = trained.load(folder)
    results = _results(bundled, dataset)
    records.write_json(folder / "results.json", results)
    (folder / CARD).write_text("\n".join(_card(bundled, results)) + "\n")


def _stacked(loaded: Trained) -> dict[str, Any]:
    """Each network's variables, members first."""
    stacked = {}
    for kind in loaded.config.kinds:
        own = [m.variables for m in loaded.members if m.network_name == kind.network]
        stacked[kind.network] = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
    return stacked


def _results(loaded: Trained, dataset: Dataset) -> dict[str, Any]:
    """`results.json`, as that of a run, of the rounded weights."""
    wanted = shifts.NAMES if loaded.config.input_is == "image" else ()
    with WorkDisplay() as display:
        *_, made = evaluator.evaluate(loaded, dataset, wanted, say=display.begin)
    members = [member.describe() for member in loaded.members]
    described = records.describe(loaded.config, dataset)
    mean = made.results["rules"]["mean_probability"]["before"]
    accuracies = {
        name: [at["rules"]["mean_probability"]["before"]["accuracy"] for at in strengths]
        for name, strengths in made.results["shifts"].items()
    }
    described["epochs"] = loaded.step * loaded.config.batch_size / described["train_size"]
    return (
        described
        | evaluation.split_scores("test", members, made.logits["test"], dataset.test.labels)
        | {
            "mean_probability": {  # as `predict` answers
                "test_accuracy": mean["accuracy"],
                "test_nll": mean["nll"],
            },
            "unsure": made.results["unsure"],
            "shift_accuracy": accuracies,  # by strength, 0 to 5, of the mean probability
            "versions": records.versions(),
        }
    )


def _card(loaded: Trained, results: dict[str, Any]) -> Iterator[str]:
    """The model card, line by line."""
    config = loaded.config
    kinds = " and ".join(f"{len(kind.seeds)} x {kind.network}" for kind in config.kinds)
    weights = sum(leaf.size for m in loaded.members for leaf in jax.tree.leaves(m.variables))
    data, what = results["dataset"], config.input_is
    yield f"# {kinds} on {data['name']}"
    yield ""
    held = f"{counted(weights, 'weight')} in half precision"
    if len(loaded.members) > 1:
        yield f"{held}; several networks answer together, by"
        yield "their mean probability. Trained by"
    else:
        yield f"{held}. Trained by"
    yield ""
    yield f"    {configs.command_line(config)}"
    yield ""
    yield f"on {counted(results['train_size'], what)} of {data['name']}"
    yield f"({data['source']}); {results['validation_size']:,} others for validation."
    yield ""
    yield "## What they are for, and what not"
    yield ""
    together = results["mean_probability"]
    error = 1 - together["test_accuracy"]
    of_digits = loaded.characters and loaded.class_names == tuple("0123456789")
    yield _DIGITS_ARE_FOR.format(round(1 / max(error, 1e-9))) if of_digits else _OTHERS_ARE_FOR
    yield ""
    yield "## How good they are"
    yield ""
    tested = counted(results["test_size"], f"test {what}")
    yield f"On {tested}, accuracy in percent and NLL in nats:"
    yield ""
    yield "| member | accuracy | NLL |"
    yield "|---|---|---|"
    for row in results["members"]:
        name = f"`{row['network']}`, seed {row['seed']}"
        yield f"| {name} | {100 * row['test_accuracy']:.2f} | {row['test_nll']:.4f} |"
    yield f"| together | {100 * together['test_accuracy']:.2f} | {together['test_nll']:.4f} |"
    if results["shift_accuracy"]:
        yield ""
        yield "Together, on the same images changed, by strength:"
        yield ""
        yield "| | 1 | 2 | 3 | 4 | 5 |"
        yield "|---|---|---|---|---|---|"
        for name, (_, *accuracies) in results["shift_accuracy"].items():
            cells = " | ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
            yield f"| {name} | {cells} |"
