"""Stories of small objects: where the second look goes, what it changes, and what it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sam2_hq import sam2_image_predictor, zoom_in
from sam2_hq.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2_hq.build_sam import load
from sam2_hq.evaluation.metrics import jaccard
from sam2_hq.sam2_image_predictor import SAM2ImagePredictor
from sam2_hq.structures import PointPrompt
from sam2_hq.tracking import tracker
from sam2_hq.zoom_in import (
    NUM_WINDOWS,
    WINDOWS_A_PASS,
    Window,
    look_again,
    low_res_with,
    window_around,
)
from tests.toy import SIDE, SIZE, disc_centre, toy_clip, toy_predictor

HEIGHT, WIDTH = SIZE
SMALL_BOX = [60.0, 8.0, 72.0, 20.0]
WHOLE_BOX = [0.0, 0.0, 95.0, 71.0]
SCALE = torch.tensor([SIDE / WIDTH, SIDE / HEIGHT])
LOOKS: dict[str, Any] = {
    "iou": torch.ones(1),
    "ratio": 2.0,
    "hq_mode": "off",
    "enlarge": lambda logits, size: torch.nn.functional.interpolate(logits, size, mode="bilinear"),
}


@pytest.fixture
def model() -> Any:
    return toy_predictor(zoom_in=2.0).requires_grad_(False)


@pytest.fixture
def predictor(model: Any) -> SAM2ImagePredictor:
    made = SAM2ImagePredictor(model)
    made.set_image(toy_clip(1)[0])
    return made


def both_looks(predictor: SAM2ImagePredictor, **prompt: Any) -> tuple[Any, Any]:
    """What `predict` gives after one look and after two, as logits."""
    ratio, predictor.model.zoom_in = predictor.model.zoom_in, None
    first = predictor.predict(**prompt, return_logits=True)
    predictor.model.zoom_in = ratio
    return first, predictor.predict(**prompt, return_logits=True)


def found() -> torch.Tensor:
    """Logits [1, H, W] of a first look that found 10 x 12 pixels."""
    logits = torch.full((1, *SIZE), -5.0)
    logits[0, 30:40, 40:52] = 5.0
    return logits


# ------------------------------------------------------------------ windows


def test_a_window_is_square_and_holds_its_object_in_the_middle() -> None:
    assert window_around((40, 30, 60, 40), (200, 300), 2.0) == Window(20, 5, 80, 65)  # at least 60
    assert window_around((100, 80, 150, 110), (200, 300), 2.0) == Window(75, 45, 175, 145)


def test_a_window_at_the_edge_is_pushed_inside() -> None:
    window = window_around((280, 180, 300, 200), (200, 300), 4.0)
    assert window == Window(220, 120, 300, 200)


def test_a_flat_picture_gives_a_flat_window() -> None:
    window = window_around((100, 0, 180, 50), (50, 400), 1.5)
    assert window == Window(80, 0, 200, 50)
    assert window.size == (50, 120)


def test_the_window_of_a_large_object_is_the_picture() -> None:
    assert window_around((0, 0, 300, 200), (200, 300), 1.0) == Window(0, 0, 300, 200)
    assert window_around((20, 20, 250, 190), (200, 300), 1.5) == Window(0, 0, 300, 200)


def test_a_single_click_has_a_window_too() -> None:
    assert window_around((50, 50, 50, 50), (100, 100), 2.0) == Window(40, 40, 60, 60)
    assert window_around((0, 0, 0, 0), (1, 9), 2.0) == Window(0, 0, 2, 1)


# ----------------------------------------------------------------- pictures


def test_a_small_object_changes_inside_its_window_alone(predictor: SAM2ImagePredictor) -> None:
    """Beyond it only what spilled over the box goes."""
    first, second = both_looks(predictor, box=SMALL_BOX, multimask_output=False)
    window = window_around((60, 8, 72, 20), SIZE, 2.0)
    changed = (first[0] != second[0])[0]
    assert window.cut(torch.from_numpy(changed)).float().mean() > 0.9
    spilled = first[0][0] > 0
    for mask in (changed, spilled):
        window.cut(torch.from_numpy(mask)).zero_()
    assert np.array_equal(changed, spilled)
    assert np.array_equal(first[1], second[1])  # predicted IoUs are those of the first look
    assert first[2].shape == second[2].shape
    assert np.abs(second[2]).max() <= 32


def test_of_three_candidates_the_best_is_looked_at_again(predictor: SAM2ImagePredictor) -> None:
    first, second = both_looks(predictor, box=SMALL_BOX)
    best = int(first[1].argmax())
    changed = [bool((a != b).any()) for a, b in zip(first[0], second[0], strict=True)]
    assert changed == [i == best for i in range(3)]
    assert [bool((a != b).any()) for a, b in zip(first[2], second[2], strict=True)] == changed


def test_many_boxes_each_have_their_own_window(predictor: SAM2ImagePredictor) -> None:
    boxes = [SMALL_BOX, WHOLE_BOX, [10.0, 40.0, 26.0, 60.0]] * 3
    assert len(boxes) > WINDOWS_A_PASS
    together = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
    for i, box in enumerate(boxes):
        alone = predictor.predict(box=box, multimask_output=False, return_logits=True)
        np.testing.assert_allclose(together[0][i], alone[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(together[2][i], alone[2], rtol=0, atol=1e-4)


def test_a_batch_of_pictures_is_answered_as_each_alone(model: Any) -> None:
    pictures = list(toy_clip(2))
    batch = SAM2ImagePredictor(model)
    batch.set_image_batch(pictures)
    masks, _, _ = batch.predict_batch(
        box_batch=[np.array(SMALL_BOX)] * 2, multimask_output=False, return_logits=True
    )
    for picture, mask in zip(pictures, masks, strict=True):
        alone = SAM2ImagePredictor(model)
        alone.set_image(picture)
        wanted = alone.predict(box=SMALL_BOX, multimask_output=False, return_logits=True)[0]
        np.testing.assert_allclose(mask, wanted, rtol=0, atol=1e-4)


def test_what_was_seen_is_fed_back_with_the_next_click(predictor: SAM2ImagePredictor) -> None:
    """The low-resolution logits are of the mask that is shown, so a correction begins with it."""
    first, second = both_looks(predictor, box=SMALL_BOX, multimask_output=False)
    side = second[2].shape[-1]
    shown = torch.nn.functional.interpolate(
        torch.from_numpy((second[0] > 0).astype(np.float32))[None], (side, side), mode="area"
    )
    assert jaccard(second[2][0] > 0, shown[0, 0].numpy() >= 0.5) > 0.9
    y, x = np.mgrid[:side, :side] * (HEIGHT / side), np.mgrid[:side, :side] * (WIDTH / side)
    window = window_around((60, 8, 72, 20), SIZE, 2.0)
    outside = (y[0] >= window.y1) | (x[1] >= window.x1)
    spilled = first[2][0] > 0
    assert np.array_equal(first[2][0][outside & ~spilled], second[2][0][outside & ~spilled])
    assert (second[2][0][outside & spilled] < 0).all()


@pytest.mark.parametrize("threshold", [0.0, 1.5])
@pytest.mark.parametrize("radius", [2.0, 5.0, 20.0])
def test_a_thing_smaller_than_a_cell_is_not_lost_among_cells(
    radius: float, threshold: float
) -> None:
    """Cells of 20 x 11 pixels, as those of the bundled model in a picture of 1920 x 1080."""
    y, x = np.mgrid[:1080, :1920]
    logits = torch.from_numpy(np.where(np.hypot(x - 907, y - 511) < radius, 25.0, -25.0))
    before = torch.full((96, 96), -9.0)
    window = Window(800, 400, 1000, 600)
    low_res = low_res_with(before, logits, [window], threshold)
    back = torch.nn.functional.interpolate(
        low_res[None, None], (1080, 1920), mode="bilinear", align_corners=False
    )[0, 0]
    found = back > threshold
    assert found[505:518, 897:918].any()
    assert 0.4 < found.sum() / (logits > 0).sum() < 60 / radius
    assert torch.equal(low_res[:30], before[:30])
    if radius == 20:
        assert jaccard(found.numpy(), (logits > 0).numpy()) > 0.7


def test_a_look_that_finds_nothing_does_not_count(model: Any) -> None:
    picture = toy_clip(1)[0]
    with torch.no_grad():
        seen = look_again(model, picture, found(), None, **LOOKS)
        assert len(seen.windows[0]) == NUM_WINDOWS
        over = float(seen.logits.max()) + 30
        lost = look_again(model, picture, found() + over, None, threshold=over, **LOOKS)
    assert lost.windows == [[]]
    assert torch.equal(lost.logits, found() + over)


def test_what_the_first_window_found_is_not_wiped_by_the_last(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = model.sam_prompt_encoder.mask_input_size
    answers = iter([torch.full((1, 1, *grid), 5.0), torch.full((1, 1, *grid), -5.0)])
    monkeypatch.setattr(zoom_in, "_ask", lambda *_: next(answers))
    nothing = torch.full((1, *SIZE), -5.0)
    click = PointPrompt(torch.tensor([[[30.0, 30.0]]]), torch.tensor([[1]]).int())
    seen = look_again(model, toy_clip(1)[0], nothing, click, **LOOKS)
    assert (seen.logits > 0).any()
    assert len(seen.windows[0]) == 1


def test_what_is_faint_is_neither_lost_nor_made_up() -> None:
    before, window = torch.full((96, 96), -5.0), [Window(0, 0, 384, 384)]
    empty = torch.full((384, 384), -1.0)
    assert not (low_res_with(before, empty, window) > 0).any()
    faint = empty.clone()
    faint[100:200, 100:200] = 1.0
    found = low_res_with(before, faint, window) > 0
    assert found.sum() == 25 * 25  # its hundred pixels a side, at four a cell
    assert found[25:50, 25:50].all()


def test_the_last_window_is_around_what_was_seen_in_the_one_before(model: Any) -> None:
    with torch.no_grad():
        seen = look_again(model, toy_clip(1)[0], found(), None, **LOOKS)
    first, second = seen.windows[0]
    assert first == window_around((40, 30, 52, 40), SIZE, 2.0)
    assert second != first


def test_the_picture_may_be_overwritten_after_it_is_set(model: Any) -> None:
    """As with a camera, which fills the same buffer again."""
    buffer = toy_clip(1)[0].copy()
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(buffer)
    before = predictor.predict(box=SMALL_BOX, return_logits=True)[0]
    buffer[:] = 0
    assert np.array_equal(before, predictor.predict(box=SMALL_BOX, return_logits=True)[0])


def test_clicks_far_away_say_nothing_about_the_window(model: Any) -> None:
    """A click outside the window is as if it had not been made there; one inside counts."""
    picture = toy_clip(1)[0]

    def answer(points: list[list[float]], labels: list[int]) -> torch.Tensor:
        prompt = PointPrompt(torch.tensor([points]) * SCALE, torch.tensor([labels]).int())
        return look_again(model, picture, found(), prompt, **LOOKS).logits

    with torch.no_grad():
        far = answer([[46.0, 35.0], [90.0, 66.0]], [1, 0])
        padded = answer([[46.0, 35.0], [0.0, 0.0]], [1, -1])
        near = answer([[46.0, 35.0], [42.0, 31.0]], [1, 0])
    assert torch.equal(far, padded)
    assert not torch.equal(near, padded)


def test_where_nothing_was_found_or_asked_for_there_is_no_second_look(model: Any) -> None:
    nothing = torch.full((1, *SIZE), -5.0)
    elsewhere = PointPrompt(torch.tensor([[[5.0, 5.0]]]), torch.tensor([[0]]).int())
    for points in (None, elsewhere):
        seen = look_again(model, toy_clip(1)[0], nothing, points, **LOOKS)
        assert torch.equal(seen.logits, nothing)
        assert seen.windows == [[]]


def test_the_grid_of_the_mask_generator_looks_once(model: Any) -> None:
    def found() -> list[dict[str, Any]]:
        generator = SAM2AutomaticMaskGenerator(
            model, points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0
        )
        return generator.generate(toy_clip(1)[0])

    twice = found()
    model.zoom_in = None
    once = found()
    assert len(once) == len(twice) > 0
    for a, b in zip(once, twice, strict=True):
        assert np.array_equal(a["segmentation"], b["segmentation"])


def test_a_model_that_zooms_in_later_asks_for_the_picture_again(model: Any) -> None:
    model.zoom_in = None
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(toy_clip(1)[0])
    predictor.predict(box=SMALL_BOX)
    model.zoom_in = 2.0
    with pytest.raises(RuntimeError, match="zooms in since: set the image again"):
        predictor.predict(box=SMALL_BOX)
    predictor.set_image(toy_clip(1)[0])
    predictor.predict(box=SMALL_BOX)


def test_a_box_that_is_its_own_window_keeps_its_corners(model: Any) -> None:
    """Windows are whole pixels, and a corner half a pixel outside is still a corner."""
    picture, box = toy_clip(1)[0], torch.tensor([[[30.4, 20.4], [60.4, 50.4]]])
    nothing, ends = torch.full((1, *SIZE), -5.0), torch.tensor([[2, 3]]).int()

    def answer(corners: torch.Tensor) -> torch.Tensor:
        prompt = PointPrompt(corners * SCALE, ends)
        seen = look_again(model, picture, nothing, prompt, **LOOKS | {"ratio": 1.0})
        assert seen.windows == [[Window(30, 20, 60, 50)] * NUM_WINDOWS]
        return seen.logits

    with torch.no_grad():
        inside = torch.tensor([[[30.4, 20.4], [60.0, 50.0]]])
        assert torch.equal(answer(box), answer(inside))


# -------------------------------------------------------------------- boxes


def filled(
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    points: list[list[float]],
    labels: list[int],
    first: torch.Tensor | None = None,
) -> torch.Tensor:
    """Where something is seen, [H, W], by a model that takes all of its window for the object."""
    grid = 4 * model.grid_size
    everything = torch.full((1, 1, grid, grid), 9.0)
    monkeypatch.setattr(zoom_in, "_ask", lambda *_: everything)
    prompt = PointPrompt(torch.tensor([points]) * SCALE, torch.tensor([labels]).int())
    first = found() if first is None else first
    return look_again(model, toy_clip(1)[0], first, prompt, **LOOKS).logits[0] > 0


def test_an_object_keeps_to_its_box(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = filled(model, monkeypatch, [[40.0, 30.0], [52.0, 40.0]], [2, 3])
    assert seen[31:39, 41:51].all()
    rows, columns = seen.any(dim=1).nonzero()[:, 0], seen.any(dim=0).nonzero()[:, 0]
    assert 29 <= rows[0] <= rows[-1] <= 40
    assert 39 <= columns[0] <= columns[-1] <= 52


def spilled() -> torch.Tensor:
    """Logits [1, H, W] of a first look that also found something far from what was asked for."""
    logits = found()
    logits[0, 4:12, 84:94] = 5.0
    return logits


def test_what_the_first_look_found_far_from_its_box_goes_too(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = [[40.0, 30.0], [52.0, 40.0]]
    far = Window(84, 4, 94, 12)
    assert far.cut(filled(model, monkeypatch, [[46.0, 35.0]], [1], spilled())).all()
    asked = [*box, [88.0, 8.0]], [2, 3, 1]  # with a click on it
    assert far.cut(filled(model, monkeypatch, *asked, spilled())).all()
    assert not filled(model, monkeypatch, box, [2, 3], spilled())[:, 60:].any()


@pytest.mark.parametrize(
    ("box", "is_left"),
    [([[40.0, 30.0], [52.0, 40.0]], (True, False)), ([[4.0, 50.0], [16.0, 60.0]], (True, True))],
)
def test_where_windows_show_nothing_the_first_look_stays_as_far_as_it_is_in_the_box(
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    box: list[list[float]],
    is_left: tuple[bool, bool],
) -> None:
    """If nothing of it is, all stays: there is no better answer."""
    monkeypatch.setattr(zoom_in, "_ask", lambda *_: torch.full((1, 1, 4, 4), -9.0))
    prompt = PointPrompt(torch.tensor([box]) * SCALE, torch.tensor([[2, 3]]))
    seen = look_again(model, toy_clip(1)[0], spilled(), prompt, **LOOKS).logits[0] > 0
    assert (bool(seen[31:39, 41:51].all()), bool(seen[4:12, 84:94].any())) == is_left


def test_what_is_found_in_a_box_takes_away_what_was_found_beside_it(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = filled(model, monkeypatch, [[4.0, 50.0], [16.0, 60.0]], [2, 3], spilled())
    assert seen[51:59, 5:15].all()
    assert not seen[:, 20:].any()


def test_the_answer_that_is_fed_back_keeps_to_the_box_too() -> None:
    first = torch.nn.functional.interpolate(spilled()[None], (18, 24), mode="area")[0, 0]
    assert (first[1:3, 21:23] > 0).all()
    cells = low_res_with(first, found()[0], [Window(36, 26, 60, 46)])
    assert (cells[8:9, 11:12] > 0).all()
    assert not (cells[:, 20:] > 0).any()
    assert torch.equal(cells[12:, :8], first[12:, :8])


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([[46.0, 35.0]], [1]),  # no box
        ([[40.0, 30.0], [52.0, 40.0], [56.0, 35.0]], [2, 3, 1]),  # a click beside the box
    ],
)
def test_without_a_box_or_with_a_click_outside_of_it_the_window_is_free(
    model: Any, monkeypatch: pytest.MonkeyPatch, points: list[list[float]], labels: list[int]
) -> None:
    seen = filled(model, monkeypatch, points, labels)
    assert seen[30:40, 40:54].all()
    assert seen.any(dim=0).sum() > 20


@pytest.mark.parametrize("side", [1.0, 0.1])
def test_a_tiny_box_still_holds_something(
    model: Any, monkeypatch: pytest.MonkeyPatch, side: float
) -> None:
    """Of less than a pixel, it leaves the pixels that it touches."""
    seen = filled(model, monkeypatch, [[45.0, 35.0], [45.0 + side, 35.0 + side]], [2, 3])
    assert seen[35, 45]
    assert seen.sum() <= 9


RED_THING = Window(36, 24, 60, 48)
RED_BOX = [[36.0, 24.0], [60.0, 48.0]]


def red_thing() -> np.ndarray:
    """A picture of a red square on green, of the size of the toy clips."""
    picture = np.full((*SIZE, 3), (20, 160, 40), np.uint8)
    RED_THING.crop(picture)[:] = (200, 30, 30)
    return picture


def answer_to(
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    iou: float,
    points: list[list[float]] | None = None,
    labels: list[int] | None = None,
    threshold: float = 0.0,
) -> torch.Tensor:
    """A mask [H, W] by a model that sees, in the window of the red thing, but its upper half."""
    grid = 4 * model.grid_size
    half = torch.full((1, 1, grid, grid), threshold - 1.0)
    half[..., grid // 4 : grid // 2, grid // 4 : 3 * grid // 4] = threshold + 1.0
    monkeypatch.setattr(zoom_in, "_ask", lambda *_: half)
    prompt = PointPrompt(
        torch.tensor([points or RED_BOX]) * SCALE, torch.tensor([labels or [2, 3]]).int()
    )
    first = torch.full((1, *SIZE), threshold - 1.0)
    RED_THING.cut(first)[:] = threshold + 1.0
    looks = LOOKS | {"iou": torch.tensor([iou]), "threshold": threshold}
    return look_again(model, red_thing(), first, prompt, **looks).logits[0] > threshold


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_an_unsure_answer_to_a_box_goes_by_colours_too(
    model: Any, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    truth = np.zeros(SIZE, bool)
    truth[24:48, 36:60] = True
    ious = [
        jaccard(answer_to(model, monkeypatch, iou=iou, threshold=threshold).numpy(), truth)
        for iou in (0.9, 0.59, 0.5, 0.2)
    ]
    assert ious[0] == ious[1] < 0.6  # a little unsure, they count but little
    assert ious[2] > 0.9
    assert ious[3] > 0.9


def test_both_predictors_tell_how_sure_the_first_look_was(
    predictor: SAM2ImagePredictor, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def listening(*args: Any, iou: torch.Tensor, **kwargs: Any) -> Any:
        told.append(iou)
        return look_again(*args, iou=iou, **kwargs)

    for place in (sam2_image_predictor, tracker):
        monkeypatch.setattr(place, "look_again", listening)
    for multimask in (False, True):
        shown = predictor.predict(box=[SMALL_BOX, WHOLE_BOX], multimask_output=multimask)[1]
        np.testing.assert_array_equal(told.pop().numpy(), shown.max(axis=1))
    state = model.init_state(toy_clip(1))
    answer = model.add_new_points_or_box(state, 0, 1, box=SMALL_BOX)
    assert told.pop().tolist() == [answer.scores[1].iou]


def test_a_large_picture_shows_its_colours_in_some_of_its_pixels(model: Any) -> None:
    large = np.zeros((2 * SIDE + 7, 3 * SIDE, 3), np.uint8)
    large[:, SIDE:] = 255
    pixels = zoom_in._pixels(large, model)
    assert pixels.shape == (3, SIDE + 4, 3 * SIDE // 2)
    torch.testing.assert_close(pixels.mean().item(), 2 / 3, rtol=0, atol=0.01)
    assert zoom_in._pixels(large[: SIDE + 3], model).shape == (3, SIDE + 3, 3 * SIDE)


def test_clicks_and_boxes_that_are_too_small_are_answered_by_the_model_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click may be meant for a part; what is outside of a box may then be object as well."""
    for asked in (([[48.0, 36.0]], [1]), ([*RED_BOX, [80.0, 60.0]], [2, 3, 1])):
        points, labels = asked
        sure, unsure = (
            answer_to(model, monkeypatch, iou=iou, points=points, labels=labels)
            for iou in (0.9, 0.2)
        )
        assert torch.equal(sure, unsure)


