"""Frames with many objects are timed on copies of one history."""

from __future__ import annotations

from tests.toy import toy_predictor


def test_each_number_of_objects_gets_its_frames_and_the_session_stays(script, capsys) -> None:
    objects = script("objects")
    model = toy_predictor()
    state = objects.full_session(model, objects.FULL_MEMORY + 2)
    for count in (1, 3):
        assert len(objects.seconds_a_frame(model, state, count, 2)) == 2
    assert list(state.tracks) == [0]
    assert "objects 3:" in capsys.readouterr().out
