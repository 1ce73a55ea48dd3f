from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from sam2_hq.ops.rle import (
    area_from_rle,
    coco_decode_rle,
    coco_encode_rle,
    mask_to_rle_pytorch,
    rle_to_mask,
)

any_masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=12))


def by_coco(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def test_runs_go_down_the_columns_and_start_with_background():
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 1:3, 2] = True
    masks[1, 0, 0] = True
    assert [rle["counts"] for rle in mask_to_rle_pytorch(masks)] == [[9, 2, 9], [0, 1, 19], [20]]
    assert mask_to_rle_pytorch(masks)[0]["size"] == [4, 5]


@given(any_masks)
@settings(max_examples=200)
def test_both_forms_equal_those_of_pycocotools(masks):
    rles = mask_to_rle_pytorch(torch.from_numpy(masks))
    for mask, rle in zip(masks, rles, strict=True):
        compressed = coco_encode_rle(rle)
        assert compressed == by_coco(mask)
        assert coco_decode_rle(compressed) == rle
        as_coco = coco.encode(np.asfortranarray(mask.astype(np.uint8)))  # counts are bytes
        assert coco_encode_rle(as_coco) == compressed
        assert coco_decode_rle(as_coco) == rle
        for form in (rle, compressed, as_coco):
            np.testing.assert_array_equal(rle_to_mask(form), mask)
            assert area_from_rle(form) == mask.sum()


def test_runs_of_any_length_survive_compression():
    mask = np.zeros((2000, 1500), dtype=bool)
    mask[:, 3:7] = mask[5, 900] = mask[1000:, 1200:1499] = True
    rle = mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    assert coco_encode_rle(rle) == by_coco(mask)
    assert coco_decode_rle(by_coco(mask)) == rle
    assert coco_encode_rle(by_coco(mask)) == by_coco(mask)


def test_no_mask_gives_no_record():
    assert mask_to_rle_pytorch(torch.zeros(0, 4, 5, dtype=torch.bool)) == []


@pytest.mark.parametrize("masks", [torch.zeros(4, 5, dtype=torch.bool), torch.zeros(1, 4, 5)])
def test_wrong_masks_are_named(masks):
    with pytest.raises(ValueError, match=r"masks must be \[N, H, W\] bool, got"):
        mask_to_rle_pytorch(masks)


@pytest.mark.parametrize("rle", [{"size": [2, 2]}, None, {"size": None, "counts": [4]}])
def test_what_is_no_record_is_refused(rle):
    with pytest.raises(ValueError, match="rle must have size and counts"):
        rle_to_mask(rle)


def test_runs_that_do_not_fit_the_size_are_refused():
    with pytest.raises(ValueError, match="counts add up to 7, but size is 2 x 4"):
        rle_to_mask({"size": [2, 4], "counts": [3, 4]})


@pytest.mark.parametrize("text", ["P", "0\x7f", "0 "])
def test_a_string_that_is_no_run_length_is_refused(text):
    with pytest.raises(ValueError, match="not a COCO run-length string"):
        rle_to_mask({"size": [2, 4], "counts": text})
