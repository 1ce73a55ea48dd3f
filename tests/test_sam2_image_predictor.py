"""Stories of a user with a picture: click, box, refine, many prompts, many pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.testing import assert_allclose
from scipy import ndimage
from torch.nn.parallel import DistributedDataParallel

from sam2_hq.ops.masks import choose_hq
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import HQ_MODES
from tests.toy import SIDE, SIZE, disc_centre, toy_clip, toy_predictor

LOW = SIDE // 4
BOXES = [[60.0, 8.0, 84.0, 34.0], [10.0, 10.0, 50.0, 60.0], [0.0, 0.0, 96.0, 72.0]]
CLOSE = {"rtol": 0, "atol": 1e-4}  # logits of a few units; batches sum in another order


@pytest.fixture(scope="module")
def model() -> Any:
    return toy_predictor().requires_grad_(False)


@pytest.fixture(scope="module")
def plain() -> Any:
    return toy_predictor(hq=False).requires_grad_(False)


@pytest.fixture
def predictor(model: Any) -> SAM2ImagePredictor:
    made = SAM2ImagePredictor(model)
    made.set_image(toy_clip(1)[0])
    return made


def click() -> dict[str, Any]:
    return {"point_coords": [disc_centre()], "point_labels": [1]}


# ------------------------------------------------------------------ prompts


def test_a_click_gives_three_masks_of_the_picture(predictor: SAM2ImagePredictor) -> None:
    masks, iou, low_res = predictor.predict(**click())
    assert (masks.shape, masks.dtype) == ((3, *SIZE), bool)
    assert (iou.shape, iou.dtype) == ((3,), np.float32)
    assert (low_res.shape, low_res.dtype) == ((3, LOW, LOW), np.float32)
    assert np.abs(low_res).max() <= 32
    assert ((iou > 0) & (iou < 1)).all()
    single = predictor.predict(**click(), multimask_output=False)
    assert [r.shape for r in single] == [(1, *SIZE), (1,), (1, LOW, LOW)]


def test_masks_are_the_logits_above_the_threshold(model: Any) -> None:
    for threshold in (0.0, 1.5):
        predictor = SAM2ImagePredictor(model, mask_threshold=threshold)
        predictor.set_image(toy_clip(1)[0])
        logits = predictor.predict(**click(), return_logits=True)[0]
        assert logits.dtype == np.float32
        assert np.array_equal(predictor.predict(**click())[0], logits > threshold)


def test_pixels_and_fractions_name_the_same_point(predictor: SAM2ImagePredictor) -> None:
    x, y = disc_centre()
    fractions = [[x / SIZE[1], y / SIZE[0]]]
    by_pixel = predictor.predict(**click(), return_logits=True)
    by_fraction = predictor.predict(fractions, [1], return_logits=True, normalize_coords=False)
    assert_allclose(by_pixel[0], by_fraction[0], **CLOSE)
    with pytest.raises(ValueError, match="0 <= x <= 1 and 0 <= y <= 1"):
        predictor.predict([disc_centre()], [1], normalize_coords=False)


def test_a_box_is_two_labelled_points(predictor: SAM2ImagePredictor) -> None:
    by_box = predictor.predict(box=BOXES[0])
    by_points = predictor.predict(np.reshape(BOXES[0], (2, 2)), [2, 3])
    for a, b in zip(by_box, by_points, strict=True):
        assert np.array_equal(a, b)


def test_boxes_together_give_what_they_give_alone(predictor: SAM2ImagePredictor) -> None:
    masks, iou, low_res = predictor.predict(box=BOXES, return_logits=True, multimask_output=False)
    assert masks.shape == (3, 1, *SIZE)
    assert (iou.shape, low_res.shape) == ((3, 1), (3, 1, LOW, LOW))
    for i, box in enumerate(BOXES):
        alone = predictor.predict(box=box, return_logits=True, multimask_output=False)
        assert_allclose(masks[i], alone[0], **CLOSE)
        assert_allclose(iou[i], alone[1], **CLOSE)


def test_a_box_comes_before_its_clicks(predictor: SAM2ImagePredictor) -> None:
    x0, y0, x1, y1 = BOXES[0]
    both = predictor.predict([[70, 20]], [0], box=BOXES[0])
    points = [[x0, y0], [x1, y1], [70, 20]]
    for a, b in zip(both, predictor.predict(points, [2, 3, 0]), strict=True):
        assert np.array_equal(a, b)
    many = predictor.predict([[[70, 20]], [[30, 30]], [[5, 5]]], [[0], [1], [1]], box=BOXES)
    assert many[0].shape == (3, 3, *SIZE)


def test_one_prompt_may_keep_its_axis(predictor: SAM2ImagePredictor) -> None:
    usual = predictor.predict(box=BOXES[:1])
    kept = predictor.predict(box=BOXES[:1], keep_prompt_axis=True)
    for a, b in zip(usual, kept, strict=True):
        assert b.shape == (1, *a.shape)
        assert np.array_equal(b[0], a)


def test_a_mask_fed_back_refines_the_next_one(predictor: SAM2ImagePredictor) -> None:
    _, iou, low_res = predictor.predict(**click())
    best = low_res[[iou.argmax()]]
    first = predictor.predict(**click(), multimask_output=False, return_logits=True)[0]
    refined = predictor.predict(
        **click(), mask_input=best, multimask_output=False, return_logits=True
    )[0]
    assert not np.allclose(first, refined, **CLOSE)
    as_tensor = predictor.predict(
        **click(), mask_input=torch.from_numpy(best), multimask_output=False, return_logits=True
    )[0]
    assert np.array_equal(as_tensor, refined)


def test_one_mask_serves_all_prompts_or_each_has_its_own(predictor: SAM2ImagePredictor) -> None:
    low_res = predictor.predict(box=BOXES, multimask_output=False)[2]
    own = predictor.predict(box=BOXES, mask_input=low_res, return_logits=True)[0]
    shared = predictor.predict(box=BOXES, mask_input=low_res[1], return_logits=True)[0]
    assert_allclose(shared[1], own[1], **CLOSE)
    assert not np.allclose(shared[0], own[0], **CLOSE)
    with pytest.raises(ValueError, match=r"mask_input must hold 1 or 3 masks .* got 2"):
        predictor.predict(box=BOXES, mask_input=low_res[:2])


def test_a_mask_alone_and_no_prompt_at_all_are_prompts(predictor: SAM2ImagePredictor) -> None:
    low_res = predictor.predict(box=BOXES, multimask_output=False)[2]
    assert predictor.predict()[0].shape == (3, *SIZE)
    assert predictor.predict(mask_input=low_res[0])[0].shape == (3, *SIZE)
    assert predictor.predict(mask_input=low_res)[0].shape == (3, 3, *SIZE)


BAD_PROMPTS: dict[str, dict[str, Any]] = {
    "labels is missing": {"point_coords": [[1, 2]]},
    "points is missing": {"point_labels": [1]},
    r"labels must be \[1\] to fit": {"point_coords": [[1, 2]], "point_labels": [1, 0]},
    "points must lie inside": {"point_coords": [[1, 73]], "point_labels": [1]},
    "box must be x0, y0, x1, y1": {"box": [30, 10, 20, 40]},
    r"got 3 boxes and 1 rows of points; use \[N, P, 2\]": {
        "box": BOXES,
        "point_coords": [[1, 2]],
        "point_labels": [1],
    },
    r"mask_input must be \[1, 32, 32\] .* got \[1, 256, 256\]": {
        "mask_input": np.zeros((1, 256, 256))
    },
    r"mask_input must be \[1, 32, 32\] .* got \[3, 32, 32\]": {"mask_input": np.zeros((3, 32, 32))},
    "hq_mode must be one of": {"hq_mode": "best"},
}


@pytest.mark.parametrize("message", BAD_PROMPTS)
def test_prompts_that_do_not_fit_are_named(predictor: SAM2ImagePredictor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**BAD_PROMPTS[message])


def test_what_the_published_packages_order_differently_is_given_by_name(
    predictor: SAM2ImagePredictor,
) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        predictor.predict([disc_centre()], [1], None, None, True, True)  # type: ignore[misc]


# ----------------------------------------------------------------- pictures


def test_features_have_the_published_layout(predictor: SAM2ImagePredictor) -> None:
    features = predictor._features
    assert set(features) == {"image_embed", "high_res_feats"}
    assert features["image_embed"].shape == (1, 32, 8, 8)
    assert [f.shape for f in features["high_res_feats"]] == [(1, 4, 32, 32), (1, 8, 16, 16)]
    assert predictor.get_image_embedding() is features["image_embed"]
    assert predictor._orig_hw == [SIZE]
    assert predictor.device == torch.device("cpu")


@pytest.mark.parametrize("side", [96, 128])
def test_any_model_side_works(side: int) -> None:
    predictor = SAM2ImagePredictor(toy_predictor(image_size=side))
    predictor.set_image(toy_clip(1)[0])
    masks, _, low_res = predictor.predict(**click())
    assert masks.shape == (3, *SIZE)
    assert low_res.shape == (3, side // 4, side // 4)


def test_asking_before_a_picture_is_set_says_so(model: Any) -> None:
    predictor = SAM2ImagePredictor(model)
    asks = (predictor.predict, predictor.predict_batch, predictor.get_image_embedding)
    for ask in asks:
        with pytest.raises(RuntimeError, match="no image is set: call set_image"):
            ask()


def test_features_that_were_put_aside_are_given_to_another_predictor(
    model: Any, predictor: SAM2ImagePredictor
) -> None:
    other = SAM2ImagePredictor(model)
    for name in ("_features", "_orig_hw", "_is_image_set", "_is_batch"):
        setattr(other, name, getattr(predictor, name))
    for a, b in zip(other.predict(**click()), predictor.predict(**click()), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("part", ["", "image_encoder"])
def test_after_other_weights_the_picture_is_asked_for_again(part: str) -> None:
    predictor = SAM2ImagePredictor(toy_predictor())
    predictor.set_image(toy_clip(1)[0])
    loaded = predictor.model.get_submodule(part)
    loaded.load_state_dict(loaded.state_dict())
    with pytest.raises(RuntimeError, match="other weights since: set the image again"):
        predictor.predict(**click())
    predictor.set_image(toy_clip(1)[0])
    assert predictor.predict(**click())[0].shape == (3, *SIZE)


def test_a_picture_that_is_none_leaves_no_picture(predictor: SAM2ImagePredictor) -> None:
    with pytest.raises(TypeError, match="image must be"):
        predictor.set_image("picture.png")
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.predict(**click())
    with pytest.raises(ValueError, match="got uint16"):
        predictor.set_image_batch([toy_clip(1)[0], np.zeros((4, 4, 3), np.uint16)])
    with pytest.raises(RuntimeError, match="no image is set"):
        predictor.predict_batch()


def test_pictures_in_a_batch_give_what_they_give_alone(model: Any) -> None:
    frames = [*toy_clip(2), toy_clip(3)[2][:40, :70], *toy_clip(9)[3:]]  # more than one pass
    predictor = SAM2ImagePredictor(model)
    predictor.set_image_batch(frames)
    prompts = [[[20 + i, 15]] for i in range(len(frames))]
    got = predictor.predict_batch(prompts, [[1]] * len(frames), return_logits=True)
    for i, frame in enumerate(frames):
        predictor.set_image(frame)
        alone = predictor.predict(prompts[i], [1], return_logits=True)
        assert got[0][i].shape == (3, *frame.shape[:2])
        for a, b in zip(got, alone, strict=True):
            assert_allclose(a[i], b, **CLOSE)


def test_each_picture_of_a_batch_may_have_another_kind_of_prompt(model: Any) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image_batch(tuple(toy_clip(2)))
    masks, iou, _ = predictor.predict_batch(
        [[disc_centre()], None], [[1], None], [None, BOXES], multimask_output=False
    )
    assert [m.shape for m in masks] == [(1, *SIZE), (3, 1, *SIZE)]
    assert [i.shape for i in iou] == [(1,), (3, 1)]
    with pytest.raises(ValueError, match=r"box_batch must have one entry a picture \(2\), got 1"):
        predictor.predict_batch(box_batch=[BOXES])
    with pytest.raises(TypeError, match="box_batch must be a list with one entry a picture, got 4"):
        predictor.predict_batch(box_batch=4)


def test_one_picture_and_a_batch_are_not_confused(predictor: SAM2ImagePredictor) -> None:
    with pytest.raises(RuntimeError, match="one image is set: use predict"):
        predictor.predict_batch([[disc_centre()]], [[1]])
    predictor.set_image_batch([toy_clip(1)[0]])
    with pytest.raises(RuntimeError, match="a batch of images is set: use predict_batch"):
        predictor.predict(**click())
    for nothing in ([], toy_clip(2), None):
        with pytest.raises(ValueError, match="image_list must be a list of one or more"):
            predictor.set_image_batch(nothing)


# ----------------------------------------------------------------------- HQ


@pytest.mark.parametrize("multimask", [True, False])
def test_modes_combine_what_one_decode_gives(
    predictor: SAM2ImagePredictor, multimask: bool
) -> None:
    got = {
        mode: predictor.predict(box=BOXES, multimask_output=multimask, hq_mode=mode)
        for mode in HQ_MODES
    }
    for mode in HQ_MODES:
        masks, iou, _ = got[mode]
        assert masks.shape[:2] == iou.shape == (3, 3 if multimask else 1)
        assert_allclose(iou, got["off"][1], **CLOSE)
    low = {mode: torch.from_numpy(got[mode][2]) for mode in HQ_MODES}
    assert_allclose(low["correct"], low["off"] + low["only"], **CLOSE)  # none is near the limit
    auto = choose_hq(low["off"], low["only"][:, :1], torch.from_numpy(got["off"][1]), "auto")
    assert_allclose(low["auto"], auto, **CLOSE)


def test_the_published_flag_is_the_mode_and_counts_agree(predictor: SAM2ImagePredictor) -> None:
    by_flag = predictor.predict(**click(), hq_token_only=True)
    by_mode = predictor.predict(**click(), hq_mode="only")
    assert by_flag[0].shape[0] == by_flag[1].shape[0] == by_flag[2].shape[0] == 3
    for a, b in zip(by_flag, by_mode, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(by_flag[0][0], by_flag[0][2])  # one HQ mask for all candidates
    predictor.set_image_batch([toy_clip(1)[0]])
    batch = predictor.predict_batch([[disc_centre()]], [[1]], hq_token_only=True)
    assert np.array_equal(batch[0][0], by_flag[0])


def test_the_mode_of_the_model_is_the_default(model: Any) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(toy_clip(1)[0])
    want = predictor.predict(**click(), hq_mode="off")[2]
    model.hq_mode = "off"
    try:
        assert np.array_equal(predictor.predict(**click())[2], want)
    finally:
        model.hq_mode = "correct"


def test_a_plain_model_works_and_refuses_hq_by_name(plain: Any) -> None:
    predictor = SAM2ImagePredictor(plain)
    predictor.set_image(toy_clip(1)[0])
    usual = predictor.predict(**click())[2]
    assert np.array_equal(predictor.predict(**click(), hq_mode="off")[2], usual)
    with pytest.raises(ValueError, match="hq_mode='auto' needs an HQ model"):
        predictor.predict(**click(), hq_mode="auto")
    with pytest.raises(ValueError, match="hq_token_only needs an HQ model"):
        predictor.predict(**click(), hq_token_only=True)


# ---------------------------------------------------------------- the rest


def regions(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Pixels of 8-connected regions of at most `max_area` pixels."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return mask & (np.bincount(labels.ravel())[labels] <= max_area)


def test_small_holes_and_islands_are_cleaned_and_the_logits_to_feed_back_are_not(
    model: Any,
) -> None:
    square = np.array(toy_clip(1)[0][:LOW, :LOW])  # of the size of the map: nothing is resized
    results = {}
    for areas in ((0, 0), (12, 0), (0, 12), (12, 12)):
        predictor = SAM2ImagePredictor(model, max_hole_area=areas[0], max_sprinkle_area=areas[1])
        predictor.set_image(square)
        results[areas] = predictor.predict([[16, 16]], [1], return_logits=True)
    raw, _, low_res = results[0, 0]
    assert_allclose(raw, low_res, **CLOSE)
    num_cleaned = 0
    for (hole_area, island_area), (logits, _, fed_back) in results.items():
        assert np.array_equal(fed_back, low_res)
        for before, after in zip(raw, logits, strict=True):
            holes, islands = regions(before <= 0, hole_area), regions(before > 0, island_area)
            want = np.where(islands, -10, np.where(holes, 10, before))
            assert_allclose(after, want, **CLOSE)
            num_cleaned += holes.sum() + islands.sum()
    assert num_cleaned > 0  # otherwise the picture proves nothing


def test_autocast_returns_float32(predictor: SAM2ImagePredictor) -> None:
    exact = predictor.predict(**click(), return_logits=True)
    with torch.autocast("cpu", torch.bfloat16):
        predictor.set_image(toy_clip(1)[0])
        half = predictor.predict(**click(), return_logits=True)
        assert predictor.predict(**click())[0].dtype == bool
    for b in half:
        assert b.dtype == np.float32
    assert ((exact[0] > 0) == (half[0] > 0)).mean() > 0.9  # bfloat16 keeps 8 bits


def test_no_gradient_is_kept(predictor: SAM2ImagePredictor) -> None:
    predictor.model.requires_grad_(True)
    try:
        predictor.set_image(toy_clip(1)[0])
        assert not predictor.get_image_embedding().requires_grad
        assert predictor.predict(**click())[0].any()
    finally:
        predictor.model.requires_grad_(False)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_masks_without_hq_cost_no_hq(
    predictor: SAM2ImagePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = predictor.predict(**click(), hq_mode="off", return_logits=True)
    monkeypatch.setattr(predictor.model.sam_mask_decoder, "embedding_maskfeature", None)
    got = predictor.predict(**click(), hq_mode="off", return_logits=True)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("flags", [{"num_maskmem": 0}, {"directly_add_no_mem_embed": False}])
def test_a_still_is_no_frame_of_a_video(flags: dict[str, Any]) -> None:
    predictor = SAM2ImagePredictor(toy_predictor(**flags))
    predictor.set_image(toy_clip(1)[0])
    model = predictor.model
    with torch.no_grad():
        pixels = predictor._transforms.forward_batch([toy_clip(1)[0]])
        want = model.encode_image(pixels).embedding
        if model.config.directly_add_no_mem_embed:
            want = want + model.no_mem_embed.reshape(1, -1, 1, 1)
    assert torch.equal(predictor.get_image_embedding(), want)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"mask_threshold": None}, TypeError, "mask_threshold must be a number, got None"),
        ({"max_hole_area": -5}, ValueError, "max_hole_area must be 0 or more, got -5"),
        ({"max_sprinkle_area": "1"}, TypeError, "max_sprinkle_area must be a number, got '1'"),
    ],
)
def test_a_wrong_setting_is_named(
    model: Any, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        SAM2ImagePredictor(model, **settings)


@pytest.mark.usefixtures("process_group")
def test_a_model_wrapped_for_distributed_training_is_unwrapped() -> None:
    wrapped = DistributedDataParallel(toy_predictor())
    predictor = SAM2ImagePredictor(wrapped)  # type: ignore[arg-type]
    assert predictor.model is wrapped.module


def test_what_is_no_model_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="sam_model must be a SAM2Base, got Identity"):
        SAM2ImagePredictor(torch.nn.Identity())  # type: ignore[arg-type]
