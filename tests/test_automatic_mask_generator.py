from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from sam2_hq.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.ops.rle import rle_to_mask
from tests.toy import SIDE, toy_predictor

LOOSE = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return toy_predictor()


class Painter:
    """A predictor that sees perfectly: the objects of a picture are its areas of one red value.

    A click gives its object (predicted IoU 0.9), a blurred one (0.95), and nothing (0.1). Red 0 has
    no object. The picture's red value is also the order of objects by predicted IoU.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.model = model
        self.device = torch.device("cpu")
        self._transforms = self
        self.low_res_inputs: list[torch.Tensor] = []
        self.upscaled = 0

    def set_image(self, image):
        self.size = image.shape[:2]
        self.red = torch.from_numpy(image[..., 0].astype(np.int64))

    def reset_predictor(self):
        self.red = None

    def postprocess_masks(self, low_res, size):
        self.upscaled += len(low_res)
        return low_res

    def _decode(self, points, labels, boxes, mask_input, multimask, hq_mode, img_idx):
        height, width = self.size
        x, y = (points[:, 0] / SIDE * points.new_tensor([width, height])).long().unbind(1)
        red = self.red[y, x]
        objects = (self.red == red[:, None, None]) & (red > 0)[:, None, None]
        sharp = torch.where(objects, 40.0, -40.0)
        iou = torch.where(red > 0, 0.9 + red / 1000, 0.1)
        if mask_input is not None:
            self.low_res_inputs.append(mask_input)
            return sharp[:, None], iou[:, None]
        masks = torch.stack([sharp, sharp / 80, torch.full_like(sharp, -40.0)], dim=1)
        ious = torch.stack([iou, iou + 0.04, torch.full_like(iou, 0.1)], dim=1)
        return (masks, ious) if multimask else (masks[:, :1], ious[:, :1])


def generator_of(model: SAM2Base, **settings) -> SAM2AutomaticMaskGenerator:
    generator = SAM2AutomaticMaskGenerator(model, **{"points_per_side": 16, **settings})
    generator.predictor = Painter(model)
    return generator


def picture(height: int = 120, width: int = 200) -> np.ndarray:
    """A square (red 20), a bar over the whole width (10), and a small square (30)."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[20:50, 30:70, 0] = 20
    image[80:90, :, 0] = 10
    image[50:62, 150:162, 0] = 30
    return image


@pytest.mark.parametrize("line", [(slice(30, 31), slice(None)), (slice(None), slice(60, 61))])
@pytest.mark.parametrize("min_area", [0, 5])
def test_a_line_of_one_pixel_is_found_once(model, line, min_area):
    image = np.zeros((64, 128, 3), dtype=np.uint8)
    image[line] = (20, 0, 0)
    points = [np.array([[x, 30.5 / 64] for x in np.linspace(0.1, 0.9, 9)])]
    if line[0] == slice(None):
        points = [np.array([[60.5 / 128, y] for y in np.linspace(0.1, 0.9, 9)])]
    generator = generator_of(
        model, points_per_side=None, point_grids=points, min_mask_region_area=min_area
    )
    (record,) = generator.generate(image)
    np.testing.assert_array_equal(record["segmentation"], image[..., 0] == 20)


def test_every_object_is_found_once_best_first(model):
    image = picture()
    records = generator_of(model).generate(image)
    assert [round(record["predicted_iou"], 3) for record in records] == [0.93, 0.92, 0.91]
    for record, red in zip(records, (30, 20, 10), strict=True):
        assert record["segmentation"].dtype == bool
        np.testing.assert_array_equal(record["segmentation"], image[..., 0] == red)
        [(x, y)] = record["point_coords"]
        assert image[int(y), int(x), 0] == red
        assert record["area"] == (image[..., 0] == red).sum()
        assert record["stability_score"] == 1.0
        assert record["crop_box"] == [0.0, 0.0, 200.0, 120.0]
    assert [record["bbox"] for record in records] == [
        [150, 50, 11, 11],
        [30, 20, 39, 29],
        [0, 80, 199, 9],
    ]
    assert len(records[0]) == 7


