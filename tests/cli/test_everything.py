from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sam2_hq.cli.everything import paint_ids
from sam2_hq.cli.files import write_png
from sam2_hq.data.masks import read_id_map
from sam2_hq.ops.rle import mask_to_rle_pytorch, rle_to_mask

# Random weights rate their masks low and duplicate them: keep all.
GREEDY = (
    "--points-per-side", "4", "--pred-iou-thresh", "0", "--stability-score-thresh", "0",
    "--box-nms-thresh", "1", "--override", "++model.image_size=128",
)  # fmt: skip


def test_it_writes_masks_records_and_an_overlay(run, picture: Path, out: Path):
    result = run("everything", picture, "-o", out, *GREEDY)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["masks.json", "masks.png", "overlay.png"]
    records = json.loads((out / "masks.json").read_text())["masks"]
    assert records
    for record in records:
        assert rle_to_mask(record["segmentation"]).sum() == record["area"]
    covered = np.any([rle_to_mask(record["segmentation"]) for record in records], axis=0)
    np.testing.assert_array_equal(read_id_map(out / "masks.png") > 0, covered)


def test_a_picture_without_masks_gives_an_empty_list(run, picture: Path, out: Path):
    result = run("everything", picture, "-o", out, *GREEDY, "--pred-iou-thresh", "2")
    assert result.exit_code == 0, result.stderr
    assert json.loads((out / "masks.json").read_text())["masks"] == []
    assert "lower --pred-iou-thresh or --stability-score-thresh" in result.stderr
    assert not read_id_map(out / "masks.png").any()


def test_a_folder_with_files_is_not_written_into_unless_told(run, picture: Path, out: Path):
    out.mkdir()
    (out / "note.txt").write_text("mine")
    refused = run("everything", picture, "-o", out, *GREEDY)
    assert refused.exit_code == 2
    assert [path.name for path in out.iterdir()] == ["note.txt"]
    assert run("everything", picture, "-o", out, *GREEDY, "--overwrite").exit_code == 0
    assert (out / "note.txt").read_text() == "mine"


@given(arrays(bool, st.tuples(st.integers(1, 6), st.just(5), st.just(7))))
def test_the_smallest_mask_lies_on_top(masks: np.ndarray):
    lengths = mask_to_rle_pytorch(torch.from_numpy(masks))
    areas = masks.sum(axis=(1, 2))
    records = [
        {"segmentation": rle, "area": int(area)} for rle, area in zip(lengths, areas, strict=True)
    ]
    ids = paint_ids(records, (5, 7))
    for y, x in np.ndindex(5, 7):
        covering = np.flatnonzero(masks[:, y, x])
        if len(covering):
            assert areas[ids[y, x] - 1] == areas[covering].min()
        else:
            assert ids[y, x] == 0


def test_more_masks_than_a_palette_has_colours_are_written_in_16_bits(tmp_path: Path):
    ids = np.arange(300, dtype=np.uint16).reshape(15, 20)
    write_png(tmp_path / "masks.png", ids)
    np.testing.assert_array_equal(read_id_map(tmp_path / "masks.png"), ids)
    with Image.open(tmp_path / "masks.png") as image:
        assert image.mode.startswith("I")
