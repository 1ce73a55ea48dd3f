"""The loop learns, and a run that is cut in two is the run that was not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sam2_hq.checkpoint import HQ_TENSORS, read_checkpoint
from sam2_hq.modeling.sam.transformer import Attention
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.answers import Judge
from sam2_hq.training.batch import TrainingBatch
from sam2_hq.training.hq_step import HQMix, HQStep
from sam2_hq.training.image_step import ImageStep, PromptMix
from sam2_hq.training.losses import LossWeights
from sam2_hq.training.optimizer import OptimizerOptions
from sam2_hq.training.trainer import Phase, Stage, Trainer, TrainerOptions
from sam2_hq.training.video_step import VideoMix, VideoStep
from sam2_hq.training.world import World
from tests.training.scenes import Discs, needs_muon, toy_model

MIX, JUDGE = PromptMix(max_corrections=1), Judge(LossWeights())


def image_step(model: SAM2Base) -> ImageStep:
    return ImageStep(model, mix=MIX, judge=JUDGE)


def video_step(model: SAM2Base) -> VideoStep:
    return VideoStep(model, mix=VideoMix(), judge=JUDGE, policy=model.memory_policy)


def hq_step(model: SAM2Base) -> HQStep:
    return HQStep(model, mix=HQMix(num_points=128), judge=JUDGE, policy=model.memory_policy)


STEPS = {"image": image_step, "video": video_step, "hq": hq_step}


def steady_model(side: int) -> SAM2Base:
    """Without dropout, whose draws depend on how a batch is shared out."""
    model = toy_model(image_size=side)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, Attention):
            part.dropout = 0.0
    return model


def stage(name: str = "image", *, num_frames: int = 1) -> Stage:
    return Stage(
        name,
        steady_model,
        STEPS[name],
        lambda phase: Discs(side=phase.image_size, num_frames=num_frames),
    )


def options(num_steps: int, **changes) -> TrainerOptions:
    defaults = {
        "phases": (Phase(0.5, 64, 2), Phase(1.0, 128, 2)),
        "num_steps": num_steps,
        "log_steps": 1,
        "sheet_steps": 0,
        "optimizer": OptimizerOptions(lr=1e-3),
    }
    return TrainerOptions(**(defaults | changes))


def curve(folder: Path, name: str = "image", term: str = "loss") -> list[tuple[int, float]]:
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [(line["step"], line[term]) for line in map(json.loads, lines)]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("muon", [False, pytest.param(True, marks=needs_muon)])
def test_an_interrupted_run_goes_on_to_the_same_losses_and_weights(muon: bool, tmp_path) -> None:
    wanted = options(8, optimizer=OptimizerOptions(lr=1e-3, muon=muon))
    whole = Trainer(stage(), wanted, tmp_path / "whole")
    whole.run()
    first = Trainer(stage(), wanted, tmp_path / "cut")
    draw = first._draw

    def fail_late(number: int) -> TrainingBatch:
        if number == 5:
            raise Interrupted
        return draw(number)

    first._draw = fail_late  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        first.run()
    first.save()
    second = Trainer(stage(), wanted, tmp_path / "cut")
    assert second.num_done == 5
    second.run()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_run_can_be_told_to_stop_early_and_goes_on_later(tmp_path) -> None:
    for _ in range(2):
        run = Trainer(stage(), options(3), tmp_path)
        run.run(max_seconds=1e-6)
    assert run.num_done == 2
    last = Trainer(stage(), options(3), tmp_path)
    last.run()
    assert last.num_done == 3


SCRIPT = """
import sys, time
from tests.training.test_trainer import options, stage
from sam2_hq.training.trainer import Trainer
run = Trainer(stage(), options(8, save_minutes=0.0), sys.argv[1])
draw = run._draw
run._draw = lambda number: draw(number) if number < 6 else time.sleep(1000)
run.run()
"""


def test_a_killed_run_goes_on_to_the_same_curve(tmp_path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Trainer(stage(), options(8), whole).run()
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(cut)], env=os.environ | THREAD)
    deadline = time.monotonic() + 300
    while not (cut / "image.jsonl").is_file() or len(curve(cut)) < 6:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # It died in the middle of a save, and between a line of the log and the save after it.
    for name in (".image.pt", ".image_000004.png", ".weights.safetensors"):
        (cut / f"{name}.123-abcd.partial").write_bytes(b"half")
    with open(cut / "image.jsonl", "a") as file:
        file.write('{"step": 7, "loss": 99.0}\n{"step": 8, "lo')
    resumed = Trainer(stage(), options(8), cut)
    assert resumed.num_done in (5, 6)
    resumed.run()
    assert curve(cut) == curve(whole)
    assert {path.name for path in cut.iterdir() if path.is_file()} == {
        *("image.pt", "image.jsonl", "weights.safetensors")
    }


def test_means_of_the_log_do_not_notice_an_interruption(tmp_path) -> None:
    wanted = options(6, phases=(Phase(1.0, 64, 2),), log_steps=3)
    Trainer(stage(), wanted, tmp_path / "whole").run()
    Trainer(stage(), wanted, tmp_path / "cut").run(max_seconds=1e-6)
    Trainer(stage(), wanted, tmp_path / "cut").run()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_run_goes_on_at_the_rate_that_it_is_told(tmp_path) -> None:
    Trainer(stage(), options(4), tmp_path).run(max_seconds=1e-6)
    changed = OptimizerOptions(lr=1e-5, weight_decay=0.5)
    resumed = Trainer(stage(), options(4, optimizer=changed), tmp_path)
    groups = resumed.optimizer.param_groups
    assert {group["peak_lr"] for group in groups} == {1e-5}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.5}


def test_a_finished_stage_leaves_the_weights_of_the_next_one_alone(tmp_path) -> None:
    Trainer(stage(), options(2), tmp_path).run()
    (tmp_path / "weights.safetensors").write_bytes(b"of a later stage")
    again = Trainer(stage(), options(2), tmp_path)
    again.run()
    assert (tmp_path / "weights.safetensors").read_bytes() == b"of a later stage"
    assert again.model.image_size == 128  # validates at the side of its last phase


@pytest.mark.parametrize("lost", ["weights.safetensors", "hq_tensors.safetensors"])
def test_a_finished_run_writes_again_what_was_lost(tmp_path, lost: str) -> None:
    hq = replace(stage("hq"), addon=HQ_TENSORS)
    Trainer(hq, options(2), tmp_path).run()
    before = (tmp_path / lost).read_bytes()
    (tmp_path / lost).unlink()
    Trainer(hq, options(2), tmp_path).run()
    assert (tmp_path / lost).read_bytes() == before


def test_weights_are_there_before_the_state_that_says_they_are_done(tmp_path, monkeypatch) -> None:
    def killed(*_) -> None:
        raise Interrupted

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(Interrupted):
        Trainer(stage(), options(1), tmp_path).run()
    assert (tmp_path / "weights.safetensors").is_file()
    assert not (tmp_path / "image.pt").exists()


def test_others_may_read_the_weights(tmp_path) -> None:
    Trainer(stage(), options(1), tmp_path).run()
    other = tmp_path / "other"
    other.touch()
    assert (tmp_path / "weights.safetensors").stat().st_mode == other.stat().st_mode


def test_the_last_steps_of_a_run_are_in_the_log(tmp_path) -> None:
    Trainer(stage(), options(5, log_steps=3, sheet_steps=100), tmp_path).run()
    assert [step for step, _ in curve(tmp_path)] == [3, 5]
    assert (tmp_path / "image_curves.png").is_file()


def test_a_finished_run_writes_its_last_line_once(tmp_path) -> None:
    for _ in range(3):
        Trainer(stage(), options(5, log_steps=3, save_minutes=0.0), tmp_path).run()
    assert [step for step, _ in curve(tmp_path)] == [3, 5]


def test_a_run_needs_its_start_only_once(tmp_path) -> None:
    starts: list[SAM2Base] = []
    begun = replace(stage(), start=starts.append)
    Trainer(begun, options(4), tmp_path).run(max_seconds=0.01)
    Trainer(begun, options(4), tmp_path).run()  # goes on, and into the second phase
    assert len(starts) == 1


def test_what_a_run_began_with_is_kept_with_it(tmp_path) -> None:
    keeping = options(1, optimizer=OptimizerOptions(lr=1e-3, start_share=0.5))
    first = Trainer(stage(), keeping, tmp_path)
    first.run()
    written = first.average.with_start()

    def other(model: SAM2Base) -> None:
        for parameter in model.parameters():
            parameter.data += 1

    resumed = Trainer(replace(stage(), start=other), keeping, tmp_path)
    assert all(value.equal(written[name]) for name, value in resumed.average.with_start().items())
    without = Trainer(stage(), options(2), tmp_path)
    without.run()
    assert without.average.with_start() is without.average.tensors
    assert Trainer(stage(), keeping, tmp_path).average.start_share == 0.5  # it is still there
    plain = Trainer(stage(), options(1), tmp_path / "plain")
    plain.run()
    with pytest.raises(ValueError, match="start_share must be 0 where a run goes on that began"):
        Trainer(stage(), keeping, tmp_path / "plain")


def test_only_what_learns_is_kept_twice(tmp_path) -> None:
    run = Trainer(stage("hq"), options(2), tmp_path)
    run.run()
    kept = run.average.tensors
    live = run.model.state_dict()
    assert {name for name in live if kept[name].data_ptr() != live[name].data_ptr()} == HQ_TENSORS


def test_a_share_of_the_weights_a_run_began_with_stays_in_what_it_writes(tmp_path) -> None:
    Trainer(stage(), options(4), tmp_path / "plain").run()
    keeping = options(4, optimizer=OptimizerOptions(lr=1e-3, start_share=0.3))
    Trainer(stage(), keeping, tmp_path / "mixed").run(max_seconds=0.01)  # one step
    run = Trainer(stage(), keeping, tmp_path / "mixed")
    assert run.num_done == 1
    run.run()
    start = steady_model(64).state_dict()
    learned = read_checkpoint(tmp_path / "plain" / "image.pt")
    written = read_checkpoint(tmp_path / "mixed" / "image.pt")
    assert not all(learned[name].equal(start[name]) for name in start)
    for name, value in written.items():
        torch.testing.assert_close(value, 0.7 * learned[name] + 0.3 * start[name])
    predicting = run.averaged().state_dict()
    assert all(predicting[name].equal(value) for name, value in written.items())


@pytest.mark.parametrize(
    ("phase", "named"),
    [((1.0, 64, 0), "batch_size"), ((1.0, -1, 2), "image_size"), ((1.0, 64, 2, 0), "num_frames")],
)
def test_a_phase_that_cannot_be_is_refused(phase: tuple, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be 1 or more"):
        Phase(*phase)


@pytest.mark.parametrize("until", [math.nan, -0.5, 1.5])
def test_a_phase_ends_within_its_stage(until: float) -> None:
    with pytest.raises(ValueError, match=r"until must be (a number|between 0 and 1)"):
        Phase(until, 64, 2)


def test_the_step_sees_the_weights_that_it_goes_on_with(tmp_path) -> None:
    """A cache of features is named after the weights of the encoder."""
    seen = []

    def step(model: SAM2Base) -> nn.Module:
        seen.append(model.sam_mask_decoder.iou_token.weight.detach().clone())
        return image_step(model)

    def start(model: SAM2Base) -> None:
        model.sam_mask_decoder.iou_token.weight.data.fill_(7.0)

    begun = replace(stage(), step=step, start=start)
    Trainer(begun, options(4), tmp_path).run(max_seconds=0.01)
    resumed = Trainer(begun, options(4), tmp_path)
    assert seen[1].equal(resumed.model.sam_mask_decoder.iou_token.weight)
    resumed.run()
    assert len(seen) == 3  # the second phase has another side
    assert all((one - 7).abs().max() < 0.1 for one in seen)


def test_a_state_of_an_earlier_version_is_named(tmp_path) -> None:
    torch.save({"stage": "image", "num_done": 3}, tmp_path / "image.pt")
    with pytest.raises(ValueError, match=r"image\.pt is of an earlier version"):
        Trainer(stage(), options(4), tmp_path)


def test_a_folder_with_a_run_of_another_model_is_refused(tmp_path) -> None:
    Trainer(stage(), options(2), tmp_path).save()
    plain = Stage("image", lambda side: toy_model(hq=False), stage().step, stage().source)
    with pytest.raises(ValueError, match="unexpected"):
        Trainer(plain, options(2), tmp_path)


def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch) -> None:
    def fail(*_) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    run = Trainer(stage(), options(1), tmp_path)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"image\.pt.* No space left"):
        run.run()


THREAD = {"OMP_NUM_THREADS": "1"}

TWO = """
import sys
from tests.training.test_trainer import options, stage
from sam2_hq.training.trainer import Trainer
from sam2_hq.training.world import joined_world
with joined_world() as world:
    assert world.size == 2
    same = stage(sys.argv[2], num_frames=int(sys.argv[3]))
    Trainer(same, options(3), sys.argv[1], world).run()