def test_only_masks_of_a_good_predicted_iou_are_scaled_up(model):
    generator = generator_of(model, points_per_side=16)
    generator.generate(picture())
    clicks_on_objects = sum(
        picture()[int((k // 16 + 0.5) * 7.5), int((k % 16 + 0.5) * 12.5), 0] > 0 for k in range(256)
    )
    assert generator.predictor.upscaled == 2 * clicks_on_objects


def test_thresholds_of_zero_keep_everything_that_is_no_duplicate(model):
    image = np.full((40, 40, 3), 5, dtype=np.uint8)
    found = generator_of(model, pred_iou_thresh=0, stability_score_thresh=0).generate(image)
    assert {record["area"] for record in found} == {1600, 0}
    empty = next(record for record in found if record["area"] == 0)
    assert (empty["stability_score"], empty["bbox"]) == (0.0, [0, 0, 0, 0])


@pytest.mark.parametrize("layers", [0, 1])
def test_a_picture_without_objects_gives_no_record(model, layers):
    nothing = np.zeros((50, 70, 3), dtype=np.uint8)
    settings = {"crop_n_layers": layers, "min_mask_region_area": 5, "use_m2m": True}
    assert generator_of(model, **settings).generate(nothing) == []


def test_the_smallest_crop_that_has_an_object_whole_wins(model):
    image = picture()
    records = generator_of(model, crop_n_layers=1).generate(image)
    assert len(records) == 3
    by_area = {record["area"]: record for record in records}
    # The bar leaves every crop but the whole picture.
    assert by_area[2000]["crop_box"] == [0, 0, 200, 120]
    assert by_area[1200]["crop_box"] == [0, 0, 120, 80]
    # The small square lies within 20 pixels of the edge of the two crops that have it.
    assert by_area[144]["crop_box"] == [0, 0, 200, 120]
    for record, red in ((by_area[1200], 20), (by_area[144], 30)):
        np.testing.assert_array_equal(record["segmentation"], image[..., 0] == red)
        [(x, y)] = record["point_coords"]
        assert image[int(y), int(x), 0] == red


def test_run_lengths_hold_the_same_masks(model):
    image = picture()
    masks = [record["segmentation"] for record in generator_of(model).generate(image)]
    plain = generator_of(model, output_mode="uncompressed_rle").generate(image)
    compressed = generator_of(model, output_mode="coco_rle").generate(image)
    for mask, long, short in zip(masks, plain, compressed, strict=True):
        np.testing.assert_array_equal(rle_to_mask(long["segmentation"]), mask)
        np.testing.assert_array_equal(coco.decode([short["segmentation"]])[..., 0] == 1, mask)
        assert short["area"] == coco.area(short["segmentation"])


def test_coco_boxes_count_pixels(model):
    image = picture()
    for record in generator_of(model, output_mode="coco_rle", coco_boxes=True).generate(image):
        assert record["bbox"] == coco.toBbox(record["segmentation"]).tolist()


def test_refinement_feeds_every_candidate_back(model):
    generator = generator_of(model, points_per_side=4, points_per_batch=5, use_m2m=True)
    records = generator.generate(picture())
    fed_back = torch.cat(generator.predictor.low_res_inputs)
    assert len(fed_back) == 16 * 3
    assert max(map(len, generator.predictor.low_res_inputs)) == 5
    assert fed_back.abs().max() == 32
    assert {record["area"] for record in records} <= {1200, 2000, 144}


def test_small_regions_are_removed_in_picture_pixels(model):
    image = picture()
    image[30:33, 40:43, 0] = 0  # a hole of 9 pixels
    image[0:2, 100:104, 0] = 20  # an island of 8
    before = generator_of(model).generate(image)
    assert {record["area"] for record in before} >= {1200 - 9 + 8}
    after = generator_of(model, min_mask_region_area=10).generate(image)
    assert [record["area"] for record in after] == [144, 1200, 2000]
    assert after[1]["bbox"] == [30, 20, 39, 29]
    kept = generator_of(model, min_mask_region_area=9).generate(image)
    assert 1200 - 9 in {record["area"] for record in kept}


def test_progress_counts_clicks(model):
    seen = []
    generator = generator_of(model, points_per_side=8, points_per_batch=30, crop_n_layers=1)
    generator.generate(picture(), progress=lambda done, total: seen.append((done, total)))
    assert seen[:3] == [(30, 320), (60, 320), (64, 320)]
    assert seen[-1] == (320, 320)


def test_numbers_of_numpy_are_numbers(model):
    generator = generator_of(model, points_per_batch=np.int64(5), use_m2m=True)
    wanted = generator_of(model, points_per_batch=5, use_m2m=True).generate(picture())
    assert len(generator.generate(picture())) == len(wanted)


def test_a_hub_model_is_built_with_what_the_generator_does_not_take(model, monkeypatch):
    from sam2_hq import build_sam

    asked = []

    def build(model_id, **kwargs):
        asked.append((model_id, kwargs))
        return model

    monkeypatch.setattr(build_sam, "build_sam2_hf", build)
    generator = SAM2AutomaticMaskGenerator.from_pretrained("a/b", device="cpu", use_m2m=True)
    assert asked == [("a/b", {"device": "cpu"})]
    assert generator.use_m2m
    with pytest.raises(TypeError, match="'points_per_sid'; did you mean 'points_per_side'"):
        SAM2AutomaticMaskGenerator.from_pretrained("a/b", points_per_sid=16)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"output_mode": "png"}, ValueError, "output_mode must be one of .* got 'png'"),
        ({"points_per_side": None}, ValueError, "exactly one of .* got none"),
        ({"point_grids": [[[0.5, 0.5]]]}, ValueError, "exactly one of .* got both"),
        ({"points_per_side": None, "point_grids": [[1, 2]]}, ValueError, r"got \[2\]"),
        ({"points_per_side": None, "point_grids": [[[2, 0]]]}, ValueError, "must lie in 0..1"),
        (
            {"points_per_side": None, "point_grids": [[[0, 0]]], "crop_n_layers": 1},
            ValueError,
            "must hold 2 grids, got 1",
        ),
        ({"crop_n_points_downscale_factor": 0}, ValueError, "1 or more, got 0"),
        ({"points_per_batch": 0}, ValueError, "points_per_batch must be 1 or more, got 0"),
        ({"min_mask_region_area": -1}, ValueError, "min_mask_region_area"),
        ({"crop_n_layers": -1}, ValueError, "crop_n_layers"),
        ({"crop_n_layers": 1.5}, TypeError, "crop_n_layers must be a whole number, got 1.5"),
        ({"points_per_batch": 2.5}, TypeError, "points_per_batch must be a whole number"),
        ({"points_per_side": 2.5}, TypeError, "points_per_side must be a whole number"),
        ({"pred_iou_thresh": "a"}, TypeError, "pred_iou_thresh must be a number, got 'a'"),
        ({"stability_score_offset": None}, TypeError, "stability_score_offset must be a number"),
        ({"crop_overlap_ratio": 1.0}, ValueError, "crop_overlap_ratio must be below 1, got 1.0"),
        ({"crop_overlap_ratio": float("nan")}, ValueError, "crop_overlap_ratio must be 0 or more"),
        ({"hq_mode": "best"}, ValueError, "hq_mode"),
        ({"point_per_side": 3}, TypeError, "point_per_side"),
    ],
)
def test_a_wrong_argument_is_named(model, settings, error, words):
    with pytest.raises(error, match=words):
        SAM2AutomaticMaskGenerator(model, **settings)


