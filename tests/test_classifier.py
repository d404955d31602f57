"""The Classifier as scikit-learn uses it; test_estimator_checks has scikit-learn's own checks."""

import json
import os
import pickle
import signal
import subprocess
import sys

import flax.linen as nn
import jax
import joblib
import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from experiments import evaluate, predict
from experiments.console import cli
from experiments.workdir import trained
from mnist_jax import (
    augment,
    cache,
    classifier,
    data,
    ensemble,
    images,
    loop,
    models,
    parallel,
    training,
)
from mnist_jax.classifier import Classifier
from mnist_jax.layers import Conv
from tests.tiny import Tiny, assert_close, problem

NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.fixture(autouse=True, scope="module")
def settings():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models._NETWORKS, "simple", (Tiny, {}))
        for module, name in ((cache, "use_compilation_cache"), (cli, "use_compilation_cache")):
            patch.setattr(module, name, lambda: None)
        patch.setattr(parallel, "use_cpu_cores", lambda *_, **__: None)  # four devices, by conftest
        yield


def tiny(**options):
    return Classifier(
        **{"network": Tiny(), "epochs": 8, "batch_size": 20, "learning_rate": 0.02} | options
    )


IMAGES, LABELS = problem(200)


@pytest.fixture(scope="module")
def fitted():
    return tiny(members=2).fit(IMAGES, NAMES[LABELS])


def test_it_learns_labels_of_any_kind(fitted):
    images, labels = problem(100, seed=1)
    assert fitted.score(images, NAMES[labels]) > 0.9
    assert fitted.predict(images).shape == (100,) and set(fitted.classes_) == set(NAMES)
    assert fitted.losses_.shape == (2, 80) and fitted.n_iter_ == 8
    assert fitted.n_features_in_ == 784


def test_probabilities(fitted):
    images, _ = problem(30, seed=1)
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (30, 10) and (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    logits = fitted.predict_logits(images)
    each = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities, each.mean(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        probabilities, np.exp(ensemble.mean_probability(logits)), rtol=1e-5, atol=1e-7
    )


def test_every_form_of_the_same_images(fitted):
    images, _ = problem(5, seed=1)
    wanted = fitted.predict_proba(images)
    flat = images.reshape(5, 784)
    same = [images[..., 0], flat, images.astype(int), images.astype(">i2"), images.tolist()]
    same += [(images / 255).astype(np.float64), (images / 255).astype(">f4").tolist()]
    same += [memoryview(images), np.asfortranarray(flat), flat.astype(object)]
    for form in same:
        np.testing.assert_allclose(fitted.predict_proba(form), wanted, rtol=1e-4, atol=1e-6)


def test_bools_are_black_and_white(fitted):
    white = IMAGES > 128
    wanted = fitted.predict_proba(white * np.uint8(255))
    for form in (white, white.astype(float), white.astype(object)):
        np.testing.assert_array_equal(fitted.predict_proba(form), wanted)


def test_frames():
    pandas = pytest.importorskip("pandas")
    columns = [f"pixel{i}" for i in range(784)]
    frame = pandas.DataFrame(IMAGES.reshape(200, 784), columns=columns)
    labels = pandas.Series(LABELS, dtype="Int64")
    classifier = tiny().fit(frame, labels)
    assert classifier.feature_names_in_.tolist() == columns
    assert classifier.classes_.dtype.kind == "i"
    np.testing.assert_array_equal(
        classifier.predict(frame.astype("UInt8")), tiny().fit(IMAGES, LABELS).predict(IMAGES)
    )
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(frame[columns[::-1]])
    labels[3] = pandas.NA
    with pytest.raises(ValueError, match="1 of the 200 are None, NaN or inf"):
        tiny().fit(frame, labels)


def test_cross_val_score_pipeline_and_grid():
    scores = cross_val_score(tiny(), IMAGES, NAMES[LABELS], cv=2)
    assert scores.shape == (2,) and scores.min() > 0.7
    flat = IMAGES.reshape(200, 784)
    pipeline = make_pipeline(MinMaxScaler((0, 1), clip=True), tiny())
    assert pipeline.fit(flat, LABELS).score(flat, LABELS) > 0.9
    search = GridSearchCV(tiny(), {"learning_rate": np.array([1e-6, 0.02])}, cv=2)
    assert search.fit(IMAGES, LABELS).best_params_ == {"learning_rate": 0.02}


@pytest.mark.slow
def test_cross_validation_in_processes():
    one = cross_val_score(tiny(), IMAGES, LABELS, cv=2)
    np.testing.assert_allclose(cross_val_score(tiny(), IMAGES, LABELS, cv=2, n_jobs=2), one)


def test_clone_pickle_and_joblib(fitted, tmp_path):
    assert clone(fitted).get_params()["members"] == 2
    joblib.dump(fitted, tmp_path / "classifier")
    wanted = fitted.predict_proba(IMAGES[:5])
    for copy in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "classifier")):
        np.testing.assert_array_equal(copy.predict_proba(IMAGES[:5]), wanted)


