from __future__ import annotations

import numpy as np
import pytest

from sam2_hq.data.masks import davis_palette
from sam2_hq.visualization import (
    contact_sheet,
    draw_prompts,
    inner_edges,
    object_colors,
    overlay,
    stack_masks,
)


@pytest.fixture
def frame():
    return np.full((20, 30, 3), 100, dtype=np.uint8)


@pytest.fixture
def ids():
    ids = np.zeros((20, 30), dtype=np.uint8)
    ids[5:15, 5:15] = 2
    return ids


def test_an_object_is_tinted_and_the_rest_stays(frame, ids):
    result = overlay(frame, ids, alpha=0.25, outline=False)
    np.testing.assert_array_equal(result[ids == 0], frame[ids == 0])
    np.testing.assert_array_equal(result[10, 10], [75, 107, 75])  # (0, 128, 0) a quarter
    assert (frame == 100).all()


def test_alpha_runs_from_the_frame_to_the_colour(frame, ids):
    np.testing.assert_array_equal(overlay(frame, ids, alpha=0, outline=False), frame)
    full = overlay(frame, ids, alpha=1, outline=False)
    np.testing.assert_array_equal(full[ids > 0], davis_palette()[ids[ids > 0]])


def test_the_outline_is_lighter_than_the_tint_and_inside(frame, ids):
    plain, outlined = overlay(frame, ids, outline=False), overlay(frame, ids)
    changed = (plain != outlined).any(axis=2)
    np.testing.assert_array_equal(changed, inner_edges(ids))
    assert (outlined[changed].sum(axis=1) > plain[changed].sum(axis=1)).all()


def test_edges_are_the_object_pixels_beside_another_id():
    ids = np.zeros((5, 5), dtype=np.uint8)
    ids[1:4, 1:4] = 1
    expected = ids.astype(bool)
    expected[2, 2] = False
    np.testing.assert_array_equal(inner_edges(ids), expected)
    assert not inner_edges(np.ones((5, 5), dtype=np.uint8)).any()


def test_colours_repeat_beyond_the_palette(frame):
    ids = np.full((20, 30), 256, dtype=np.uint16)
    result = overlay(frame, ids, alpha=1, outline=False)
    np.testing.assert_array_equal(result[0, 0], object_colors()[0])


def test_small_masks_are_stacked_over_large_ones():
    small, large = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    small[1, 1] = True
    ids = stack_masks([small, large])
    assert ids[1, 1] == 1
    assert (ids == 2).sum() == 15


def test_clicks_and_boxes_are_drawn_where_they_are(frame):
    result = draw_prompts(frame, [[6, 6], [20, 12], [2, 18]], [1, 0, -1], [12, 3, 28, 18])
    assert result[6, 6, 1] > result[6, 6, 0]
    assert result[12, 20, 0] > result[12, 20, 1]
    np.testing.assert_array_equal(result[18, 2], frame[18, 2])
    for x, y in [(12, 10), (28, 10), (16, 3), (16, 18)]:
        assert (result[y, x] != 100).any()
    assert (frame == 100).all()


def test_no_prompt_changes_nothing(frame):
    np.testing.assert_array_equal(draw_prompts(frame), frame)
    np.testing.assert_array_equal(draw_prompts(frame, [], [], np.zeros((0, 4))), frame)


def test_a_sheet_shows_every_picture_once():
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, gap=1)
    assert sheet.shape == (9, 13, 3)
    assert [(sheet == value).all(axis=2).sum() for value in (10, 20, 30)] == [24, 24, 24]
    assert sheet[4, 0, 0] == 255


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, i: overlay(f.astype(float), i), "frame must be uint8"),
        (lambda f, i: overlay(f, i[1:]), "ids must be"),
        (lambda f, i: overlay(f, i.astype(float)), "ids must be"),
        (lambda f, i: overlay(f, i, alpha=1.5), "alpha"),
        (lambda f, i: overlay(f, i, palette=np.zeros((1, 3), np.uint8)), "palette"),
        (lambda f, i: draw_prompts(f, [[1, 2]]), "come together"),
        (lambda f, i: draw_prompts(f, [[1, 2]], [1, 0]), r"labels must be \[1\]"),
        (lambda f, i: draw_prompts(f, [1, 2], [1, 1]), "points must be"),
        (lambda f, i: draw_prompts(f, boxes=[[1, 2, 3]]), "boxes must be"),
        (lambda f, i: contact_sheet([]), "empty"),
        (lambda f, i: contact_sheet([f], columns=0), "columns"),
        (lambda f, i: stack_masks([]), "masks must be"),
    ],
)
def test_bad_arguments_are_refused_by_name(frame, ids, call, message):
    with pytest.raises(ValueError, match=message):
        call(frame, ids)
