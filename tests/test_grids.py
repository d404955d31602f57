"""The lecture's small pictures, against counting."""

import numpy as np
import pytest

from experiments.show import grids


def test_numbers_stand_in_their_squares():
    images = {"image": [[1, 2.5], [-3, 4]], "row": [[7, 8, 9]], "same": np.full((2, 2), 5)}
    panels = [axes for axes in grids.numbers(images).axes if axes.texts]
    assert [axes.get_title(loc="left") for axes in panels] == list(images)
    for axes, image in zip(panels, images.values(), strict=True):
        shown = {text.get_position(): float(text.get_text()) for text in axes.texts}
        assert shown == {(j + 0.5, i + 0.5): x for (i, j), x in np.ndenumerate(np.array(image))}


@pytest.mark.parametrize(
    ("arguments", "lefts", "left_over"),
    [
        ((7, 3), [0, 1, 2, 3, 4], 0),
        ((7, 3, 2), [0, 2, 4], 0),
        ((7, 3, 3), [0, 3], 1),
        ((7, 3, 2, 1), [0, 2, 4, 6], 0),
        ((5, 5), [0], 0),
        ((6, 2, 4), [0, 4], 0),
    ],
)
def test_windows_are_where_a_filter_can_be(arguments, lefts, left_over):
    figure = grids.windows(*arguments)
    panels = [axes for axes in figure.axes if axes.patches]
    blue = [
        [patch.get_bbox() for patch in axes.patches if patch.get_facecolor()[0] < 0.65]
        for axes in panels
    ]
    assert [[box.x0 for box in boxes] for boxes in blue] == [[left] for left in lefts]
    assert {(box.width, box.height) for (box,) in blue} == {(arguments[1], arguments[1])}
    red = [
        patch.get_width()
        for axes in panels
        for patch in axes.patches
        if patch.get_facecolor()[2] < 0.6
    ]
    assert sum(red) == left_over


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="window of 9 pixels does not fit into 7"):
        grids.windows(7, 9)
    assert len(grids.windows(7, 9, padding=1).axes) == 1