def test_predictions_depend_on_what_was_fitted_alone(fitted):
    wanted = fitted.predict_proba(IMAGES)
    changed = pickle.loads(pickle.dumps(fitted))
    changed.set_params(members=3, network="deep", ema=0.5, batch_size=7, seed=9)
    np.testing.assert_array_equal(changed.predict_proba(IMAGES), wanted)
    with pytest.raises(ValueError, match="labels"):
        changed.fit(IMAGES, LABELS[:3])
    np.testing.assert_array_equal(changed.predict_proba(IMAGES), wanted)


def interrupt_after(monkeypatch, signal_number):
    """Send a signal once the first losses are shown."""
    sent = []

    def show(line, text, ended=False):
        if "loss" in text and not sent:
            sent.append(signal.raise_signal(signal_number))

    monkeypatch.setattr(classifier._Line, "show", show)


def test_an_interrupt_keeps_what_is_trained(monkeypatch):
    interrupt_after(monkeypatch, signal.SIGINT)
    with pytest.warns(ConvergenceWarning, match="interrupted at epoch 1/100000, loss"):
        stopped = tiny(epochs=100_000).fit(IMAGES, LABELS)
    assert 0 < stopped.losses_.shape[1] < 100 and stopped.n_iter_ < 10
    assert stopped.predict(IMAGES).shape == (200,)


def test_a_signal_to_end_the_process_reaches_it(monkeypatch):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    interrupt_after(monkeypatch, signal.SIGTERM)
    try:
        with pytest.warns(ConvergenceWarning):
            tiny(epochs=100_000).fit(IMAGES, LABELS)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_before_fit():
    with pytest.raises(NotFittedError):
        tiny().predict(problem(2)[0])
    with pytest.raises(NotFittedError):
        tiny().save("anywhere")


# --- weights


def test_the_loss_is_weighted_in_proportion():
    weights = np.random.default_rng(0).uniform(0.5, 3, 200)
    first = tiny(epochs=1, batch_size=200, members=2).fit(IMAGES, LABELS, weights)
    seeds = np.arange(2, dtype=np.uint32)
    params = ensemble.init_state(Tiny(), training.make_optimizer(0.1, 1), seeds).params
    logits = jax.vmap(lambda p: Tiny().apply({"params": p}, IMAGES / np.float32(255)))(params)
    nll = -np.asarray(jax.nn.log_softmax(logits))[:, np.arange(200), LABELS]
    np.testing.assert_allclose(
        first.losses_[:, 0], np.average(nll, axis=1, weights=weights), rtol=1e-5
    )
    scaled = tiny(epochs=1, batch_size=200, members=2).fit(IMAGES, LABELS, 4 * weights)
    assert_close(scaled.params_, first.params_, 0, 0)


def test_images_of_weight_0_are_left_out_and_equal_weights_are_none():
    weights = np.repeat([0.0, 2.5], [60, 140])
    one = tiny(epochs=2).fit(IMAGES, LABELS, sample_weight=weights)
    other = tiny(epochs=2).fit(IMAGES[60:], LABELS[60:])
    assert_close(one.params_, other.params_, 0, 0)


