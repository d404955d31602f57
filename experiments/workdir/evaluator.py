"""What `experiments.evaluate` does once JAX is imported: judge members, and write what it found."""

import argparse
import dataclasses
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from rich import box
from rich.table import Table

from experiments.console import cli, terminal
from experiments.console.display import WorkDisplay
from experiments.workdir import datasets, evaluation, moves, records, trained
from experiments.workdir.trained import Trained
from mnist_jax import data, images, shifts
from mnist_jax.data import Dataset, Split
from mnist_jax.data.names import NoPictures, PictureKind
from mnist_jax.data.positions import Positions
from mnist_jax.words import counted

_HINT = "See python -m experiments.evaluate --help."
_SCORES = ("error_probability", "entropy", "mutual_information")


class Evaluation(NamedTuple):
    """What the command writes into a workdir."""

    results: dict[str, Any]  # evaluation.json
    # predictions.npz: "validation" and "test" to logits, float32 [members, n, classes]
    logits: dict[str, np.ndarray]


def run(given: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    cli.start_jax()
    made, failure = None, None
    try:
        loaded = trained.load(given.workdir)
        what = loaded.config.input_is
        if given.shift and what != "image":
            raise ValueError(
                f"--shift is for images, and {given.workdir} reads {what}s.\n"
                f"--unfamiliar FILE tells {what}s of something else from those tested."
            )
        dataset = _load_dataset(loaded, given.dataset, given.data_dir)
        if not records.writable(given.workdir):
            raise ValueError(f"{given.workdir} cannot be written.")
        if given.mc_dropout and not _drops(loaded):
            raise ValueError("--mc-dropout needs networks with dropout, which these are not.")
        before = _of_these_inputs(read(loaded), dataset, what)
        parts = (given.shift, given.unfamiliar, given.mc_dropout)
        with WorkDisplay() as display:
            for made in evaluate(loaded, dataset, *parts, before=before, say=display.begin):
                try:
                    save(given.workdir, made)
                except OSError as error:  # such as a full disk: the tables can still be shown
                    failure = error
    except (ValueError, OSError) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HINT)
    except KeyboardInterrupt:
        found = "what was found is in evaluation.json" if made else "nothing was written"
        print(f"Interrupted; {found}.", file=sys.stderr)
        return cli.INTERRUPTED
    assert made is not None  # there is at least one part
    for table in tables(made.results):
        terminal.show(table)
    if failure:
        print(f"error: {given.workdir} cannot be written: {failure.strerror}.", file=sys.stderr)
        print("Evaluate it again, once that is mended.", file=sys.stderr)
        return cli.FAILED
    print(f"All of it is in {given.workdir / 'evaluation.json'}; predictions.npz holds the logits.")
    return 0


def save(workdir: epath.Path, made: Evaluation) -> None:
    """Write `evaluation.json` and, where it is not there yet, `predictions.npz`.

    Raises:
        OSError: they cannot be written.
    """
    if not _same(_read_logits(workdir), made.logits):
        (workdir / "evaluation.json").unlink(missing_ok=True)  # it is of other predictions
        records.write_arrays(workdir / "predictions.npz", made.logits)
    records.write_json(workdir / "evaluation.json", made.results)


def read(loaded: Trained) -> Evaluation | None:
    """What `save` has written of these very members; None where there is nothing of the kind."""
    try:
        results = json.loads((loaded.workdir / "evaluation.json").read_text())
    except (OSError, ValueError):
        return None
    logits = _read_logits(loaded.workdir)
    same = results.get("step") == loaded.step and results.get("weights") == trained.digest(loaded)
    return Evaluation(results, logits) if same and logits else None