"""


def launched(script: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes."""
    script.write_text(text)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*launch, str(script), *arguments],
        env=os.environ | THREAD | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(("name", "num_frames"), [("image", 1), ("video", 3), ("hq", 1), ("hq", 3)])
def test_two_processes_give_what_one_gives_for_the_same_global_batch(
    tmp_path, name: str, num_frames: int
) -> None:
    alone = Trainer(stage(name, num_frames=num_frames), options(3), tmp_path / "one")
    alone.run()
    launched(tmp_path / "two.py", TWO, str(tmp_path / "two"), name, str(num_frames))
    both = torch.load(tmp_path / "two" / f"{name}.pt", weights_only=True)
    live = {k: p.detach() for k, p in alone.model.named_parameters() if p.requires_grad}
    apart = torch.cat([(both["weights"][k] - live[k]).abs().flatten() for k in live])
    # Adam divides by the size of a gradient, so rounding of tiny ones shows in single weights.
    assert (apart > 1e-4).float().mean() < 0.01
    for term in ("loss", "mask", "dice", "iou", "presence"):
        ours, theirs = (curve(tmp_path / who, name, term) for who in ("one", "two"))
        wanted = pytest.approx([value for _, value in ours], rel=1e-4, abs=2e-6)
        assert [value for _, value in theirs] == wanted, term


