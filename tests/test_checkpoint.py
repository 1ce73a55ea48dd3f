from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sam2_hq.build_sam import build_sam2
from sam2_hq.checkpoint import (
    HQ_TENSORS,
    CheckpointKind,
    convert,
    load_checkpoint,
    read_checkpoint,
    read_metadata,
    recognise,
    save_checkpoint,
)

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor([3])}
TRUNKS = {"t": (96, 12), "s": (96, 16), "b+": (112, 24), "l": (144, 48), "n": (40, 11)}


def skeleton(size: str, *, generation: str = "2.1", hq: bool = False) -> dict[str, torch.Tensor]:
    """Just what tells one kind of checkpoint from another."""
    width, blocks = TRUNKS[size]
    empty = torch.zeros(0)
    keys = [f"image_encoder.trunk.blocks.{i}.norm1.weight" for i in range(blocks)]
    keys += ["no_obj_embed_spatial"] * (generation == "2.1") + [*HQ_TENSORS] * hq
    patch = {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(width, 3, 7, 7)}
    return patch | dict.fromkeys(keys, empty)


@pytest.fixture(scope="module")
def hq_model():
    return build_sam2("sam2.1_hq_hiera_n", device="cpu")


@pytest.fixture(scope="module")
def plain_tensors():
    return build_sam2("sam2.1_hiera_n", device="cpu").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# ---- reading


@pytest.mark.parametrize("content", [TENSORS, {"model": TENSORS}])
def test_a_state_dict_is_read_bare_or_under_model(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    assert same(read_checkpoint(tmp_path / "a.pt"), TENSORS)
    assert same(read_checkpoint(str(tmp_path / "a.pt")), TENSORS)


def test_safetensors_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert same(read_checkpoint(tmp_path / "a.safetensors"), TENSORS)


def test_a_folder_with_one_checkpoint_stands_for_it(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    (tmp_path / "README.md").write_text("about")
    assert same(read_checkpoint(tmp_path), TENSORS)


def test_the_published_file_of_a_hub_folder_goes_before_other_layouts(tmp_path):
    torch.save(TENSORS, tmp_path / "sam2.1_hiera_tiny.pt")
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert same(read_checkpoint(tmp_path), TENSORS)


@pytest.mark.parametrize("names", [(), ("a.pt", "b.pt")])
def test_a_folder_must_hold_exactly_one_checkpoint(tmp_path, names):
    for name in names:
        torch.save(TENSORS, tmp_path / name)
    with pytest.raises(ValueError, match=f"found {', '.join(names) or 'none'}"):
        read_checkpoint(tmp_path)


def test_a_pickle_with_code_is_not_run(tmp_path):
    trap = tmp_path / "trap"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    torch.save({"model": Hostile()}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"model": Hostile()}, protocol=2))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(ValueError, match="not run"):
            read_checkpoint(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "words", "cut"])
def test_a_damaged_file_is_a_value_error(tmp_path, name, damage):
    file = tmp_path / name
    save_checkpoint(TENSORS, file)
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "words": b"no checkpoint", "cut": whole[:-40]}[damage])
    with pytest.raises(ValueError, match=f"checkpoint .*{name} is "):
        read_checkpoint(file)


