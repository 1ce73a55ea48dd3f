from __future__ import annotations

import gc
import io
import os
import traceback
import tracemalloc
import weakref
from collections import deque

import av
import numpy as np
import pytest
import torch
from PIL import Image, features

from sam2_hq.data.frames import natural_key, open_frames, resize_for_video_model

from .conftest import moving_square

SIZE = (12, 18)


def save(path, number=0, size=SIZE, **options):
    Image.fromarray(moving_square(number, *size)).save(path, **options)
    return path


def mean_error(frame, number):
    return np.abs(frame.astype(int) - moving_square(number, *frame.shape[:2])).mean()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "PNG", "webp", "jpg", "JPEG"])
def test_a_folder_of_any_image_format_is_a_video(tmp_path, suffix):
    for number in range(3):
        save(tmp_path / f"shot {number}.{suffix}", number, **{"quality": 100, "lossless": True})
    with open_frames(str(tmp_path)) as frames:
        assert (len(frames), frames.size, frames.fps) == (3, SIZE, None)
        assert frames.names == ["shot 0", "shot 1", "shot 2"]
        for number in (2, 0, 1):
            assert frames[number].dtype == np.uint8
            assert mean_error(frames[number], number) < (12 if suffix[0] in "jJ" else 1e-9)


def test_frames_come_in_natural_order(tmp_path):
    for name in ["frame10", "frame2", "Frame1", "frame2b"]:
        save(tmp_path / f"{name}.png")
    assert open_frames(tmp_path).names == ["Frame1", "frame2", "frame2b", "frame10"]


def test_plain_numbers_are_ordered_by_value_even_below_zero():
    names = ["10", "-2", "007", "3", "-10"]
    assert sorted(names, key=natural_key) == ["-10", "-2", "3", "007", "10"]


def test_other_files_are_left_out_with_one_warning(tmp_path, caplog):
    save(tmp_path / "0.png")
    for name in ["notes.txt", "Thumbs.db", ".DS_Store", "._0.png"]:
        (tmp_path / name).write_text("x")
    assert len(open_frames(tmp_path)) == 1
    assert len(caplog.records) == 1
    assert "2 entries" in caplog.text
    assert "Thumbs.db" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no image at all", "half"])
def test_a_damaged_file_in_a_folder_is_named(tmp_path, content):
    save(tmp_path / "0.jpg", size=(64, 64))
    whole = save(tmp_path / "1.jpg", size=(64, 64)).read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=r"1\.jpg"), open_frames(tmp_path) as frames:
        frames[1]


def test_a_file_too_large_to_open_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "huge.gif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(ValueError, match=r"huge\.gif' cannot be decoded: .*decompression bomb"):
        open_frames(path)


@pytest.mark.parametrize("kind", ["folder", "list", "images", "arrays"])
def test_a_frame_of_another_size_is_named_with_both_sizes(tmp_path, kind):
    paths = [save(tmp_path / "a.png"), save(tmp_path / "b.png", size=(20, 10))]
    images = [Image.open(path) for path in paths]
    source = {
        "folder": tmp_path,
        "list": paths,
        "images": images,
        "arrays": [np.asarray(image) for image in images],
    }[kind]
    with pytest.raises(ValueError, match=r"(b\.png|frame 1).*20x10 .*(a\.png|frame 0).*12x18"):
        open_frames(source)


def test_two_images_of_one_name_are_refused(tmp_path):
    save(tmp_path / "0.png")
    save(tmp_path / "0.jpg")
    with pytest.raises(ValueError, match=r"0\.jpg and 0\.png"):
        open_frames(tmp_path)


def test_content_decides_and_not_the_suffix(tmp_path):
    save(tmp_path / "0.jpg", 5, format="PNG")
    np.testing.assert_array_equal(open_frames(tmp_path)[0], moving_square(5, *SIZE))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :8] = 255  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / f"0.{suffix}", exif=exif)
    frames = open_frames(tmp_path)
    assert frames.size == ((16, 32) if orientation < 5 else (32, 16))
    frame = frames[0][:, :, 0]
    corners = [frame[2, 2], frame[2, -3], frame[-3, -3], frame[-3, 2]]  # clockwise
    assert int(np.argmax(corners)) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3}[orientation]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    color = Image.new("RGB", SIZE[::-1], (255, 255, 255))
    image = color.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(0)  # what lies under alpha counts
    image.save(tmp_path / ("0.tif" if mode == "CMYK" else "0.png"))
    frame = open_frames(tmp_path)[0]
    assert frame.shape == (*SIZE, 3)
    assert (frame == 255).all()


def test_a_transparent_palette_keeps_its_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "0.png", transparency=b"\x00\x40")
    assert (open_frames(tmp_path)[0] == (10, 200, 30)).all()