def test_something_that_is_no_picture_is_refused(model):
    with pytest.raises(TypeError, match="image must be"):
        SAM2AutomaticMaskGenerator(model).generate("picture.png")


class TestWithANetwork:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)

    @pytest.mark.parametrize("hq_mode", ["off", "correct", "only", "auto"])
    def test_every_mode_gives_whole_records(self, model, hq_mode):
        generator = SAM2AutomaticMaskGenerator(model, **LOOSE, hq_mode=hq_mode)
        records = generator.generate(Image.fromarray(self.image))
        assert records
        for record in records:
            assert record["segmentation"].shape == (50, 70)
            assert record["area"] == record["segmentation"].sum()

    def test_a_later_mode_of_the_model_holds_for_its_generators_too(self, model):
        follows = SAM2AutomaticMaskGenerator(model, **LOOSE)
        off = SAM2AutomaticMaskGenerator(model, **LOOSE, hq_mode="off").generate(self.image)
        before = model.hq_mode
        model.hq_mode = "off"
        try:
            records = follows.generate(self.image)
        finally:
            model.hq_mode = before
        areas = [record["area"] for record in off]
        assert [record["area"] for record in records] == areas
        assert [record["area"] for record in follows.generate(self.image)] != areas

    @pytest.mark.parametrize("settings", [{}, {"use_m2m": True}, {"multimask_output": False}])
    def test_the_batch_size_does_not_matter(self, model, settings):
        results = [
            SAM2AutomaticMaskGenerator(
                model, **LOOSE, **settings, points_per_batch=size, output_mode="coco_rle"
            ).generate(self.image)
            for size in (2, 64)
        ]
        assert len(results[0]) == len(results[1])
        for one, other in zip(*results, strict=True):
            assert one["point_coords"] == other["point_coords"]
            # abs=2: a logit within float32 rounding of 0 may fall on either side
            assert one["area"] == pytest.approx(other["area"], abs=2)

    def test_a_mask_is_the_one_that_the_predictor_gives_for_its_click(self, model):
        generator = SAM2AutomaticMaskGenerator(model, **LOOSE, box_nms_thresh=1.0)
        records = generator.generate(self.image)
        generator.predictor.set_image(self.image)
        for record in records[:5]:
            masks, ious, _ = generator.predictor.predict(record["point_coords"], [1])
            candidate = np.abs(ious - record["predicted_iou"]).argmin()
            assert (masks[candidate] != record["segmentation"]).sum() <= 2