# ------------------------------------------------------------------- videos


def test_a_click_in_a_video_is_looked_at_again_and_its_mask_is_remembered() -> None:
    tracked = {}
    for ratio in (None, 2.0):
        model = toy_predictor(zoom_in=ratio)
        state = model.init_state(toy_clip(3))
        prompted = model.add_new_points_or_box(state, 0, 1, box=SMALL_BOX)
        later = [frame.masks.clone() for frame in model.propagate_in_video(state)][1:]
        tracked[ratio] = (prompted.masks, later)
    assert not torch.equal(tracked[None][0], tracked[2.0][0])
    assert not torch.equal(tracked[None][1][0], tracked[2.0][1][0])


def test_a_stream_looks_at_its_frames_as_a_file_does() -> None:
    clip = toy_clip(4)
    model = toy_predictor(zoom_in=2.0)
    state = model.init_state(clip)
    model.add_new_points_or_box(state, 0, 1, [disc_centre()], [1])
    wanted = [frame.masks for frame in model.propagate_in_video(state)]
    stream = model.open_stream(num_frames=4)
    buffer = np.empty_like(clip[0])
    for i, frame in enumerate(clip):
        buffer[:] = frame
        got = stream.step(buffer)
        if i == 0:
            buffer[:] = 0  # the camera is at the next frame
            got = stream.add_new_points_or_box(1, [disc_centre()], [1])
        torch.testing.assert_close(got.masks, wanted[i], rtol=0, atol=1e-4)


