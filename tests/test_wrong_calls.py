"""What users do wrong: each mistake gets one clear error, and leaves nothing behind."""

import jax
import numpy as np
import pytest

from experiments import run
from experiments.console import cli
from mnist_jax import data, loop, models, parallel, training
from mnist_jax.classifier import Classifier
from tests.tiny import Tiny, problem


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--config", "dep"], "--config dep does not exist", "deep"),
        (["--config", "zzz"], "--config zzz does not exist", "class, convnetjs"),
        (["--epoch", "3"], "--epoch is no flag", "--epochs"),
        (["--epochs", "three"], "--epochs takes a whole number, not 'three'", "--help"),
        (["--epochs", "1.5"], "--epochs takes a whole number, not '1.5'", "--help"),
        (["--epochs", "none"], "--epochs takes a whole number, not 'none'", "--help"),
        (["--epochs"], "argument --epochs: expected one argument", "--help"),
        (["--epochs", "0"], "--epochs must be at least 1, not 0", "--help"),
        (["--epochs", "-1"], "--epochs must be at least 1, not -1", "--help"),
        (["--members", "0"], "--members must be at least 1, not 0", "--help"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0", "--help"),
        (["--seed", "-1"], "--seed must be at least 0, not -1", "--help"),
        (["--learning-rate", "0"], "--learning-rate must be above 0", "--help"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0", "--help"),
        (["--dropout", "1.5"], "--dropout must be in [0, 1), not 1.5", "--help"),
        (["--devices", "0"], "--devices must be at least 1", "--help"),
        (["--optimizer", "adamm"], "--optimizer adamm does not exist", "adam"),
        (["--dataset", "minst"], "--dataset minst does not exist", "mnist"),
        (["--network", "deeep"], "--network deeep does not exist", "deep"),
        (["surplus"], "surplus is no flag", "There are"),
        (["--devices", "99"], "devices must be from 1 to the", "--help"),
        (["--data-parallel", "99"], "data must be from 1 to the", "--help"),
        (["--config", "simple", "--dropout", "0.5"], "'simple' has no option", "--help"),
        (["--data-dir", "/nowhere"], "/nowhere is no folder", "--help"),
        (
            ["--dataset", "mnist5k", "--batch-size", "4001"],
            "batch_size must be from 1 to the 4,000 training images, not 4001",
            "Add --batch-size 4000",
        ),
        (["--batch-size", "-5"], "--batch-size must be at least 1, not -5", "--help"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0, not -1", "--help"),
        (["--learning-rate", "fast"], "--learning-rate takes a number, not 'fast'", "--help"),
        (["--learning-rate", "inf"], "--learning-rate must be above 0, not inf", "--help"),
        (["--dropout", "-0.1"], "--dropout must be in [0, 1), not -0.1", "--help"),
        (["--dropout", "1"], "--dropout must be in [0, 1), not 1.0", "--help"),
        (["--beta1", "1"], "--beta1 must be in [0, 1), not 1.0", "--help"),
        (["--beta2", "nan"], "--beta2 must be in [0, 1), not nan", "--help"),
        (["--ema", "1"], "--ema must be in [0, 1), not 1.0", "--help"),
        (["--snapshots", "0"], "--snapshots must be at least 1, not 0", "--help"),
        (["--snapshots", "4"], "--snapshots must divide the 15 epochs, which 4 does not", "--help"),
        (
            ["--augment", "wild"],
            "--augment wild does not exist",
            "none, shift, affine, crop-flip, handwriting",
        ),
        (["--shuffles", "mine"], "--shuffles mine does not exist", "shared, own"),
        (["--precision", "bfloat"], "--precision bfloat does not exist", "bfloat16"),
        (["--weight-decay", "-1"], "--weight-decay must be at least 0", "--help"),
        (["--save-seconds", "-1"], "--save-seconds must be at least 0", "--help"),
        (["--validation", "-1"], "--validation must be at least 0", "--help"),
        (["--data-parallel", "0"], "--data-parallel must be at least 1", "--help"),
        (["--seed", "4294967296"], "seed + members", "--help"),
        (["--schedule", "cosin"], "--schedule cosin does not exist", "cosine"),
        (["--members", "two"], "--members must be a whole number, or like", "--help"),
        (["--members", "deep:0"], "--members must be at least 1", "--help"),
        (["--members", "deep:1,deep:2"], "--members must have each network once", "--help"),
        (["--members", "deeep:2"], "--members has 'deeep'", "--help"),
        (["--members", "1.5"], "--members must be a whole number, or like", "--help"),
        (["--config", "deep", "--conv-stddev", "-1"], "conv_stddev must not be negative", "--help"),
        (["--config", ""], "--config  does not exist", "There are"),
        (["--dataset", "mnist5k", "--data-dir", "x"], "data_dir has no use with mnist5k", "--help"),
        (["--resume", "nowhere"], "--resume nowhere is no workdir", "earlier run"),
        (["--resume", "."], "--resume . is no workdir", "earlier run"),
        (["--num-processes", "x"], "argument --num-processes: invalid int value", "--help"),
        (["--dataset", "mnist5k", "--validation", "4500"], "validation must be from 0", "--help"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(argv, message, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]
    assert not list(tmp_path.iterdir())


IMAGES, LABELS = problem(12)
FLOATS = np.float32(IMAGES / 255)


def train(images=IMAGES, labels=LABELS, seeds=(0, 1), batch_size=4, epochs=1, classes=10):
    layout = parallel.plan(2, jax.local_devices()[:1])
    network, optimizer = Tiny(num_classes=classes), training.make_optimizer(0.01, 3)
    state = None  # no call comes so far as to use it
    chunks = loop.train(
        layout,
        network,
        optimizer,
        state,
        seeds,
        images,
        labels,
        batch_size=batch_size,
        epochs=epochs,
    )
    next(chunks)


def predict(images):
    layout = parallel.plan(1, jax.local_devices()[:1])
    parallel.make_predict(layout, Tiny())(None, images)


def fit(images=IMAGES, labels=LABELS, **options):
    Classifier(Tiny(), **({"epochs": 1, "batch_size": 4} | options)).fit(images, labels)


def with_pixel(value):
    images = FLOATS.copy()
    images[3, 2, 1] = value
    return images


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.load("minst"), ValueError, "name 'minst'"),
        (lambda: data.load(""), ValueError, "name ''"),
        (lambda: data.load("mnist5k", validation=-1), ValueError, "validation must be from 0"),
        (lambda: data.load("mnist5k", validation=4500), ValueError, "not 4500"),
        (lambda: data.load("mnist5k", "folder"), ValueError, "data_dir has no use"),
        (lambda: data.load("kmnist", "/nowhere"), ValueError, "/nowhere is no folder"),
        (lambda: models.create("deeep"), ValueError, "Did you mean 'deep'"),
        (lambda: models.create("deep", 1), ValueError, "num_classes must be at least 2"),
        (lambda: models.create("deep", dropout_rate=1.5), ValueError, "dropout_rate must be in"),
        (lambda: models.create("deep", conv_stddev=-1), ValueError, "conv_stddev must not"),
        (lambda: models.create("simple", width=3), ValueError, "no option 'width'"),
        (lambda: training.make_optimizer(0, 1), ValueError, "learning_rate must be above 0"),
        (lambda: training.make_optimizer(float("nan"), 1), ValueError, "learning_rate"),
        (lambda: training.make_optimizer(0.1, 1, "lion"), ValueError, "optimizer must be one of"),
        (
            lambda: training.make_optimizer(0.1, 1, schedule="step"),
            ValueError,
            "schedule must be one of",
        ),
        (
            lambda: training.make_optimizer(0.1, 1, weight_decay=-1),
            ValueError,
            "weight_decay must be at least 0",
        ),
        (lambda: training.make_optimizer(0.1, 1, beta1=1.0), ValueError, "beta1 must be in"),
        (lambda: training.steps_per_epoch(10, 0), ValueError, "batch_size must be from 1 to"),
        (lambda: training.steps_per_epoch(10, 11), ValueError, "batch_size must be from 1 to"),
        (lambda: parallel.plan(0), ValueError, "members must be at least 1"),
        (lambda: parallel.plan(1, None, 9), ValueError, "data must be from 1 to"),
        (lambda: parallel.first_devices(0), ValueError, "devices must be from 1 to"),
        (lambda: parallel.first_devices(99), ValueError, "devices must be from 1 to"),
        (lambda: parallel.connect("h:1", 0, 0), ValueError, "num_processes must be at least 1"),
        (lambda: parallel.connect("h:1", 2, 2), ValueError, "process_id must be from 0 to 1"),
        (lambda: train(images=IMAGES[..., 0]), ValueError, "images must be"),
        (lambda: train(images=IMAGES[:0]), ValueError, "images must be"),
        (lambda: train(images=IMAGES / 255), TypeError, "uint8 or float32, not float64"),
        (lambda: train(images=IMAGES.astype(int)), TypeError, "uint8 or float32, not int64"),
        (lambda: train(images=np.float32(IMAGES)), ValueError, "images must be in .0, 1., not"),
        (lambda: train(images=FLOATS - 1), ValueError, "images must be in .0, 1., not"),
        (lambda: train(images=with_pixel(np.nan)), ValueError, "images must be in .0, 1., not"),
        (lambda: train(images=with_pixel(np.inf)), ValueError, "images must be in .0, 1., not"),
        (lambda: train(labels=LABELS[:-1]), ValueError, "labels must be .12., one an image"),
        (lambda: train(labels=LABELS[:, None]), ValueError, "labels must be .12., one an image"),
        (lambda: train(labels=LABELS - 1 - LABELS.min()), ValueError, "labels must be 0 to 9"),
        (lambda: train(labels=LABELS + 10), ValueError, "labels must be 0 to 9"),
        (lambda: train(classes=3), ValueError, "labels must be 0 to 2"),
        (lambda: train(labels=LABELS * 1.0), TypeError, "labels must be integers"),
        (lambda: train(labels=LABELS.astype(str)), TypeError, "labels must be integers"),
        (lambda: train(seeds=(0,)), ValueError, "seeds must be 2, one a member, not 1"),
        (lambda: train(batch_size=0), ValueError, "batch_size must be from 1 to"),
        (lambda: train(batch_size=13), ValueError, "batch_size must be from 1 to"),
        (lambda: train(epochs=0), ValueError, "epochs must be at least 1"),
        (lambda: predict(IMAGES[0]), ValueError, "images must be"),
        (lambda: predict(IMAGES[:0]), ValueError, "images must be"),
        (lambda: predict(IMAGES / 255), TypeError, "images must be uint8 or float32"),
        (lambda: predict(with_pixel(np.nan)), ValueError, "images must be in .0, 1."),
        (lambda: fit(images=IMAGES[:, :3]), ValueError, "images must be"),
        (lambda: fit(images=IMAGES - 300.0), ValueError, "images of floats must be in"),
        (lambda: fit(images=with_pixel(np.nan)), ValueError, "images of floats must be in"),
        (
            lambda: fit(images=IMAGES.astype(str)),
            ValueError,
            "images must be whole numbers or floats",
        ),
        (lambda: fit(labels=LABELS[:3]), ValueError, "labels must be .12., one an image"),
        (lambda: fit(labels=LABELS * 0), ValueError, "labels must have at least 2 classes"),
        (lambda: fit(members=0), ValueError, "members must be at least 1"),
        (lambda: fit(epochs=0), ValueError, "epochs must be at least 1"),
        (lambda: fit(learning_rate=-1), ValueError, "learning_rate must be above 0"),
    ],
)
def test_a_wrong_call_of_the_library_names_the_argument(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