def save_16_bit(path, values, codec, pixels):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream(codec, rate=1)
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], pixels
        frame = av.VideoFrame.from_ndarray(values, format=pixels)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(
    ("suffix", "codec", "order"), [("png", "png", "be"), ("tif", "tiff", "le")]
)
def test_16_bits_keep_their_high_byte(tmp_path, suffix, codec, order, gray):
    values = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85
    values = values[:, :, 0] if gray else values
    pixels = ("gray16" if gray else "rgb48") + order
    save_16_bit(tmp_path / f"0.{suffix}", values, codec, pixels)
    expected = values[:, :, None].repeat(3, axis=2) if gray else values
    np.testing.assert_array_equal(open_frames(tmp_path)[0], expected >> 8)


def test_32_bit_pixels_are_refused_by_name(tmp_path):
    Image.fromarray(np.zeros(SIZE, np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match=r"depth\.tif.*32-bit"):
        open_frames(tmp_path)[0]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_animation_is_a_video(tmp_path, suffix, as_bytes):
    path = tmp_path / f"moving.{suffix}"
    shades = [10, 90, 170, 250]
    images = [Image.new("RGB", (18, 12), (shade,) * 3) for shade in shades]
    extra = {} if suffix == "tif" else {"duration": 40}
    images[0].save(path, save_all=True, append_images=images[1:], **extra)
    with open_frames(path.read_bytes() if as_bytes else path) as frames:
        assert (len(frames), frames.size) == (4, (12, 18))
        assert frames.fps == (None if suffix == "tif" else 25)
        for number in (3, 0, 2, 1, 3):
            assert np.abs(frames[number].astype(int) - shades[number]).max() <= 2


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_animated_avif_is_a_video(tmp_path):
    shades = [10, 90, 170, 250]
    images = [Image.new("RGB", (32, 24), (shade,) * 3) for shade in shades]
    images[0].save(tmp_path / "moving.avif", save_all=True, append_images=images[1:])
    with open_frames(tmp_path / "moving.avif") as frames:
        assert len(frames) == 4
        assert np.abs(frames[2].astype(int) - shades[2]).max() <= 8


def test_a_bare_mpeg_stream_is_a_video_and_no_picture(tmp_path):
    with av.open(str(tmp_path / "clip.m2v"), "w", format="mpeg2video") as file:
        stream = file.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5):
            picture = np.full((48, 64, 3), 40 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    with open_frames(tmp_path / "clip.m2v") as frames:
        assert len(frames) == 5
        assert abs(int(frames[3].mean()) - 120) < 8


def test_one_picture_is_a_video_of_one_frame(tmp_path):
    path = save(tmp_path / "photo.png", 3)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes()), [Image.open(path)]):
        frames = open_frames(source)
        assert len(frames) == 1
        np.testing.assert_array_equal(frames[0], moving_square(3, *SIZE))
    assert open_frames(path).names == ["photo"]


def test_a_list_keeps_its_order_and_takes_names_where_they_differ(tmp_path):
    (tmp_path / "sub").mkdir()
    paths = [save(tmp_path / "b.png", 0), save(tmp_path / "a.png", 1)]
    assert open_frames(paths).names == ["b", "a"]
    assert open_frames([*paths, save(tmp_path / "sub" / "a.png")]).names[0] == "00000"
    mixed = open_frames((str(paths[0]), Image.open(paths[1]), moving_square(2, *SIZE)))
    for number in range(3):
        np.testing.assert_array_equal(mixed[number], moving_square(number, *SIZE))


def test_any_sequence_of_pictures_is_read_in_any_order():
    frames = open_frames(deque(moving_square(number, *SIZE) for number in range(12)))
    assert len(frames) == 12
    for number in (11, 0):
        np.testing.assert_array_equal(frames[number], moving_square(number, *SIZE))


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("floating", [False, True])
def test_an_array_is_a_video(library, channels_first, floating):
    expected = np.stack([moving_square(number, *SIZE) for number in range(3)])
    array = expected / np.float32(255) if floating else expected
    array = np.moveaxis(array, 3, 1) if channels_first else array
    frames = open_frames(library(array.copy()))
    assert (len(frames), frames.size) == (3, SIZE)
    np.testing.assert_array_equal(frames[1], expected[1])
    frames[1][:] = 0  # a frame is the reader's own copy
    np.testing.assert_array_equal(frames[1], expected[1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.int32), "uint8"),
        (np.full((2, 4, 4, 3), 1.5), r"0, 1\]"),
        (np.full((2, 4, 4, 3), np.nan), r"0, 1\]"),
        (torch.full((2, 3, 4, 4), -1.0), r"0, 1\]"),
        (np.zeros((4, 4, 3), np.uint8), r"T, H, W, 3"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"T, H, W, 3"),
        (np.zeros((0, 4, 4, 3), np.uint8), "not empty"),
    ],
)
def test_an_array_that_is_no_video_is_refused(array, message):
    with pytest.raises(ValueError, match=f"source .*{message}"):
        open_frames(array)