def test_weight_decides_between_contradicting_labels():
    images = np.concatenate([IMAGES, IMAGES])
    labels = np.concatenate([LABELS, (LABELS + 1) % 10])
    for heavy in (0, 1):
        weights = np.repeat([9, 1] if heavy == 0 else [1, 9], 200)
        predicted = tiny().fit(images, labels, sample_weight=weights).predict(IMAGES)
        assert (predicted == (LABELS + heavy) % 10).mean() > 0.9


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(199), r"sample_weight must be \[200\], one an image, not \(199,\)"),
        (np.ones((200, 1)), r"sample_weight must be \[200\]"),
        (np.full(200, -1), "sample_weight must be finite and at least 0, not -1 to -1"),
        (np.where(LABELS == 1, np.nan, 1), "sample_weight must be finite"),
        (np.zeros(200), "sample_weight must not be zero for all images"),
        (["much"] * 200, "sample_weight must be numbers"),
        (LABELS == 1, "labels must have at least 2 classes, not 1 class"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(IMAGES, LABELS, sample_weight=weights)


# --- early stopping


STOPPING = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate": 0.05, "members": 2}


def test_early_stopping_keeps_the_best():
    noisy = np.where(np.arange(200) % 3 == 0, (LABELS + 1) % 10, LABELS)  # soon learnt by heart
    options = STOPPING | {"seed": 3}
    stopped = tiny(epochs=100, n_iter_no_change=4, **options).fit(IMAGES, noisy)
    scores = stopped.validation_scores_
    assert stopped.n_iter_ == len(scores) == stopped.losses_.shape[1] / 8 < 100
    assert stopped.best_epoch_ == np.argmax(scores) + 1 < stopped.n_iter_
    assert stopped.best_validation_score_ == scores.max()
    assert scores[-4:].max() < scores[:-4].max() + 1e-4
    places = train_test_split(np.arange(200), test_size=0.2, stratify=noisy, random_state=3)
    train, held_out = map(np.sort, places)
    nll = log_loss(noisy[held_out], stopped.predict_proba(IMAGES[held_out]), labels=range(10))
    np.testing.assert_allclose(stopped.best_validation_score_, -nll, rtol=1e-4)
    options |= {"early_stopping": False, "epochs": stopped.best_epoch_}
    plain = tiny(**options).fit(IMAGES[train], noisy[train])
    assert_close(plain.params_, stopped.params_, 0, 0)  # and nothing held out was trained on
    assert plain.validation_scores_ is plain.best_epoch_ is plain.best_validation_score_ is None


@pytest.mark.parametrize(
    ("scores", "patience", "stop"),
    [
        ([], 1, False),
        ([-1], 1, False),
        ([-1, -1], 1, True),
        ([-1, -0.99995], 1, True),
        ([-1, -0.5], 1, False),
        ([-1, -2, -0.9], 2, False),
        ([-1, -2, -1.5], 2, True),
        ([-3, -1, -2, -1.5], 2, True),
    ],
)
def test_when_it_stops(scores, patience, stop):
    assert classifier._no_better(scores, patience) == stop


def test_too_few_images_to_hold_any_out():
    with pytest.raises(ValueError, match=r"validation_fraction 0.1 of 30 images of \d+ classes"):
        tiny(early_stopping=True).fit(IMAGES[:30], LABELS[:30])


# --- the fields of Config


def test_optimizer_schedule_ema_and_augment_are_those_of_training():
    options = {"optimizer": "sgd", "schedule": "cosine", "weight_decay": 0.01, "ema": 0.5}
    made = tiny(epochs=2, members=2, seed=4, augment="shift", **options).fit(IMAGES, LABELS)
    layout = parallel.plan(2)
    optimizer = training.make_optimizer(0.02, 20, **options)
    state = parallel.init(layout, Tiny(), optimizer, [4, 5])
    *_, last = loop.train(
        *(layout, Tiny(), optimizer, state, [4, 5], IMAGES, LABELS),
        **{"batch_size": 20, "epochs": 2, "data_seed": 4, "augment": augment.create("shift")},
    )
    np.testing.assert_array_equal(made.losses_[:, -10:], last.losses)
    averaged = parallel.gather(layout, training.evaluated(last.state))
    assert_close(made.params_, averaged["params"], 0, 0)


def test_fewer_images_than_a_batch_are_one():
    few = tiny(batch_size=1000).fit(IMAGES[:50], LABELS[:50])
    assert few.losses_.shape == (1, 8) and few.losses_[0, -1] < few.losses_[0, 0]


# --- what must be refused


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, :3], "images must be .*not .200, 3, 28, 1."),
        (IMAGES[:0], r"n > 0, not \(0, 28, 28, 1\)"),
        (IMAGES[0], r"not \(28, 28, 1\): of one image, \[image\]"),
        (IMAGES[0].reshape(784), r"not \(784,\): of one image"),
        (IMAGES.astype(float), r"floats must be in \[0, 1\], not 0 to 255; divide"),
        (IMAGES / 255 - 0.5, r"floats must be in \[0, 1\], not -0.5"),
        (np.where(IMAGES > 200, np.nan, 0.5), "floats must be in .* nan"),
        (IMAGES.astype(int) * 2, "whole numbers must be 0 to 255, not 0 to 510"),
        ((IMAGES > 99).astype(np.uint8), "0 and 1 all would be nearly black; multiply them by 255"),
        ((IMAGES > 99).astype(int).tolist(), "0 and 1 all would be nearly black"),
        (IMAGES.astype(str), "images must be whole numbers or floats, not <U3"),
        (IMAGES + 1j, "Complex data not supported"),
        (np.where(IMAGES > 254, None, IMAGES), "images must be .*, not object"),
        ([[1, 2], [3]], "images must be an array: "),
        (
            sparse.csr_array(IMAGES.reshape(200, 784)),
            "images must not be sparse",
        ),
    ],
)
def test_wrong_images(images, message, fitted):
    with pytest.raises(ValueError, match=message):
        tiny().fit(images, LABELS)
    with pytest.raises(ValueError, match=message):
        fitted.predict(images)