LUCK = """
import sys, torch
from tests.training.test_trainer import JUDGE, MIX, options, stage
from sam2_hq.training.image_step import ImageStep
from sam2_hq.training.trainer import Stage, Trainer
from sam2_hq.training.world import joined_world
with joined_world() as world:
    class Tells(ImageStep):
        def forward(self, batch, draws):
            with open(f"{sys.argv[1]}.{world.rank}", "a") as file:
                print(torch.rand(1).item(), file=file)
            return super().forward(batch, draws)
    same = stage()
    told = Stage("image", same.build, lambda m: Tells(m, mix=MIX, judge=JUDGE), same.source)
    Trainer(told, options(3), sys.argv[1], world).run()
"""


def test_dropout_falls_on_other_things_in_every_process(tmp_path) -> None:
    launched(tmp_path / "luck.py", LUCK, str(tmp_path / "out"))
    first, second = ((tmp_path / f"out.{rank}").read_text().split() for rank in (0, 1))
    assert len(first) == len(second) == 3
    assert len({*first, *second}) == 6


APART = """
import sys
from tests.training.test_trainer import options, stage
from sam2_hq.training.trainer import Trainer
from sam2_hq.training.world import joined_world
with joined_world() as world:
    try:
        Trainer(stage(), options(3), f"{sys.argv[1]}/{world.rank}", world)
    except ValueError as error:
        print(error)
"""


