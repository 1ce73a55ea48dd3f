from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from sam2_hq.build_sam import load
from sam2_hq.checkpoint import HQ_TENSORS, LICENSE_KEY, read_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    return save_checkpoint(load(device="cpu").state_dict(), path)


@pytest.fixture
def server(nano: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(nano.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_info_says_kind_config_size_and_fit(run, nano: Path):
    result = run("info", nano)
    assert result.exit_code == 0, result.stderr
    tensors = read_checkpoint(nano)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    for words in (
        "HQ-SAM 2.1 nano",
        "configs/sam2.1/sam2.1_hq_hiera_n.yaml",
        f"{len(tensors)}, {numbers / 1e6:.1f} M",
        "float32",
        "yes",
    ):
        assert words in result.stdout


def test_info_says_in_one_sentence_why_a_checkpoint_does_not_fit(run, nano: Path, tmp_path: Path):
    tensors = read_checkpoint(nano)
    del tensors["no_mem_embed"]
    path = save_checkpoint(tensors, tmp_path / "broken.pt")
    result = run("info", path)
    assert result.exit_code == 2
    assert "1 missing (no_mem_embed)" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_info_knows_hq_tensors_and_the_data_behind_them(run, nano: Path, tmp_path: Path):
    weights = read_checkpoint(nano)
    addon = tmp_path / "hq_tensors.safetensors"
    notes = {LICENSE_KEY: "permissive, mixed"}
    save_checkpoint({key: weights[key] for key in HQ_TENSORS}, addon, metadata=notes)
    result = run("info", addon)
    assert result.exit_code == 0, result.stderr
    for words in (
        "13, ",
        "HQ tensors",
        "permissive, mixed",
        f"convert PLAIN_CHECKPOINT NEW_FILE --hq {addon}",
    ):
        assert words in result.stdout
    del weights["sam_mask_decoder.hf_token.weight"]
    lacks = {key: weights[key] for key in HQ_TENSORS & weights.keys()}
    result = run("info", save_checkpoint(lacks, tmp_path / "twelve.pt"))
    assert result.exit_code == 2
    assert "not a SAM 2 checkpoint" in result.stderr


def test_convert_goes_there_and_back(run, nano: Path, tmp_path: Path):
    assert run("convert", nano, tmp_path / "a.pt").exit_code == 0
    assert run("convert", tmp_path / "a.pt", tmp_path / "b.safetensors").exit_code == 0
    want, got = read_checkpoint(nano), read_checkpoint(tmp_path / "b.safetensors")
    assert want.keys() == got.keys()
    assert all(torch.equal(want[key], got[key]) for key in want)


def test_convert_changes_the_dtype_when_asked(run, nano: Path, tmp_path: Path):
    assert run("convert", nano, tmp_path / "a.pt", "--dtype", "float16").exit_code == 0
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / "a.pt").values()} == {
        torch.float16
    }


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("there.pt", [], "--overwrite"),
        ("a.onnx", [], ".safetensors"),
        ("no/where.pt", [], "no folder"),
        ("a.pt", ["--dtype", "int4"], "--dtype must be one of"),
    ],
)
def test_convert_refuses_what_it_cannot_write(run, nano, tmp_path, target, options, words):
    (tmp_path / "there.pt").write_text("precious")
    result = run("convert", nano, tmp_path / target, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt"]
    assert (tmp_path / "there.pt").read_text() == "precious"


def test_download_refuses_what_is_not_the_named_checkpoint(run, server, nano, tmp_path):
    save_checkpoint(read_checkpoint(nano), nano.parent / "sam2.1_hiera_tiny.pt", overwrite=True)
    result = run("download", "sam2.1_hiera_tiny", "-o", tmp_path, "--base-url", server)
    assert result.exit_code == 2
    assert "HQ-SAM 2.1 nano" in result.stderr
    assert not any(tmp_path.iterdir())


def test_download_knows_the_nearest_name(run, tmp_path: Path):
    result = run("download", "sam2.1_hiera_tinny", "-o", tmp_path)
    assert result.exit_code == 2
    assert "sam2.1_hiera_tiny" in result.stderr


def test_download_says_when_a_server_does_not_have_the_file(run, server, tmp_path: Path):
    result = run("download", "sam2_hiera_large", "-o", tmp_path, "--base-url", server)
    assert result.exit_code == 2
    assert "404" in result.stderr