@pytest.mark.parametrize("images", [IMAGES // 16, IMAGES / 255 / 255])
def test_dark_images_are_doubted(images):
    with pytest.warns(UserWarning, match="nearly black: the brightest pixel of all is (15|0.0039)"):
        tiny(epochs=1).fit(images, LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:39], r"labels must be \[200\], one an image, not \(39,\)"),
        (np.eye(10)[LABELS], r"not \(200, 10\); of a one-hot table, its argmax\(axis=1\)"),
        (None, "y is None"),
        (np.zeros(200), "labels must have at least 2 classes, not 1"),
        (np.where(LABELS == 1, np.nan, LABELS), r"and \d+ of the 200 are None, NaN or inf"),
        (np.where(LABELS == 1, np.inf, LABELS), "None, NaN or inf"),
        (np.where(LABELS == 1, None, LABELS), "None, NaN or inf"),
        (np.where(LABELS == 1, None, NAMES[LABELS]), "None, NaN or inf"),
        (np.where(LABELS == 1, np.nan, NAMES[LABELS].astype(object)), "None, NaN or inf"),
        (np.where(LABELS == 1, 7, NAMES[LABELS].astype(object)), "of one kind, not int and str"),
        (np.random.default_rng(0).normal(size=200), "Unknown label type: continuous"),
        ("zero", "labels must be"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(IMAGES, labels)


def test_a_column_of_labels_is_taken_with_a_warning():
    with pytest.warns(DataConversionWarning, match="column-vector"):
        column = tiny(epochs=1).fit(IMAGES, LABELS[:, None].astype(object))
    assert column.predict(IMAGES).shape == (200,) and column.classes_.dtype.kind == "i"


def test_logits_beyond_the_classes_are_left_out():
    few = LABELS < 7
    options = STOPPING | {"epochs": 3}
    spare = tiny(**options).fit(IMAGES[few], NAMES[LABELS[few]])
    probabilities = spare.predict_proba(IMAGES)
    assert probabilities.shape == (200, 7) and set(spare.predict(IMAGES)) <= set(NAMES[:7])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


class NoLogits(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return images


class Normed(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        normed = nn.BatchNorm(use_running_average=not train)(images)
        return nn.Dense(10)(normed.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members must be at least 1"),
        ({"members": 1.5}, "members must be a whole number, not 1.5"),
        ({"members": "2"}, "members must be a whole number, not '2'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": None}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**32}, "seed . members must be at most"),
        ({"network": "dep"}, "Did you mean 'deep'"),
        ({"network": Tiny}, "network must be a name or a linen module, not <class"),
        ({"network": Tiny(7)}, r"network must give \[n, 10\] logits, one a class, not \(1, 7\)"),
        ({"network": NoLogits()}, r"logits, one a class, not \(1, 28, 28, 1\)"),
        ({"network": Normed()}, "network has batch_stats, so it must have the fields axis_name"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"optimizer": "adm"}, "optimizer must be one of adam, sgd, momentum, adadelta, not 'adm'"),
        ({"schedule": "cos"}, "schedule must be one of constant, cosine"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"ema": 1}, r"ema must be in \[0, 1\)"),
        ({"augment": "flip"}, "augment must be one of none, shift, affine"),
        ({"validation_fraction": 1}, "validation_fraction must be above 0 and below 1, not 1"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be at least 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options).fit(IMAGES, LABELS)


def test_handwriting_is_for_digits():
    with pytest.raises(ValueError, match=r"augment handwriting needs the labels 0 to 9, not .*one"):
        tiny(augment="handwriting").fit(IMAGES, NAMES[LABELS])


# --- a folder


KEPT = {"network": "simple", "members": 2, "ema": 0.5, "schedule": "cosine", "early_stopping": True}


@pytest.fixture(scope="module")
def digits():
    return tiny(seed=5, **KEPT).fit(IMAGES, LABELS.astype(str))


@pytest.mark.parametrize("kind", [int, float, str, object, bool])
def test_a_saved_one_comes_back(kind, tmp_path):
    labels = LABELS < 5 if kind is bool else LABELS.astype(str).astype(kind)
    kept = tiny(**KEPT | {"members": np.int64(2), "verbose": np.bool_(False)}).fit(IMAGES, labels)
    with jax.enable_x64(kind is int):  # which some have on
        kept.save(tmp_path / "new" / "folder")
    kept.set_params(members=5, optimizer="sgd", network="deep")
    loaded = Classifier.load(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), kept.predict_proba(IMAGES))
    np.testing.assert_array_equal(loaded.predict(IMAGES), kept.predict(IMAGES))
    for name in ("classes_", "losses_", "n_iter_", "validation_scores_", "best_epoch_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(kept, name))
    assert loaded.classes_.dtype == kept.classes_.dtype and loaded.n_features_in_ == 784
    assert loaded.get_params()["members"] == 2 and loaded.get_params()["optimizer"] == "adam"
    assert_close(loaded.fit(IMAGES, labels).params_, kept.params_, 0, 0)


def test_the_commands_take_a_saved_one(digits, tmp_path, capsys):
    folder = tmp_path / "saved"
    digits.save(folder)
    loaded = trained.load(folder)
    assert [member.name for member in loaded.members] == ["simple 5", "simple 6"]
    assert loaded.config.ema == 0.5 and loaded.config.seed == 5
    np.testing.assert_array_equal(loaded.predict(IMAGES), digits.predict_logits(IMAGES))
    stroke = np.zeros((28, 28), np.uint8)
    stroke[4:24, 10:14] = 255
    Image.fromarray(stroke).save(tmp_path / "digit.png")
    assert predict.main([str(folder), "--json", str(tmp_path / "digit.png")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["class"] == digits.predict(images.to_mnist(stroke)[None])[0]
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(folder)])
    assert "is not the data that" in capsys.readouterr().err


@pytest.mark.slow
def test_a_saved_one_is_evaluated(digits, tmp_path):
    folder = tmp_path / "saved"
    digits.save(folder)
    assert evaluate.main([str(folder), "--dataset", "mnist5k"]) == 0
    test = data.load("mnist5k").test
    results = json.loads((folder / "evaluation.json").read_text())
    accuracy = results["rules"]["mean_probability"]["before"]["accuracy"]
    assert accuracy == digits.score(test.inputs, test.labels.astype(str))


def test_a_network_with_options_comes_back(tmp_path):
    network = models.create("simple", dropout_rate=0.25)
    kept = tiny(network=network, epochs=1).fit(IMAGES, LABELS)
    kept.save(tmp_path)
    loaded = Classifier.load(tmp_path)
    assert loaded.network == network
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), kept.predict_proba(IMAGES))


