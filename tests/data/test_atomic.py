"""Files appear whole or not at all, and only where there is a place for a file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from sam2_hq.data.atomic import write_json


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"x": 1})
    reader.join(timeout=10)
    assert json.loads(heard[0]) == {"x": 1}
    assert pipe.is_fifo()


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "scores.json").write_text("{}")
    link = tmp_path / "scores.json"
    link.symlink_to(tmp_path / "disk" / "scores.json")
    write_json(link, {"x": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "disk" / "scores.json").read_text()) == {"x": 1}


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"decay": float("nan"), "rows": [(1.5, float("inf"))]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"decay": None, "rows": [[1.5, None]]}