def test_an_iterator_goes_forward_and_remembers_its_window():
    frames = open_frames((moving_square(n, *SIZE) for n in range(10)), window=3)
    assert frames.num_frames is None
    with pytest.raises(TypeError, match="unknown"):
        len(frames)
    np.testing.assert_array_equal(frames[5], moving_square(5, *SIZE))
    np.testing.assert_array_equal(frames[3], moving_square(3, *SIZE))
    with pytest.raises(ValueError, match=r"frame 2 .* is gone"):
        frames[2]
    with pytest.raises(IndexError):
        frames[10]
    assert len(frames) == 10


def test_an_unreadable_picture_of_an_iterator_keeps_its_number(tmp_path):
    pictures = [moving_square(n, *SIZE) for n in range(6)]
    frames = open_frames(iter([*pictures[:3], tmp_path / "lost.png", *pictures[4:]]), window=3)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lost\.png': no such file"):
            frames[3]
    for number in (4, 2, 5):
        np.testing.assert_array_equal(frames[number], pictures[number])
    assert not frames.has_frame(6)
    assert len(frames) == 6
    with pytest.raises(ValueError, match=r"frame 2 .* is gone"):
        frames[2]


def test_an_iterator_that_fails_is_not_one_that_ends():
    def camera():
        yield moving_square(0, *SIZE)
        raise IndexError("camera lost")

    frames = open_frames(camera())
    with pytest.raises(IndexError, match="camera lost"):
        list(frames)
    with pytest.raises(IndexError, match="camera lost"):
        frames[1]


def test_a_bad_frame_of_an_iterator_is_the_same_error_at_each_read():
    def camera():
        yield moving_square(0, *SIZE)
        raise ValueError("camera lost")

    frames, traces = open_frames(camera()), []
    for _ in range(3):
        with pytest.raises(ValueError, match="camera lost") as told:
            frames[1]
        traces.append(len(traceback.extract_tb(told.value.__traceback__)))
    assert len(set(traces)) == 1


def test_an_iterator_that_was_interrupted_has_not_ended():
    def camera():
        yield from (moving_square(0, *SIZE), moving_square(1, *SIZE))
        raise KeyboardInterrupt
        yield moving_square(2, *SIZE)

    frames = open_frames(camera())
    with pytest.raises(KeyboardInterrupt):
        frames[2]
    with pytest.raises(ValueError, match="frame 2: the iterator was interrupted there"):
        frames.has_frame(2)
    assert frames.num_frames is None


def test_every_kind_can_be_iterated(tmp_path):
    save(tmp_path / "0.png", 0), save(tmp_path / "1.png", 1)
    for source in (tmp_path, iter([moving_square(0, *SIZE), moving_square(1, *SIZE)])):
        for number, frame in enumerate(open_frames(source)):
            np.testing.assert_array_equal(frame, moving_square(number, *SIZE))
        assert number == 1


@pytest.mark.parametrize("index", [-1, 2])
def test_a_frame_outside_is_an_index_error(index):
    with pytest.raises(IndexError, match="outside 0"):
        open_frames(np.zeros((2, 4, 4, 3), np.uint8))[index]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing", ValueError, "no file or folder"),
        ([], ValueError, "empty list"),
        (iter([]), ValueError, "yields no frame"),
        (5, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        ([5], TypeError, "frame 0 must be a path"),
        (["missing.png"], ValueError, "missing.png.*no such file"),
        (io.StringIO("text"), TypeError, "binary"),
    ],
)
def test_what_is_no_video_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        open_frames(source)


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=f"'{tmp_path}' has no image.* 1 other"):
        open_frames(tmp_path)


def test_reading_more_frames_takes_no_more_memory(tmp_path):
    first = save(tmp_path / "0000.jpg", size=(360, 640))
    for number in range(1, 200):
        os.link(first, tmp_path / f"{number:04d}.jpg")
    frames = open_frames(tmp_path)
    tracemalloc.start()
    alive = [weakref.ref(frames[number]) for number in range(200)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gc.collect()
    assert not any(reference() is not None for reference in alive)
    assert peak < 4 * 360 * 640 * 3


def test_resizing_is_the_bicubic_of_pillow():
    frame = moving_square(3, 40, 60)
    expected = Image.fromarray(frame).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_for_video_model(frame, 16), np.asarray(expected))
    with pytest.raises(ValueError, match="side"):
        resize_for_video_model(frame, 0)
    with pytest.raises(ValueError, match="frame must be uint8"):
        resize_for_video_model(frame.astype(float), 16)
