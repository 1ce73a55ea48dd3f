"""Prompts are checked at the door: whatever fits comes through unchanged, the rest is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sam2_hq import prompts
from sam2_hq.structures import PADDING

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)

xs = st.floats(0, WIDTH, width=32)
ys = st.floats(0, HEIGHT, width=32)
inside = st.tuples(xs, ys)
known_labels = st.sampled_from(prompts.LABELS)
FORMS = (np.asarray, torch.tensor, list)  # what people have


@st.composite
def clicks(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """Points and labels, for one prompt or for several, as nested lists."""
    count, batch = draw(st.integers(1, 5)), draw(st.sampled_from([None, 1, 3]))
    rows = [
        (
            draw(st.lists(inside, min_size=count, max_size=count)),
            draw(st.lists(known_labels, min_size=count, max_size=count)),
        )
        for _ in range(batch or 1)
    ]
    points, labels = [list(map(list, p)) for p, _ in rows], [k for _, k in rows]
    return (points[0], labels[0]) if batch is None else (points, labels)


@settings(max_examples=60)
@given(prompt=clicks(), form=st.sampled_from(FORMS))
def test_clicks_inside_the_picture_come_through_unchanged(prompt: Any, form: Any) -> None:
    points, labels = prompt
    coords, kinds = prompts.points_and_labels(form(points), form(labels), SIZE)
    assert coords.dtype == torch.float32
    assert kinds.dtype == torch.int32
    want = np.asarray(points, np.float32)
    assert np.array_equal(coords, want if want.ndim == 3 else want[None])
    assert np.array_equal(kinds, np.atleast_2d(labels))


@settings(max_examples=60)
@given(
    point=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    label=st.sampled_from([0, 1, 2, 3]),
)
def test_a_click_is_taken_if_and_only_if_it_lies_inside(
    point: tuple[float, float], label: int
) -> None:
    x, y = (float(np.float32(v)) for v in point)
    if 0 <= x <= WIDTH and 0 <= y <= HEIGHT:
        prompts.points_and_labels([point], [label], SIZE)
        return
    with pytest.raises(ValueError, match="points must lie inside the picture, 0 <= x <= 64"):
        prompts.points_and_labels([point], [label], SIZE)


@settings(max_examples=30)
@given(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2))
def test_the_place_of_a_padding_point_does_not_matter(point: tuple[float, float]) -> None:
    _, kinds = prompts.points_and_labels([point], [PADDING], SIZE)
    assert kinds.tolist() == [[-1]]


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([[1, 2]], None, "points and labels must be given together, labels is missing"),
        (None, [1], "points and labels must be given together, points is missing"),
        ([1, 2], [1], r"points must be \[P, 2\] or \[B, P, 2\], got \[2\]"),
        ([[1, 2, 3]], [1], r"points must be \[P, 2\] or \[B, P, 2\], got \[1, 3\]"),
        ([], [], r"points must be \[P, 2\] or \[B, P, 2\], got \[0\]"),
        (np.zeros((0, 2, 2)), np.zeros((0, 2)), r"points must be .* got \[0, 2, 2\]"),
        ([[1, 2]], [1, 0], r"labels must be \[1\] to fit the points, got \[2\]"),
        ([[[1, 2]]] * 2, [1, 1], r"labels must be \[2, 1\] to fit the points, got \[2\]"),
        ([[1, 2]], [4], r"labels must be among \(-1, 0, 1, 2, 3\), got 4"),
        ([[1, 2]], [0.5], "labels must be among .* got 0.5"),
        ([[1, float("nan")]], [1], "points must be finite numbers, got nan"),
        ([[1, 2]], [float("inf")], "labels must be finite numbers, got inf"),
        ([["a", "b"]], [1], r"points must be numbers, got \[\['a', 'b'\]\]"),
        ([[1, 2], [3]], [1, 1], "points must be numbers"),
        ([[10**400, 1]], [1], "points must be numbers"),
        (np.array([[1 + 2j, 1]]), [1], "points must be numbers"),
        (torch.tensor([[1 + 2j, 1]]), [1], "points must be numbers"),
    ],
)
def test_clicks_that_do_not_fit_are_named(points: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.points_and_labels(points, labels, SIZE)


@st.composite
def valid_boxes(draw: st.DrawFn) -> list[list[float]]:
    whole_x, whole_y = st.integers(0, WIDTH), st.integers(0, HEIGHT)
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        x0, x1 = sorted(draw(st.lists(whole_x, min_size=2, max_size=2, unique=True)))
        y0, y1 = sorted(draw(st.lists(whole_y, min_size=2, max_size=2, unique=True)))
        boxes.append([x0, y0, x1, y1])
    return boxes


@settings(max_examples=40)
@given(boxes=valid_boxes(), form=st.sampled_from(FORMS))
def test_boxes_become_their_corners(boxes: list[list[float]], form: Any) -> None:
    corners = prompts.boxes(form(boxes), SIZE)
    assert np.array_equal(corners, np.asarray(boxes, np.float32).reshape(-1, 2, 2))
    assert torch.equal(prompts.boxes(form(boxes[0]), SIZE), corners[:1])


@settings(max_examples=40)
@given(valid_boxes(), st.sampled_from(["x", "y"]), st.booleans())
def test_inverted_and_empty_boxes_are_refused(
    boxes: list[list[float]], axis: str, is_empty: bool
) -> None:
    x0, y0, x1, y1 = boxes[-1]
    if axis == "x":
        x0, x1 = x1, x1 if is_empty else x0
    else:
        y0, y1 = y1, y1 if is_empty else y0
    with pytest.raises(ValueError, match="box must be x0, y0, x1, y1 with x0 < x1 and y0 < y1"):
        prompts.boxes([*boxes[:-1], [x0, y0, x1, y1]], SIZE)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([1, 2, 3], r"box must be \[4\] or \[B, 4\], got \[3\]"),
        (np.zeros((0, 4)), r"box must be \[4\] or \[B, 4\], got \[0, 4\]"),
        ([[[1, 2], [3, 4]]], r"box must be \[4\] or \[B, 4\], got \[1, 2, 2\]"),
        ([1, 2, WIDTH + 1, 4], "box must lie inside the picture, .* got x=65, y=4"),
        ([1, 2, 3, float("nan")], "box must be finite numbers, got nan"),
        ("box", "box must be numbers, got 'box'"),
    ],
)
def test_boxes_that_do_not_fit_are_named(box: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.boxes(box, SIZE)


def test_corners_are_labelled_as_such() -> None:
    labels = prompts.corner_labels(3, torch.device("cpu"))
    assert labels.tolist() == [[2, 3]] * 3
    assert labels.dtype == torch.int32


MASK_FORMS = ["bool", "uint8", "uint8 of 255", "float32", "float64 of 255", "int64", "tensor"]
MASK_FORMS += ["list", "uint16 of 255", "uint32", "uint64", ">u2 of 255", ">f4", "tensor of uint16"]


@settings(max_examples=100)
@given(
    painted=arrays.arrays(bool, (5, 7)),
    form=st.sampled_from(MASK_FORMS),
)
def test_a_mask_means_the_same_in_every_form(painted: np.ndarray, form: str) -> None:
    if form == "tensor":
        mask: Any = torch.from_numpy(painted).float()
    elif form == "tensor of uint16":
        mask = torch.from_numpy(painted).to(torch.uint16)
    elif form == "list":
        mask = painted.tolist()
    else:
        dtype, _, of_255 = form.partition(" of ")
        mask = painted.astype(dtype)
        mask = mask * 255 if of_255 else mask
        mask = mask.astype(dtype)
    got = prompts.painted_mask(mask, (5, 7))
    assert got.dtype == torch.bool
    assert np.array_equal(got, painted)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 8)), r"mask must be \[5, 7\] \(height, width\), got \[5, 8\]"),
        (np.zeros((1, 5, 7)), r"mask must be \[5, 7\] \(height, width\), got \[1, 5, 7\]"),
        (np.full((5, 7), 0.5), "mask must be bool, 0 and 1, or 0 and 255, got torch.float64: 0.5"),
        (np.full((5, 7), -1), "mask must be bool, 0 and 1, or 0 and 255"),
        (np.full((5, 7), np.nan), "mask must be bool, 0 and 1, or 0 and 255"),
        (np.arange(35).reshape(5, 7) % 3, "got torch.int64: 0, 1, 2"),
        (np.full((5, 7), 65535, np.uint16), "got torch.uint16: 65535"),
        (np.full((5, 7), 7, ">i4"), "got torch.int32: 7"),
        (np.ones((5, 7), complex), "got torch.complex128"),
    ],
)
def test_masks_that_are_none_are_named(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts.painted_mask(mask, (5, 7))


@pytest.mark.parametrize("thing", [None, "mask.png", {"mask": 1}])
def test_what_is_no_array_is_no_mask(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"mask must be an array, got {type(thing).__name__}"):
        prompts.painted_mask(thing, (5, 7))


def test_logits_of_an_earlier_call_get_a_prompt_axis() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    got = prompts.earlier_logits(logits, 8)
    assert got.shape == (1, 1, 8, 8)
    assert np.array_equal(prompts.earlier_logits(got, 8), logits[None])


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (1, 16, 16), (2, 3, 8, 8), (0, 1, 8, 8)])
def test_other_shapes_are_no_earlier_logits(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mask_input must be \[1, 8, 8\] or \[N, 1, 8, 8\]"):
        prompts.earlier_logits(np.zeros(shape), 8)


def test_earlier_logits_are_finite() -> None:
    with pytest.raises(ValueError, match="mask_input must be finite numbers, got nan"):
        prompts.earlier_logits(np.full((1, 8, 8), np.nan), 8)