LEAVE = """
import os, sys, time, torch
from contextlib import suppress
from pathlib import Path
from sam2_hq.training.world import joined_world
class LongEnd:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)
kept_until_python_ends = LongEnd()
with joined_world() as world:
    model = world.wrap(torch.nn.Linear(2, 2))  # as in training: it holds the threads of gloo
    model(torch.ones(1, 2)).sum().backward()
    time.sleep(0.2)
    sys.setswitchinterval(60)  # a busy machine: gloo's threads wait for us
    num_slow = 0
    with suppress(AttributeError, OSError):  # Linux alone can, and containers may forbid it
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {min(os.sched_getaffinity(0))})
            if "gloo_runloop" in (thread / "comm").read_text():
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
                num_slow += 1
print(num_slow)
"""


def test_processes_of_a_busy_machine_end_without_an_abort(tmp_path) -> None:
    done = launched(tmp_path / "leave.py", LEAVE)
    if "0" in done.stdout.split():
        pytest.skip("the threads of gloo cannot be slowed here")


def test_processes_that_see_different_folders_are_told_so(tmp_path) -> None:
    Trainer(stage(), options(3), tmp_path / "0").run()  # into the second phase
    done = launched(tmp_path / "apart.py", APART, str(tmp_path))
    assert done.stdout.count("must be the same in all processes, got [3, 0] by rank") == 2


