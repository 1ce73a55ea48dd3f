from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2_hq.ops.crops import (
    box_xyxy_to_xywh,
    build_all_layer_point_grids,
    build_point_grid,
    generate_crop_boxes,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
    uncrop_masks,
    uncrop_points,
)


def test_a_grid_has_the_centres_of_its_cells_x_fastest():
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    np.testing.assert_array_equal(build_point_grid(2), expected)


def test_each_layer_has_a_coarser_grid():
    assert [len(grid) for grid in build_all_layer_point_grids(9, 2, 2)] == [81, 16, 4]


@pytest.mark.parametrize(("factor", "words"), [(0, "1 or more, got 0"), (4, "leaves none")])
def test_a_grid_without_points_is_refused(factor, words):
    with pytest.raises(ValueError, match=words):
        build_all_layer_point_grids(8, 2, factor)


def test_the_published_example_of_crops():
    boxes, layers = generate_crop_boxes((120, 200), 2, 512 / 1500)
    assert boxes[:5] == [
        [0, 0, 200, 120],
        [0, 0, 120, 80],
        [0, 40, 120, 120],
        [80, 0, 200, 80],
        [80, 40, 200, 120],
    ]
    assert boxes[5:7] == [[0, 0, 65, 45], [0, 25, 65, 70]]
    assert layers == [0] + [1] * 4 + [2] * 16


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2))
def test_crops_of_a_layer_cover_the_image(height, width, layer):
    boxes, layers = generate_crop_boxes((height, width), layer, 512 / 1500)
    covered = np.zeros((height, width), dtype=bool)
    for (x0, y0, x1, y1), of_layer in zip(boxes, layers, strict=True):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        if of_layer == layer:
            covered[y0:y1, x0:x1] = True
    assert covered.all()


def test_what_a_crop_finds_goes_back_to_its_place():
    crop = [2, 1, 5, 4]
    masks = torch.ones(1, 3, 3, dtype=torch.bool)
    whole = uncrop_masks(masks, crop, 6, 7)
    assert whole.shape == (1, 6, 7)
    assert whole.sum() == whole[:, 1:4, 2:5].sum() == 9
    assert uncrop_masks(whole, [0, 0, 7, 6], 6, 7) is whole
    assert uncrop_boxes_xyxy(torch.tensor([[0, 0, 2, 2]]), crop).tolist() == [[2, 1, 4, 3]]
    assert uncrop_points(torch.tensor([[1.0, 0.5]]), crop).tolist() == [[3.0, 1.5]]


def test_only_edges_of_the_crop_inside_the_image_cut_objects_off():
    crop, image = [0, 0, 100, 100], [0, 0, 300, 100]
    boxes = torch.tensor([[0, 0, 50, 99], [30, 30, 79, 60], [30, 30, 80, 60]])
    assert is_box_near_crop_edge(boxes, crop, image).tolist() == [False, False, True]
    assert is_box_near_crop_edge(boxes[:0], crop, image).tolist() == []


def test_width_and_height_are_differences():
    assert box_xyxy_to_xywh(torch.tensor([[1, 2, 4, 8]])).tolist() == [[1, 2, 3, 6]]