@pytest.mark.parametrize("seed", range(40))
def test_a_scrambled_file_is_a_value_error_or_still_tensors(tmp_path, seed):
    """Files of the layout before zip, whose reader trusts its input most."""
    file = tmp_path / "a.pt"
    torch.save({"model": TENSORS}, file, _use_new_zipfile_serialization=False)
    content = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(content), 12):
        content[place] = rng.integers(0, 256)
    file.write_bytes(content)
    with suppress(ValueError):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a state dict, got list"),
        ({}, "must hold a state dict"),
        ({"epoch": 3}, "must hold tensors by name, got 'epoch': int"),
        ({3: torch.zeros(1)}, "must hold tensors by name, got 3: Tensor"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        read_checkpoint(tmp_path / "nothing.pt")


def test_a_checkpoint_must_be_a_path():
    with pytest.raises(TypeError, match="checkpoint must be a path, got int"):
        read_checkpoint(3)


# ---- recognising


@pytest.mark.parametrize("size", TRUNKS)
@pytest.mark.parametrize(("generation", "hq"), [("2", False), ("2.1", False), ("2.1", True)])
def test_a_kind_is_told_from_keys_and_shapes(size, generation, hq):
    kind = recognise(skeleton(size, generation=generation, hq=hq))
    assert kind == CheckpointKind(generation, hq, size)


@pytest.mark.parametrize(
    ("kind", "config", "text"),
    [
        (CheckpointKind("2", False, "b+"), "sam2/sam2_hiera_b+", "SAM 2 base+"),
        (CheckpointKind("2.1", False, "t"), "sam2.1/sam2.1_hiera_t", "SAM 2.1 tiny"),
        (CheckpointKind("2.1", True, "l"), "sam2.1/sam2.1_hq_hiera_l", "HQ-SAM 2.1 large"),
    ],
)
def test_a_kind_names_its_config(kind, config, text):
    assert kind.config == f"configs/{config}.yaml"
    assert str(kind) == text


def test_a_built_model_is_recognised(hq_model):
    assert recognise(hq_model.state_dict()) == CheckpointKind("2.1", True, "n")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "image_encoder.patch_embed.proj.weight",
            "looks like Segment Anything or HQ-SAM of the fi",
        ),
        ("vision_encoder.neck.weight", "looks like the layout of the transformers library"),
        ("layer1.weight", "not a SAM 2 checkpoint: it has no image_encoder"),
    ],
)
def test_a_foreign_checkpoint_is_told_what_it_looks_like(key, message):
    with pytest.raises(ValueError, match=message):
        recognise({key: torch.zeros(1)})


def test_an_unknown_size_is_described():
    tensors = {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(7, 3, 7, 7)}
    with pytest.raises(ValueError, match="trunk 7 wide with 0 blocks"):
        recognise(tensors)


# ---- loading


def test_half_precision_is_loaded_into_the_dtype_of_the_model(hq_model):
    own = hq_model.state_dict()
    load_checkpoint(hq_model, {key: value.bfloat16() for key, value in own.items()})
    assert {value.dtype for value in hq_model.state_dict().values()} == {torch.float32}


def test_there_are_13_hq_tensors(hq_model, plain_tensors):
    assert len(HQ_TENSORS) == 13
    assert hq_model.state_dict().keys() - plain_tensors.keys() == HQ_TENSORS


def test_hq_may_start_from_a_plain_checkpoint_when_asked(hq_model, plain_tensors):
    before = {key: hq_model.state_dict()[key].clone() for key in HQ_TENSORS}
    load_checkpoint(hq_model, plain_tensors, allow_missing_hq=True)
    assert same({key: hq_model.state_dict()[key] for key in HQ_TENSORS}, before)
    assert same({key: hq_model.state_dict()[key] for key in plain_tensors}, plain_tensors)


def test_a_plain_checkpoint_in_an_hq_model_is_explained(hq_model, plain_tensors):
    message = (
        r"a checkpoint of SAM 2\.1 nano does not fit a model of HQ-SAM 2\.1 nano, take config "
        r"configs/sam2\.1/sam2\.1_hiera_n\.yaml, or .*allow_missing_hq=True.*13 missing"
    )
    with pytest.raises(ValueError, match=message):
        load_checkpoint(hq_model, plain_tensors)


def test_an_hq_checkpoint_in_a_plain_model_is_explained(hq_model):
    plain = build_sam2("sam2.1_hiera_n", device="cpu")
    message = r"HQ-SAM 2\.1 nano does not fit a model of SAM 2\.1 nano, .*0 missing; 13 unexpected"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(plain, hq_model.state_dict(), allow_missing_hq=True)


def test_only_all_13_hq_tensors_may_be_missing(hq_model):
    tensors = hq_model.state_dict()
    tensors.pop("sam_mask_decoder.hf_token.weight")
    with pytest.raises(ValueError, match=r"1 missing \(sam_mask_decoder\.hf_token\.weight\)"):
        load_checkpoint(hq_model, tensors, allow_missing_hq=True)


