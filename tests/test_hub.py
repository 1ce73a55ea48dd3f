from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from sam2_hq import hub
from sam2_hq.hub import HF_MODEL_ID_TO_FILENAMES, PUBLISHED, download, fetch_from_hub

NAME = "sam2.1_hiera_tiny"


def checkpoint(blocks: int = 12, seed: int = 0) -> bytes:
    """A file that is recognised as tiny, and as something else with another number of blocks."""
    noise = torch.randn(96, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    tensors = {
        "image_encoder.trunk.patch_embed.proj.weight": noise,
        "no_obj_embed_spatial": torch.zeros(1, 64),
        **{f"image_encoder.trunk.blocks.{i}.norm1.weight": torch.ones(96) for i in range(blocks)},
    }
    buffer = io.BytesIO()
    torch.save({"model": tensors}, buffer)
    return buffer.getvalue()


class FileServer:
    """One file at every path, with ranges; can break off each answer, hide its version, or wait."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag: str | None = '"one"'
        self.break_after: int | None = None
        self.status: int | None = None
        self.pause_seconds = 0.0
        self.ranges: list[str | None] = []
        self.paths: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        self.paths.append(request.path)
        if self.status is not None:
            request.send_error(self.status)
            return
        start = 0
        if wanted and request.headers.get("If-Range", self.etag) == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            end = len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("X-Repo-Commit", "0" * 40)
        request.end_headers()
        time.sleep(self.pause_seconds)
        if with_body:
            request.wfile.write(body[: self.break_after])


@contextmanager
def serving(server: FileServer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self, with_body=True)

        def do_HEAD(self):
            server.answer(self, with_body=False)

        def log_message(self, *args):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.fixture
def server():
    return FileServer(checkpoint())


@pytest.fixture
def url(server):
    with serving(server) as url:
        yield url


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_table_has_the_published_files():
    assert len(PUBLISHED) == len(HF_MODEL_ID_TO_FILENAMES) == 9
    urls = {name: entry.base_url + entry.filename for name, entry in PUBLISHED.items()}
    fair = "https://dl.fbaipublicfiles.com/segment_anything_2"
    assert urls["sam2_hiera_base_plus"] == f"{fair}/072824/sam2_hiera_base_plus.pt"
    assert urls["sam2.1_hiera_large"] == f"{fair}/092824/sam2.1_hiera_large.pt"
    assert urls["sam2.1_hq_hiera_large"].startswith("https://huggingface.co/lkeab/hq-sam/")


@pytest.mark.parametrize("name", [NAME, f"{NAME}.pt"])
def test_a_checkpoint_is_fetched_by_name(server, url, tmp_path, name):
    path = download(name, tmp_path / "new", base_url=url, progress=False)
    assert path == tmp_path / "new" / f"{NAME}.pt"
    assert path.read_bytes() == server.content
    assert names(tmp_path / "new") == [f"{NAME}.pt"]
    assert server.paths == [f"/{NAME}.pt"]


def test_the_default_folder_is_the_users_cache(url, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = download(NAME, base_url=url, progress=False)
    assert path == tmp_path / "sam2_hq" / f"{NAME}.pt"


def test_what_is_there_is_not_fetched_again(server, url, tmp_path):
    first = download(NAME, tmp_path, base_url=url, progress=False)
    assert download(NAME, tmp_path, base_url=url, progress=False) == first
    assert len(server.paths) == 1


def test_workers_that_ask_at_the_same_time_fetch_it_once(server, url, tmp_path):
    server.pause_seconds = 0.3
    with ThreadPoolExecutor(4) as workers:
        fetched = [
            workers.submit(download, NAME, tmp_path, base_url=url, progress=False) for _ in range(4)
        ]
    assert {task.result() for task in fetched} == {tmp_path / f"{NAME}.pt"}
    assert (tmp_path / f"{NAME}.pt").read_bytes() == server.content
    assert server.ranges == [None]
    assert names(tmp_path) == [f"{NAME}.pt"]


def test_a_broken_connection_is_taken_up_where_it_broke(server, url, tmp_path):
    server.break_after = len(server.content) // 2 + 1
    path = download(NAME, tmp_path, base_url=url, progress=False)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, f"bytes={server.break_after}-"]


def test_a_later_call_goes_on_from_what_has_arrived(server, url, tmp_path):
    server.break_after = 1000
    with pytest.raises(ConnectionError, match="closed early; the next call goes on"):
        download(NAME, tmp_path, base_url=url, progress=False)
    arrived = (tmp_path / f"{NAME}.pt.part").read_bytes()
    assert arrived == server.content[: len(arrived)]
    assert len(arrived) == 5000

    server.break_after = None
    server.ranges.clear()
    path = download(NAME, tmp_path, base_url=url, progress=False)
    assert server.ranges == ["bytes=5000-"]
    assert path.read_bytes() == server.content
    assert names(tmp_path) == [f"{NAME}.pt"]


def test_an_interrupted_check_does_not_forget_what_has_arrived(server, url, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(hub, "_verify", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(NAME, tmp_path, base_url=url, progress=False)
    server.ranges.clear()
    assert download(NAME, tmp_path, base_url=url, progress=False).read_bytes() == server.content
    assert server.ranges == [f"bytes={len(server.content)}-"]
    assert names(tmp_path) == [f"{NAME}.pt"]


def test_halves_of_two_versions_never_meet(server, url, tmp_path):
    server.break_after = 1000
    with pytest.raises(ConnectionError):
        download(NAME, tmp_path, base_url=url, progress=False)
    server.content, server.etag, server.break_after = checkpoint(seed=1), '"two"', None
    assert download(NAME, tmp_path, base_url=url, progress=False).read_bytes() == server.content


def test_a_server_without_versions_is_asked_from_the_start(server, url, tmp_path):
    server.etag = None
    (tmp_path / f"{NAME}.pt.part").write_bytes(b"something old")
    assert download(NAME, tmp_path, base_url=url, progress=False).read_bytes() == server.content
    assert server.ranges == [None]


def test_a_complete_part_is_only_verified(server, url, tmp_path):
    (tmp_path / f"{NAME}.pt.part").write_bytes(server.content)
    (tmp_path / f"{NAME}.pt.part.version").write_text('"one"')
    assert download(NAME, tmp_path, base_url=url, progress=False).read_bytes() == server.content
    assert names(tmp_path) == [f"{NAME}.pt"]


def test_a_part_that_is_too_long_is_fetched_anew(server, url, tmp_path):
    (tmp_path / f"{NAME}.pt.part").write_bytes(server.content + b"too much")
    (tmp_path / f"{NAME}.pt.part.version").write_text('"one"')
    assert download(NAME, tmp_path, base_url=url, progress=False).read_bytes() == server.content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>sign in</html>", "no torch file"),
        (checkpoint(blocks=16), r"is a checkpoint of SAM 2\.1 small"),
    ],
)
def test_what_is_not_the_checkpoint_is_thrown_away(server, url, tmp_path, content, message):
    server.content = content
    with pytest.raises(ValueError, match=message):
        download(NAME, tmp_path, base_url=url, progress=False)
    assert names(tmp_path) == []


def test_a_flipped_bit_is_noticed(server, url, tmp_path):
    middle = len(server.content) // 2
    flipped = bytes([server.content[middle] ^ 1])
    server.content = server.content[:middle] + flipped + server.content[middle + 1 :]
    with pytest.raises(ValueError, match="damaged"):
        download(NAME, tmp_path, base_url=url, progress=False)
    assert names(tmp_path) == []


def test_a_digest_is_held_against_the_file(server, url, tmp_path):
    with pytest.raises(ValueError, match=r"SHA-256 is .*, wanted 00"):
        download(NAME, tmp_path, base_url=url, sha256="00", progress=False)
    digest = hashlib.sha256(server.content).hexdigest().upper()
    assert download(NAME, tmp_path, base_url=url, sha256=digest, progress=False).is_file()
    with pytest.raises(ValueError, match=r"SHA-256 is .*, wanted 00"):  # it is there already
        download(NAME, tmp_path, base_url=url, sha256="00", progress=False)


def test_a_refusing_server_is_named(server, url, tmp_path):
    server.status = 404
    with pytest.raises(ConnectionError, match=f"{NAME}.pt answered 404"):
        download(NAME, tmp_path, base_url=url, progress=False)


def test_an_absent_server_is_named(tmp_path):
    with pytest.raises(ConnectionError, match="could not be fetched"):
        download(NAME, tmp_path, base_url="http://127.0.0.1:9", progress=False)


def test_progress_is_shown_on_stderr(url, tmp_path, capfd):
    download(NAME, tmp_path, base_url=url)
    assert "100%" in capfd.readouterr().err


def test_an_unknown_name_names_its_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"'sam2.1_heira_tiny'; did you mean 'sam2.1_hiera_tiny'"):
        download("sam2.1_heira_tiny", tmp_path)


def test_hub_ids_are_fetched_by_huggingface_hub(server, url, tmp_path):
    ids = ["facebook/sam2.1-hiera-tiny", "lkeab/hq-sam"]
    # huggingface_hub reads its environment when it is imported.
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path)}
    code = (
        "import sys\n"
        "from sam2_hq.hub import fetch_from_hub\n"
        "for model_id in sys.argv[1:]:\n"
        "    print(*fetch_from_hub(model_id), sep='\\n')\n"
    )
    command = [sys.executable, "-c", code, *ids]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for model_id, config, path in zip(ids, lines[::2], lines[1::2], strict=True):
        assert (config, Path(path).name) == HF_MODEL_ID_TO_FILENAMES[model_id]
        assert Path(path).is_relative_to(tmp_path)
        assert Path(path).read_bytes() == server.content
        assert f"/{model_id}/resolve/main/{Path(path).name}" in server.paths


def test_an_unknown_hub_id_names_its_nearest():
    with pytest.raises(ValueError, match=r"did you mean 'facebook/sam2.1-hiera-tiny'"):
        fetch_from_hub("facebook/sam2.1-hiera-tinny")


def test_the_download_script_asks_for_every_published_checkpoint(tmp_path):
    script = Path(__file__).parents[1] / "checkpoints" / "download_ckpts.sh"
    command = tmp_path / "sam2-hq"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for names_given, wanted in (([], list(PUBLISHED)), ([NAME], [NAME])):
        done = subprocess.run(
            ["sh", script, *names_given],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines() == [f"download {name} --out ." for name in wanted]