class Own(Tiny):
    """None of `models.NAMES`."""


def test_what_cannot_be_saved_or_loaded(digits, tmp_path):
    own = tiny(network=Own(), epochs=1).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"network must be one of simple, .* not Own; pickle"):
        own.save(tmp_path / "own")
    assert not (tmp_path / "own").exists()
    (tmp_path / "file").write_text("")
    for used in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            digits.save(used)
    for wrong in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ValueError, match=r"is no folder that Classifier\.save has made"):
            Classifier.load(wrong)


# --- nothing twice, nothing more


@pytest.fixture
def compiled():
    """The programs compiled during a test, by name."""
    names = []

    def note(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def memory_maps():
    with open("/proc/self/maps") as maps:
        return len(maps.readlines())


@pytest.mark.skipif(sys.platform != "linux", reason="counts Linux's memory maps")
def test_thirty_fits_compile_and_keep_nothing(compiled):
    images, labels = problem(60)

    def fit(number):
        # Another length of a constant rate, weights that are none, and as many images are the same.
        options = {"epochs": 1 + number % 3, "seed": number}
        fresh = clone(tiny(**options)).fit(images, labels, sample_weight=np.full(60, 2.0))
        fresh.predict_proba(images[: 1 + number])

    for number in range(3):
        fit(number)
    compiled.clear()
    before = memory_maps()
    for number in range(30):
        fit(number)
    assert compiled == []
    assert memory_maps() <= before + 200  # of NumPy's and of threads; 30 programs have 3,000


def test_programs_are_found_by_what_they_are_made_of_and_are_bounded(monkeypatch):
    dropped = []
    monkeypatch.setattr(parallel, "_programs", {})
    monkeypatch.setattr(parallel, "_MOST_PROGRAMS", 3)
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(len(parallel._programs)))
    layout = parallel.plan(1)

    def make(*parts):
        return object()

    def find(*parts):
        return parallel._program(make, layout, *parts)

    one = find(Tiny(), training.make_optimizer(0.1, 5), 3)
    assert one is find(Tiny(), training.make_optimizer(0.1, 5), 3)
    others = [find(Tiny(9)), find(Tiny(), training.make_optimizer(0.2, 5), 3)]
    assert len({one, *others}) == 3 and not dropped
    monkeypatch.setenv("MNIST_JAX_KERNELS", "off")  # which makes another program of the same
    assert find(Tiny(9)) not in others
    assert len(dropped) == 1 and len(parallel._programs) == 1
    for _ in range(10):
        find(Conv(4, strides=[2, 2]))  # cannot be found again, but counts
    assert len(parallel._programs) <= 3