def _read_logits(workdir: epath.Path) -> dict[str, np.ndarray]:
    """The content of `predictions.npz`; empty where there is none, or it is damaged."""
    try:
        with (workdir / "predictions.npz").open("rb") as file:
            return dict(np.load(file))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def _same(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(
        np.array_equal(some[name], others[name]) for name in some
    )


def is_of(results: dict[str, Any], dataset: Dataset) -> bool:
    """Whether an evaluation is of a data set's inputs."""
    return results["dataset"].get("fingerprint") == data.fingerprint(dataset)


def _of_these_inputs(before: Evaluation | None, dataset: Dataset, what: str) -> dict[str, Any]:
    """An earlier evaluation's results; empty, and said, where they are of other inputs."""
    if before is None:
        return {}
    if not is_of(before.results, dataset):
        name = before.results["dataset"]["name"]
        print(f"evaluation.json is of other {what}s ({name}) and will be replaced")
        return {}
    return before.results


def _drops(loaded: Trained) -> bool:
    return all(getattr(member.network, "dropout_rate", 0) > 0 for member in loaded.members)


def _load_dataset(loaded: Trained, name: str | None, data_dir: str | None) -> Dataset:
    """The data to evaluate on, of the size and colours trained on.

    Photographs in folders are scaled to it, grey and coloured ones become what those were. Images
    of another size are refused otherwise.
    """
    if name is None and data_dir is None:
        return trained.load_dataset(loaded)
    if loaded.config.input_is != "image":
        return datasets.load(loaded.config, loaded.trained_on, name, data_dir)
    name = name or datasets.name_of(loaded.config, data_dir)
    load = partial(_load_split, loaded, name, data_dir)
    kind = datasets.picture_kind(loaded.trained_on)
    height, width, _ = loaded.image_shape
    try:
        dataset = load(None, "photographs" if kind == "auto" else kind)
        if loaded.trained_on.dark:
            dataset = _changed(dataset, lambda inputs: 255 - inputs)
        can_be_scaled = kind == "photographs" and height == width
        if can_be_scaled and dataset.test.inputs.shape[1:] != loaded.image_shape:
            dataset = load(height, kind)
    except NoPictures:
        dataset = load(None, "auto")
    here = dataset.test.inputs.shape[1:]
    if not dataset.characters and here[:2] == loaded.image_shape[:2]:
        return _changed(dataset, partial(_as_photos, shape=loaded.image_shape))
    if here != loaded.image_shape:
        raise ValueError(
            f"{dataset.name} has images of {_by(here)}; {loaded.workdir} was trained on "
            f"{_by(loaded.image_shape)}.\n"
            "Evaluate on images of that size and as many channels, by --dataset or --data-dir."
        )
    return dataset


def _changed(dataset: Dataset, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """A data set with the images of all its splits changed."""

    def made(split: Split) -> Split:
        return split._replace(inputs=change(split.inputs))

    train, validation, test = map(made, (dataset.train, dataset.validation, dataset.test))
    return dataclasses.replace(dataset, train=train, validation=validation, test=test)


def _as_photos(inputs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images, maybe none, as `images.to_photo` makes them; as they are where they have `shape`."""
    if inputs.shape[1:] == shape:
        return inputs
    made = np.empty((len(inputs), *shape), np.uint8)
    for photo, image in zip(made, inputs, strict=True):
        photo[:] = images.to_photo(image, *shape)
    return made


def _load_split(
    loaded: Trained,
    name: str,
    data_dir: str | None,
    image_size: int | None,
    picture_kind: PictureKind,
) -> Dataset:
    """Data with the validation images that they had in training; others with those of their own."""
    load = partial(
        data.load,
        name,
        data_dir,
        class_names=loaded.class_names,
        image_size=image_size,
        picture_kind=picture_kind,
        as_mnist=loaded.trained_on.as_mnist is True,
    )
    if name == loaded.config.dataset and loaded.config.validation is not None:
        with suppress(ValueError):  # they are fewer images than that
            dataset = load(validation=loaded.config.validation)
            if loaded.fingerprint in (None, data.fingerprint(dataset)):
                return dataset
    return load()


def _load_unfamiliar(loaded: Trained, path: str) -> tuple[np.ndarray, str]:
    """Inputs of anything; images made into the size and colours trained on, and that in words."""
    if loaded.config.input_is != "image":
        return datasets.load_test(loaded, path), path
    image_shape = loaded.image_shape
    kind = datasets.picture_kind(loaded.trained_on)
    # To networks of characters, things are as unfamiliar.
    kind = "auto" if kind == "characters" else kind
    try:
        inputs = data.load_test(path, picture_kind=kind).inputs
    except NoPictures:
        inputs = data.load_test(path).inputs
    except data.DataError:  # no character on one of them, or it cannot be read
        inputs = data.load_test(path, picture_kind="photographs").inputs
    if inputs.shape[1:] == image_shape:
        return inputs, path
    return _as_photos(
        inputs, image_shape
    ), f"{path}, from {_by(inputs.shape[1:])} to {_by(image_shape)}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def evaluate(
    loaded: Trained,
    dataset: Dataset,
    shift_names: Sequence[str] = (),
    unfamiliar_dir: str | None = None,
    mc_dropout: int = 0,
    before: Mapping[str, Any] | None = None,
    say: Callable[[str, float], None] = lambda what, done: print(what, flush=True),
) -> Iterator[Evaluation]:
    """Predict and judge, part by part: first what is always judged, then dropout while predicting,
    unfamiliar images and each shift, where they are asked for.

    The temperatures are fitted on the validation images; without them there is no scaling.

    Args:
        before: results of an earlier evaluation of the same members and images, of which the parts
            that are not asked for now are kept.
        say: is told what is predicted next, and how much is done before it: from 0 to 1 of all
            predictions.

    Yields:
        After each part, all that is known by then.

    Raises:
        DataError: `unfamiliar_dir` lacks a file, or one is damaged.
    """
    kept: dict[str, Any] = {"unfamiliar": None, "shifts": {}, "mc_dropout": None}
    kept |= {name: before[name] for name in kept if before}

    what = loaded.config.input_is
    unfamiliar, source = None, unfamiliar_dir
    if unfamiliar_dir is not None:
        unfamiliar, source = _load_unfamiliar(loaded, unfamiliar_dir)
    always = [dataset.validation.inputs, dataset.test.inputs]
    always += [] if unfamiliar is None else [unfamiliar]
    shifted_times = sum(len(shifts.AMOUNTS[name]) - 1 for name in shift_names)
    total = sum(map(len, always)) * (1 + mc_dropout) + len(dataset.test.inputs) * shifted_times
    predicted = 0

    def predict(
        what: str, images: np.ndarray, how: str = "", dropout_seed: int | None = None
    ) -> np.ndarray:
        nonlocal predicted
        say(f"Predicting {counted(len(images), what)}{how}", predicted / total)
        logits = loaded.predict(images, dropout_seed)
        predicted += len(images)
        return logits

    def predict_dropping(what: str, images: np.ndarray) -> np.ndarray:
        passes = [
            predict(what, images, f" with dropout, {seed + 1} of {mc_dropout}", seed)
            for seed in range(mc_dropout)
        ]
        return np.concatenate(passes)

    by_split = {}
    temperatures, unsure = None, None
    if len(dataset.validation.labels):
        by_split["validation"] = predict(f"validation {what}", dataset.validation.inputs)
        temperatures = evaluation.fit_temperatures(
            by_split["validation"], dataset.validation.labels
        )
        unsure = evaluation.unsure(by_split["validation"], dataset.validation.labels)
    test, labels = dataset.test
    logits = by_split["test"] = predict(f"test {what}", test)
    results = {
        "step": loaded.step,
        "weights": trained.digest(loaded),
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "fingerprint": data.fingerprint(dataset),
        },
        "validation_size": len(dataset.validation.labels),
        "test_size": len(labels),
        "inputs": f"{what}s",
        **evaluation.scores(logits, labels, temperatures),
        "diversity": evaluation.diversity(logits, labels),
        "sizes": evaluation.sizes(logits, labels),
        "curves": evaluation.curves(logits, labels, temperatures),
        "unsure": unsure,
        **kept,
    }
    results["members"] = [
        member.describe() | {"name": member.name} | row
        for member, row in zip(loaded.members, results["members"], strict=True)
    ]
    if isinstance(dataset, Positions):
        say("Predicting turned boards", predicted / total)
        results["moves"] = moves.scores(logits, dataset, loaded.predict)
    yield Evaluation(dict(results), by_split)
    if mc_dropout:
        passes = predict_dropping(f"test {what}", test)
        dropping_temperatures = None
        if len(dataset.validation.labels):
            dropping_temperatures = evaluation.fit_temperatures(
                predict_dropping(f"validation {what}", dataset.validation.inputs),
                dataset.validation.labels,
            )
        rules = evaluation.scores(passes, labels, dropping_temperatures)["rules"]
        results["mc_dropout"] = {"passes": mc_dropout} | rules["mean_probability"]
        yield Evaluation(dict(results), by_split)
    if unfamiliar is not None:
        found = {"source": source, "size": len(unfamiliar)}
        found |= evaluation.detection(logits, predict(f"unfamiliar {what}", unfamiliar))
        if mc_dropout:
            strange = predict_dropping(f"unfamiliar {what}", unfamiliar)
            found["mc_dropout"] = evaluation.detection(passes, strange)["ensemble"]
        results["unfamiliar"] = found
        yield Evaluation(dict(results), by_split)
    for name in shift_names:
        strengths = []
        for strength, amount in enumerate(shifts.AMOUNTS[name]):
            if strength > 0:
                shifted = shifts.apply(name, test, strength)
                logits_here = predict("test image", shifted, f", {name} {amount:g}")
            else:
                logits_here = logits
            strengths.append(
                {"strength": strength, "amount": amount}
                | evaluation.scores(logits_here, labels, temperatures)
                | {"diversity": evaluation.diversity(logits_here, labels)}
            )
        results["shifts"] = results["shifts"] | {name: strengths}
        yield Evaluation(dict(results), by_split)


def tables(results: dict[str, Any]) -> Iterator[Table]:
    """What the terminal shows of `evaluate`'s results."""
    names = [row["name"] for row in results["members"]]
    rows = dict(zip(names, results["members"], strict=True))
    if len(rows) > 1:
        rows |= {rule.replace("_", " "): row for rule, row in results["rules"].items()}
    if results["mc_dropout"]:
        rows[f"{results['mc_dropout']['passes']} x dropout"] = results["mc_dropout"]
    name = results["dataset"]["name"]
    what = results.get("inputs", "images").removesuffix("s")  # an older evaluation has none
    title = f"{name}: {counted(results['test_size'], f'test {what}')}"
    yield _predictions(f"{title}; accuracy also after refusing the least certain", rows)
    if "moves" in results:
        yield from moves.tables(results["moves"], names)
    if results["validation_size"]:
        validation = counted(results["validation_size"], f"validation {what}")
        yield _calibration(f"Before → after scaling by T, from {validation}", rows)
    if len(names) > 1:
        yield _sizes(results)
        yield _diversity(results["diversity"], what)
    if results["unfamiliar"]:
        yield _detection(names, results["unfamiliar"], what)
    for shift, strengths in results["shifts"].items():
        yield _shift(f"{shift} ({shifts.UNITS[shift]})", strengths)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
    )
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _predictions(title: str, rows: dict[str, Any]) -> Table:
    refused = [f"refuse\n{percent} %" for percent in evaluation.REFUSED_PERCENT]
    table = _table(title, "", "accuracy\n%", *refused, "NLL", "Brier", "AURC %")
    for name, row in rows.items():
        scores = row["before"]
        accuracies = ["accuracy"]
        accuracies += [f"accuracy_refusing_{p}_percent" for p in evaluation.REFUSED_PERCENT]
        table.add_row(
            name,
            *(_percent(scores[metric]) for metric in accuracies),
            _number(scores["nll"]),
            _number(scores["brier"]),
            f"{100 * scores['aurc']:.3f}",
        )
    return table


def _calibration(title: str, rows: dict[str, Any]) -> Table:
    table = _table(title, "", "T", "NLL", "ECE %", "adaptive ECE %")
    for name, row in rows.items():
        before, after = row["before"], row["after"]
        table.add_row(
            name,
            f"{row['temperature']:.3f}",
            f"{_number(before['nll'])} → {_number(after['nll'])}",
            f"{_percent(before['ece'])} → {_percent(after['ece'])}",
            f"{_percent(before['adaptive_ece'])} → {_percent(after['adaptive_ece'])}",
        )
    return table


def _sizes(results: dict[str, Any]) -> Table:
    table = _table(
        "Ensembles of some of the members: mean ± standard deviation over subsets",
        *("members", "subsets", "accuracy %", "NLL", "ECE %", "sum logits %", "vote %"),
    )
    for row in results["sizes"]:
        mean = row["mean_probability"]
        some = "" if row["subsets"] == row["of"] else f" of {row['of']:,}"
        table.add_row(
            str(row["size"]),
            f"{row['subsets']}{some}",
            _spread(mean["accuracy"]),
            _number(mean["nll"]["mean"]),
            _percent(mean["ece"]["mean"]),
            _spread(row["sum_logits"]["accuracy"]),
            _spread(row["majority_vote"]["accuracy"]),
        )
    return table


def _diversity(diversity: dict[str, Any], what: str) -> Table:
    table = _table("How the members differ", "", "")
    table.show_header = False
    uncertainty = diversity["uncertainty"]
    table.add_row(f"two members disagree on, % of {what}s", _percent(diversity["disagreement"]))
    table.add_row("correlation of two members' errors", _number(diversity["error_correlation"]))
    table.add_row("total uncertainty, nats", _number(uncertainty["total"]))
    table.add_row("  aleatoric: the members' own", _number(uncertainty["aleatoric"]))
    table.add_row("  epistemic: mutual information", _number(uncertainty["epistemic"]))
    return table


def _detection(names: list[str], unfamiliar: dict[str, Any], what: str) -> Table:
    share = _percent(unfamiliar["share"])
    count = counted(unfamiliar["size"], f"unfamiliar {what}")
    title = f"{count} ({share} % of all): AUROC % / AUPR %"
    table = _table(title, "told apart by", *(name.replace("_", " ") for name in _SCORES))
    rows = dict(zip(names, unfamiliar["members"], strict=True))
    if len(rows) > 1:
        rows["ensemble"] = unfamiliar["ensemble"]
    if "mc_dropout" in unfamiliar:
        rows["dropout"] = unfamiliar["mc_dropout"]
    for name, by in rows.items():
        areas = [by.get(score, {"auroc": None, "aupr": None}) for score in _SCORES]
        cells = [f"{_percent(area['auroc'])} / {_percent(area['aupr'])}" for area in areas]
        table.add_row(name, *cells)
    return table


def _shift(title: str, strengths: list[dict[str, Any]]) -> Table:
    columns = ["a member's\naccuracy %", "ensemble's\naccuracy %", "NLL", "ECE %", "disagree %"]
    table = _table(title, "", *columns)
    for row in strengths:
        members = np.mean([member["before"]["accuracy"] for member in row["members"]])
        together = row["rules"]["mean_probability"]
        before, after = together["before"], together["after"] or {"nll": None, "ece": None}
        table.add_row(
            f"{row['amount']:g}",
            _percent(float(members)),
            _percent(before["accuracy"]),
            f"{_number(before['nll'])} → {_number(after['nll'])}",
            f"{_percent(before['ece'])} → {_percent(after['ece'])}",
            _percent(row["diversity"]["disagreement"]),
        )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _spread(accuracy: dict[str, float]) -> str:
    return f"{_percent(accuracy['mean'])} ± {_percent(accuracy['std'])}"