def test_a_stream_that_begins_anew_still_looks_again() -> None:
    model = toy_predictor(zoom_in=2.0)
    stream = model.open_stream()
    answers = []
    for _ in range(2):
        stream.step(toy_clip(1)[0])
        answers.append(stream.add_new_points_or_box(1, box=SMALL_BOX).masks)
        stream.close()
    assert torch.equal(*answers)


def test_a_frame_that_has_passed_is_looked_at_once() -> None:
    """Its features are still there, its picture is not: a correction goes on without it."""
    answers = []
    for ratio in (None, 2.0):
        model = toy_predictor(zoom_in=ratio)
        stream = model.open_stream()
        for frame in toy_clip(5):
            stream.step(frame)
            if stream.frame_idx == 0:
                stream.add_new_mask(1, np.ones(SIZE, bool))
        answers.append(model.add_new_points_or_box(stream.state, 2, 2, box=SMALL_BOX).masks[1])
    assert torch.equal(*answers)


def test_a_frame_of_a_file_that_cannot_be_read_is_told() -> None:
    class Broken(list[np.ndarray]):
        pass

    model = toy_predictor(zoom_in=2.0)
    state = model.init_state(toy_clip(3))
    state.pictures = Broken()
    with pytest.raises(IndexError):
        model.add_new_points_or_box(state, 0, 1, box=SMALL_BOX)
    assert state.obj_ids == []