_ALONE = """
import multiprocessing, sys
import jax, numpy as np
from mnist_jax import cache, parallel
cache._LEAST_SECONDS = 0.0
misses = []
jax.monitoring.register_event_listener(
    lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None
)
from mnist_jax.classifier import Classifier
from tests.tiny import Tiny, problem
images, labels = problem(40)
classifier = Classifier(Tiny(), epochs=1, batch_size=20).fit(images, labels)
classifier.predict(images)

def predict(queue):
    try:
        queue.put(classifier.predict(images))
    except RuntimeError as error:
        queue.put(error)

context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=predict, args=(queue,))
child.start()
print(len(misses), jax.local_device_count(), parallel.cpu_cores(), queue.get(timeout=60))
child.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_process_of_its_own_takes_all_cores_and_finds_what_was_compiled(tmp_path):
    """And a fork of it says what is wrong, where it would wait for ever."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        environment.pop(name, None)
    lines = []
    for _ in range(2):
        command = [sys.executable, "-W", "ignore", "-c", _ALONE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "mnist_jax.parallel" not in done.stderr
        lines.append(done.stdout.split(maxsplit=3))
    (first, devices, cores, said), (second, *_) = lines
    assert int(first) > 5 and int(second) == 0
    assert devices == cores
    assert said.startswith("This process was forked from one in which JAX had started")


_STARTED = """
import warnings
import jax.numpy as jnp
from mnist_jax import parallel
parallel.cpu_cores = lambda: 64
jnp.ones(3).sum()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    parallel.claim_cpu_cores()
    parallel.claim_cpu_cores(5)
print(*(str(warning.message) for warning in caught), sep="|")
"""


@pytest.mark.parametrize("flags", ["", "--xla_force_host_platform_device_count=2"])
def test_one_hint_where_jax_has_started_unless_the_devices_were_chosen(flags):
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _STARTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if flags:
        assert done.stdout == "\n"
    else:
        assert done.stdout.startswith("JAX has started already, with one CPU device for 64 cores")
        assert "parallel.use_cpu_cores()" in done.stdout and "|" not in done.stdout


# --- the line


@pytest.mark.parametrize("where", ["terminal", "notebook", "file"])
def test_the_line(where, monkeypatch, capsys):
    class Console:
        is_jupyter = where == "notebook"

    monkeypatch.setattr(classifier, "get_console", Console)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: where == "terminal", raising=False)
    tiny(epochs=2, verbose=True, **STOPPING).fit(IMAGES, LABELS)
    out, err = capsys.readouterr()
    assert "epoch 2/2, loss " in out and ", validation -" in out and not err
    if where == "file":
        assert out.count("\n") == 2 and "\r" not in out
    else:
        assert out.count("\n") == 1 and out.startswith("\rcompiling\repoch 1/2")
    tiny(epochs=1).fit(IMAGES, LABELS)
    assert capsys.readouterr().out == ""