def test_every_mismatch_is_listed_and_the_model_stays_as_it_was():
    model = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    given = {"weight": torch.zeros(3, 2), **{f"extra{i}": torch.zeros(1) for i in range(5)}}
    message = (
        r"1 missing \(bias\); 5 unexpected \(extra0, extra1, extra2, \.\.\.\); "
        r"1 misshapen \(weight \[3, 2\] instead of \[2, 2\]\)"
    )
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model, given)
    assert same(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    ("bias", "form"),
    [
        (torch.zeros(2, dtype=torch.int8), "int8, strided on cpu"),
        (torch.zeros(2, dtype=torch.complex64), "complex64, strided on cpu"),
        (torch.zeros(2).to_sparse(), "float32, sparse_coo on cpu"),
        (torch.zeros(2, device="meta"), "float32, strided on meta"),
    ],
)
def test_tensors_that_cannot_be_taken_as_they_are_change_nothing(bias, form):
    model = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"floating-point numbers, bias is {form}"):
        load_checkpoint(model, {"weight": torch.zeros(2, 2), "bias": bias})
    assert same(dict(model.state_dict()), before)


# ---- saving and converting


def test_converting_there_and_back_keeps_every_bit(tmp_path):
    shared = torch.randn(4)
    tensors = {"a": shared, "view": shared[:2], "half": torch.ones(2).half(), **TENSORS}
    save_checkpoint(tensors, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert convert(tmp_path / "b.safetensors", tmp_path / "c.pt") == tmp_path / "c.pt"
    assert same(load_file(tmp_path / "b.safetensors"), tensors)
    assert same(torch.load(tmp_path / "c.pt", weights_only=True)["model"], tensors)
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b.safetensors", "c.pt"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_notes_beside_the_tensors_are_kept_also_by_converting(tmp_path, suffix):
    tensors = TENSORS
    first = save_checkpoint(tensors, tmp_path / f"a{suffix}", metadata={"data": "copyleft"})
    assert read_metadata(first) == {"data": "copyleft"}
    for other in (".pt", ".safetensors"):
        assert read_metadata(convert(first, tmp_path / f"b{other}")) == {"data": "copyleft"}
    assert read_metadata(save_checkpoint(tensors, tmp_path / f"bare{suffix}")) == {}


def test_notes_of_other_programs_that_are_no_text_are_left_out(tmp_path):
    torch.save({"model": TENSORS, "metadata": {"epoch": 3, "by": "them"}}, tmp_path / "a.pt")
    converted = convert(tmp_path / "a.pt", tmp_path / "a.safetensors")
    assert read_metadata(converted) == {"by": "them"}


def test_converting_to_half_precision_leaves_whole_numbers(tmp_path):
    save_checkpoint(TENSORS, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors", dtype=torch.bfloat16)
    made = read_checkpoint(tmp_path / "b.safetensors")
    assert made["weight"].dtype == torch.bfloat16
    assert made["count"].dtype == torch.int64


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    save_checkpoint(TENSORS, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_text() == "precious"
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors", overwrite=True)
    assert same(read_checkpoint(tmp_path / "b.safetensors"), TENSORS)


def test_a_file_may_be_converted_in_its_place(tmp_path):
    save_checkpoint(TENSORS, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "a.pt", overwrite=True, dtype=torch.float16)
    assert read_checkpoint(tmp_path / "a.pt")["weight"].dtype == torch.float16


def test_a_wrong_target_leaves_nothing(tmp_path):
    save_checkpoint(TENSORS, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"must end in \.pt or \.safetensors"):
        convert(tmp_path / "a.pt", tmp_path / "b.bin")
    with pytest.raises(FileNotFoundError, match="no folder"):
        convert(tmp_path / "a.pt", tmp_path / "deep" / "b.pt")
    with pytest.raises(ValueError, match=r"dtype must be one of .*got torch\.int8"):
        convert(tmp_path / "a.pt", tmp_path / "b.pt", dtype=torch.int8)
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors"])
def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, name):
    code = (
        "import resource, signal, sys, torch\n"
        "from sam2_hq.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    save_checkpoint({'x': torch.zeros(100_000)}, sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / name}: ")
    assert os.listdir(tmp_path) == []
