"""scikit-learn's own checks of an estimator, which bring data of their own."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from mnist_jax import inputs, models
from mnist_jax.classifier import Classifier
from tests.tiny import Tiny


class Striped(Classifier):
    """A Classifier of tables: each feature is a stripe of a picture, as bright as it is large."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = False
        return tags

    def _pixels(self, images, reset):
        table = validate_data(self, images, dtype=float, reset=reset)
        if reset:
            self.low_, self.high_ = table.min(axis=0), table.max(axis=0)
        span = np.where(self.high_ > self.low_, self.high_ - self.low_, 1)
        stripes = np.repeat(np.clip((table - self.low_) / span, 0, 1), 784, axis=1)
        return inputs.as_images(stripes[:, :: table.shape[1]])


_OTHER_SHAPE = "its tables have other numbers of columns than the 784 of an image"
_NOT_IMAGES = dict.fromkeys(
    [
        "check_all_zero_sample_weights_error",
        "check_classifier_data_not_an_array",
        "check_classifiers_classes",
        "check_classifiers_one_label",
        "check_classifiers_one_label_sample_weights",
        "check_classifiers_regression_target",
        "check_classifiers_train",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_empty_data_messages",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_requires_y_none",
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weights_list",
        "check_sample_weights_not_an_array",
        "check_sample_weights_not_overwritten",
        "check_sample_weights_pandas_series",
        "check_sample_weights_shape",
        "check_supervised_y_2d",
    ],
    _OTHER_SHAPE,
)
_STRIPED = {
    "check_sample_weight_equivalence_on_dense_data": "an image given twice is in two batches, and "
    "one of weight 2 in one; that weight 0 leaves an image out is tested in test_classifier"
}


@parametrize_with_checks([Classifier()], expected_failed_checks=lambda _: _NOT_IMAGES)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [Striped("simple", epochs=8, batch_size=20, learning_rate=0.02)],
    expected_failed_checks=lambda _: _STRIPED,
)
def test_check_estimator_of_tables(estimator, check, monkeypatch):
    """All of the checks but one."""
    monkeypatch.setitem(models._NETWORKS, "simple", (Tiny, {}))
    check(estimator)