def test_a_ball_far_away_in_a_large_video_is_seen_better_and_not_lost() -> None:
    """16 pixels across in 720p: a cell of the memory is 13 x 7."""
    rng = np.random.default_rng(5)
    ground = np.kron(rng.integers(60, 120, (45, 80, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    y, x = np.mgrid[:720, :1280]
    balls = [np.hypot(x - 600 - 4 * i, y - 330) < 8 for i in range(3)]
    clip = np.stack([np.where(ball[..., None], (240, 220, 40), ground) for ball in balls])
    predictor = load()
    ious = {}
    for ratio in (None, 2.0):
        predictor.zoom_in = ratio
        state = predictor.init_state(clip.astype(np.uint8))
        predictor.add_new_points_or_box(state, 0, 1, box=(592, 322, 608, 338))
        masks = [frame.masks[0, 0] > 0 for frame in predictor.propagate_in_video(state)]
        ious[ratio] = [jaccard(m.numpy(), ball) for m, ball in zip(masks, balls, strict=True)]
    assert ious[2.0][0] > ious[None][0] + 0.05
    assert min(ious[2.0]) > 0
    assert sum(ious[2.0]) > sum(ious[None])


def test_an_absent_object_is_not_looked_for() -> None:
    model = toy_predictor(zoom_in=2.0, object_bias=-8.0)
    state = model.init_state(toy_clip(2))
    masks = model.add_new_points_or_box(state, 0, 1, box=SMALL_BOX).masks
    assert (masks == masks.max()).all()
    assert masks.max() < -100


# ----------------------------------------------------------------- switches


def test_published_models_look_once() -> None:
    assert toy_predictor().zoom_in is None


@pytest.mark.parametrize("wrong", [0.5, float("nan"), -2, float("inf")])
def test_a_window_smaller_than_its_object_is_refused(model: Any, wrong: float) -> None:
    with pytest.raises(ValueError, match=r"zoom_in must be (1 or more|finite)"):
        model.zoom_in = wrong
    with pytest.raises(ValueError, match=r"config key model.zoom_in must be (1 or more|finite)"):
        toy_predictor(zoom_in=float(wrong))
    assert model.zoom_in == 2.0


def test_the_bundled_model_draws_a_small_thing_better_at_a_second_look() -> None:
    """A coin of 24 pixels in a picture of 640 x 480: three quarters of it at one look."""
    rng = np.random.default_rng(3)
    picture = np.full((480, 640, 3), (70, 110, 60), np.uint8)
    picture += rng.integers(0, 20, picture.shape, np.uint8)
    y, x = np.mgrid[:480, :640]
    truth = np.hypot(x - 420, y - 180) < 12
    picture[truth] = (210, 180, 40)
    predictor = SAM2ImagePredictor(load())
    predictor.set_image(picture)
    ious = {}
    for ratio in (None, 2.0):
        predictor.model.zoom_in = ratio
        masks, iou, _ = predictor.predict([[420, 180]], [1])
        ious[ratio] = jaccard(masks[iou.argmax()], truth)
    assert ious[2.0] > 0.85
    assert ious[2.0] > ious[None] + 0.05
