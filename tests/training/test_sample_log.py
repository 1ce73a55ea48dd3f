"""Bad samples are counted and named, and warned about once."""

from __future__ import annotations

from sam2_hq.training.sample_log import MAX_NAMES, SampleLog


def test_a_log_without_skips_says_nothing():
    assert SampleLog().summary() == ""


def test_each_skip_counts_but_warns_once(caplog):
    log = SampleLog()
    for _ in range(3):
        log.skip("a", "torn")
    log.skip("b", "empty")
    assert (log.count, log.names) == (4, {"a": "torn", "b": "empty"})
    assert log.summary() == "4 samples skipped, 2 different: a, b"
    assert [record.getMessage() for record in caplog.records] == [
        "skipped sample 'a': torn",
        "skipped sample 'b': empty",
    ]


def test_names_are_bounded_but_counted():
    log = SampleLog()
    for number in range(MAX_NAMES + 50):
        log.skip(str(number), "torn")
    assert len(log.names) == MAX_NAMES
    assert log.count == MAX_NAMES + 50