def test_a_batch_that_processes_cannot_share_is_refused_at_the_start(tmp_path) -> None:
    with pytest.raises(ValueError, match="multiple of the 3 processes, got 2"):
        Trainer(stage(), options(3), tmp_path, World(0, 3))


def test_losses_fall_on_discs(tmp_path) -> None:
    phases = (Phase(1.0, 64, 4),)
    run = Trainer(stage(), options(40, phases=phases), tmp_path)
    run.run()
    losses = [loss for _, loss in curve(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_step_without_finite_loss_is_skipped_and_many_end_the_run(tmp_path) -> None:
    class Broken(Discs):
        def sample(self, batch_size, draws):
            batch = super().sample(batch_size, draws)
            return TrainingBatch(batch.frames * float("nan"), batch.masks)

    broken = Stage(
        "image", stage().build, stage().step, lambda phase: Broken(side=phase.image_size)
    )
    run = Trainer(broken, options(50, phases=(Phase(1.0, 64, 1),)), tmp_path)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="finite"):
        run.run()
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def failing_at(step: int, error: Exception) -> Stage:
    class Fails(ImageStep):
        num_calls = 0

        def forward(self, batch, draws):
            Fails.num_calls += 1
            if Fails.num_calls == step:
                raise error
            return super().forward(batch, draws)

    whole = stage()
    return Stage("image", whole.build, lambda m: Fails(m, mix=MIX, judge=JUDGE), whole.source)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_step_beyond_memory_says_what_to_lower_and_keeps_the_checkpoint(tmp_path, error) -> None:
    run = Trainer(failing_at(3, error), options(8, save_minutes=0.0), tmp_path)
    with pytest.raises(
        ValueError, match="stage 'image' with image_size 64 and batch_size 2"
    ) as told:
        run.run()
    assert "lower" in str(told.value)
    assert "max_objects" in str(told.value)
    again = Trainer(stage(), options(8), tmp_path)
    assert again.num_done == 2
    again.run()


def test_a_model_beyond_memory_says_what_to_lower(tmp_path) -> None:
    def build(side: int) -> SAM2Base:
        raise OUT_OF_MEMORY[2]

    with pytest.raises(ValueError, match="too small for stage 'image' with image_size 64"):
        Trainer(replace(stage(), build=build), options(8), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_errors_of_a_step_stay_what_they_are(tmp_path) -> None:
    run = Trainer(failing_at(1, RuntimeError("shapes differ")), options(8), tmp_path)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run.run()


def test_a_checkpoint_of_another_stage_is_refused(tmp_path) -> None:
    Trainer(stage(), options(8), tmp_path).save()
    (tmp_path / "image.pt").rename(tmp_path / "video.pt")
    with pytest.raises(ValueError, match="'video'"):
        Trainer(stage("video"), options(8), tmp_path)


@pytest.mark.parametrize(
    "length",
    [
        {"minutes": 1.0, "num_steps": 3},
        {},
        {"minutes": -1.0},
        {"minutes": math.nan},
        {"num_steps": 0},
    ],
)
def test_a_run_is_as_long_as_minutes_or_steps_say_but_not_both(length) -> None:
    with pytest.raises(ValueError, match=r"exactly one of minutes and num_steps .* more than 0"):
        TrainerOptions(phases=(Phase(1.0, 64, 1),), **length)
