"""The loop: draw, answer, learn, write. Every step can be repeated from its number alone."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sam2_hq.checkpoint import load_checkpoint, save_checkpoint, write_tensors
from sam2_hq.checks import check_counts, check_numbers, check_shares
from sam2_hq.config import IMAGE_MULTIPLE
from sam2_hq.data.atomic import sweep_partials
from sam2_hq.modeling.sam2_base import SAM2Base
from sam2_hq.training.batch import BatchSource, TrainingBatch
from sam2_hq.training.image_step import StepOutput
from sam2_hq.training.journal import Journal
from sam2_hq.training.losses import LossWeights
from sam2_hq.training.optimizer import (
    Average,
    OptimizerOptions,
    Optimizers,
    build_optimizer,
    clip_gradients,
    freeze,
    schedule,
    set_rate,
)
from sam2_hq.training.out_of_memory import explained_out_of_memory
from sam2_hq.training.plots import draw_curves
from sam2_hq.training.sheet import draw_sheet
from sam2_hq.training.world import World

logger = logging.getLogger(__name__)

MAX_LOST_STEPS = 20  # steps in a row without a finite loss
RANK_STEP = 0x9E3779B1  # between seeds of processes; odd, since only 32 bits of a seed count


@dataclass(frozen=True)
class Phase:
    """A part of a stage: up to which share of it, at which side, with how many clips a step.

    num_frames: length of its clips; None for that of the data.
    """

    until: float
    image_size: int
    batch_size: int
    num_frames: int | None = None

    def __post_init__(self) -> None:
        check_shares(vars(self), "until")
        check_counts(vars(self), "image_size", "batch_size", least=1)
        if self.image_size % IMAGE_MULTIPLE:
            raise ValueError(
                f"image_size of a phase must be a multiple of {IMAGE_MULTIPLE}, "
                f"got {self.image_size}"
            )
        if self.num_frames is not None:
            check_counts(vars(self), "num_frames", least=1)


@dataclass(frozen=True)
class TrainerOptions:
    """Length, rhythm and numbers of a stage.

    minutes or num_steps: length of the run, by the clock or by steps; exactly one.
    weights_dtype: of `weights.safetensors`.
    save_minutes: time between checkpoints. log_steps, sheet_steps, validate_steps: steps between
        lines of the log, pictures of predictions, and validations; 0 for none.
    """

    phases: tuple[Phase, ...]
    minutes: float | None = None
    num_steps: int | None = None
    seed: int = 0
    bfloat16: bool = False
    weights_dtype: Literal["float16", "float32"] = "float16"
    save_minutes: float = 2.0
    log_steps: int = 20
    sheet_steps: int = 500
    validate_steps: int = 0
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        check_counts(vars(self), "log_steps", "sheet_steps", "validate_steps")
        check_numbers(vars(self), "save_minutes", least=0)
        given = [one for one in (self.minutes, self.num_steps) if one is not None]
        if len(given) != 1 or not given[0] > 0:  # also for what is no number
            raise ValueError(
                "exactly one of minutes and num_steps must be given, and more than 0, "
                f"got {self.minutes} and {self.num_steps}"
            )
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"phases must end at rising shares, the last at 1.0, got {ends}")


Validate = Callable[[SAM2Base], Mapping[str, float]]  # a model in evaluation mode


@dataclass(frozen=True)
class Stage:
    """What a trainer trains: how to build the model for a side, its step, its batches.

    build: image side -> model in training mode, with fresh weights.
    start: gives a model the weights that the run begins with; None leaves the fresh ones.
    step: model -> module that takes (TrainingBatch, Draws) and gives a `StepOutput`.
    source: phase -> source of batches.
    validate: model -> named numbers.
    metadata: goes into all weights that are written.
    addon: tensors that are also written by themselves, in float32.
    """

    name: str
    build: Callable[[int], SAM2Base]
    step: Callable[[SAM2Base], nn.Module]
    source: Callable[[Phase], BatchSource]
    validate: Validate | None = None
    start: Callable[[SAM2Base], object] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    addon: frozenset[str] = frozenset()


class Trainer:
    """Trains one stage into a folder, and goes on from what it finds there."""

    def __init__(
        self,
        stage: Stage,
        options: TrainerOptions,
        out: str | os.PathLike[str],
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        for phase in options.phases:
            # A later phase must not end a long run.
            self.world.share_of(phase.batch_size)
            stage.source(phase)
        self.stage = stage
        self.options = options
        self.out = Path(out)
        self.num_done = 0
        self.seconds = 0.0
        self._num_saved = 0
        self._lost_in_a_row = 0
        self._phase: Phase | None = None
        self.journal: Journal  # of the first process
        self.model: SAM2Base
        self.average: Average
        self.optimizer: Optimizers
        state = self._last_state()
        # Before models are wrapped, which waits for the other processes.
        self.world.check_same("the step to go on from", state.get("num_done", 0))
        if state:
            self._resume(state)
        else:
            with self._explained_out_of_memory(options.phases[0]):
                self._enter(options.phases[0], stage.start)
        self.out.mkdir(parents=True, exist_ok=True)  # not for a run that was refused
        if self.world.is_first:
            sweep_partials(self.weights)
            # The state, and what is written beside it: sheets, curves, the journal.
            sweep_partials(self.out / stage.name, and_longer=True)
            self.journal = Journal(self.out, stage.name, self.num_done)
            self.journal.pending.update(state.get("pending", {}))

    @property
    def checkpoint(self) -> Path:
        """Where the full state is kept."""
        return self.out / f"{self.stage.name}.pt"

    @property
    def weights(self) -> Path:
        """Where the averaged weights are written by themselves."""
        return self.out / "weights.safetensors"

    @property
    def addon(self) -> Path:
        """Where the tensors of the stage's add-on are written, if it has one."""
        return self.out / f"{self.stage.name}_tensors.safetensors"

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.options.num_steps is not None:
            return self.num_done / self.options.num_steps
        assert self.options.minutes is not None
        return self.seconds / (self.options.minutes * 60)

    def run(self, max_seconds: float = math.inf) -> None:
        """Train to the end of the stage, or for `max_seconds` of it; write the full state.

        Raises:
            FloatingPointError: if no finite loss comes any more.
            ValueError: if a step does not fit into memory.
        """
        last_save = time.monotonic()
        with ThreadPoolExecutor(1) as pool, self._bar() as bar:
            ahead: Future[TrainingBatch] | None = None
            until = self.seconds + max_seconds
            while self.progress < 1.0 and self.seconds < until:
                start = time.monotonic()
                ahead = self._advance(pool, ahead)
                self.seconds = self.world.agree_on(self.seconds + time.monotonic() - start)
                bar.set_postfix_str(f"{self.progress:.1%} of the run", refresh=False)
                bar.update()
                if (
                    self.world.is_first
                    and time.monotonic() - last_save > self.options.save_minutes * 60
                ):
                    self.save()
                    last_save = time.monotonic()
        if self.world.is_first:
            self._finish()

    def _finish(self) -> None:
        """Write what is not yet written."""
        has_rest = bool(self.journal.pending) and self.progress >= 1.0
        if has_rest:
            self._write_line()
            self._draw_curves()
        # A finished stage keeps its hands off the weights, which may be those of a later one.
        wanted = [self.weights, *([self.addon] if self.stage.addon else [])]
        is_new = has_rest or self.num_done > self._num_saved
        if is_new or not all(path.is_file() for path in wanted):
            self.save()

    def save(self) -> None:
        """Write the full state, and by themselves the weights to predict with and the add-on."""
        written, dtype = self.average.with_start(), getattr(torch, self.options.weights_dtype)
        state = {
            "model": written,  # what a builder or a next stage wants
            "average": self.average.state_dict(),
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "num_done": self.num_done,
            "seconds": self.seconds,
            "stage": self.stage.name,
            "metadata": dict(self.stage.metadata),
            "pending": self.journal.pending,
        }
        self._save_tensors({name: value.to(dtype) for name, value in written.items()}, self.weights)
        if self.stage.addon:
            addon = {name: written[name].float() for name in sorted(self.stage.addon)}
            self._save_tensors(addon, self.addon)
        # At the end: whoever finds this state finds the weights of it, or later ones.
        write_tensors(self.checkpoint, lambda path: torch.save(state, path))
        self._num_saved = self.num_done

    def _save_tensors(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        save_checkpoint(tensors, path, overwrite=True, metadata=self.stage.metadata)

    def _bar(self) -> tqdm[NoReturn]:
        """A line on the terminal of the first process; none where there is no terminal."""
        return tqdm(
            total=self.options.num_steps,
            initial=self.num_done,
            desc=self.stage.name,
            unit="step",
            disable=None if self.world.is_first else True,
        )

    def _last_state(self) -> Mapping[str, Any]:
        """What `save` wrote the last time; empty if it did not.

        Raises:
            ValueError: if it is of another stage or of an earlier version.
        """
        if not self.checkpoint.is_file():
            return {}
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if state.get("stage") != self.stage.name:
            raise ValueError(
                f"{self.checkpoint} must be of stage {self.stage.name!r}, "
                f"got {state.get('stage')!r}"
            )
        if "average" not in state:
            raise ValueError(
                f"{self.checkpoint} is of an earlier version, which cannot go on: begin in another "
                "folder, with it as train.checkpoint"
            )
        return state

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.num_done, self.seconds = state["num_done"], state["seconds"]
        self._num_saved = self.num_done
        phase = self._phase_now()
        with self._explained_out_of_memory(phase):
            self._enter(phase, lambda model: load_checkpoint(model, state["weights"]))
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        logger.info("resumed %s at step %d", self.checkpoint, self.num_done)

    def _phase_now(self) -> Phase:
        phases = self.options.phases
        return next((p for p in phases if self.progress < p.until), phases[-1])

    def _change_phase(self, phase: Phase) -> None:
        """Go over to another side; weights and momenta stay."""
        weights, momenta = self.model.state_dict(), self.optimizer.state_dict()
        self._enter(phase, lambda model: model.load_state_dict(weights))
        self.optimizer.load_state_dict(momenta)

    def _enter(self, phase: Phase, fill: Callable[[SAM2Base], object] | None) -> None:
        """Build model, step and source for the side of a phase; `fill` gives the model weights."""
        model = self.stage.build(phase.image_size)
        if fill is not None:
            fill(model)  # before the step, which may look at the weights
        freeze(model, self.options.optimizer.frozen)
        step = self.stage.step(model)  # it may freeze more, so it comes before the optimizer
        optimizer = build_optimizer(model, self.options.optimizer)
        if self._phase is None:
            wanted = self.options.optimizer
            self.average = Average(model, wanted.ema, wanted.start_share)
        else:
            self.average.follow(model)
        self.model, self.optimizer, self._phase = model, optimizer, phase
        self._forward = self.world.wrap(step)
        self._source = self.stage.source(phase)

    def _advance(
        self, pool: ThreadPoolExecutor, ahead: Future[TrainingBatch] | None
    ) -> Future[TrainingBatch]:
        """One step on the batch that was drawn ahead; meanwhile the next one is drawn."""
        phase = self._phase_now()
        with self._explained_out_of_memory(phase):
            if phase != self._phase:
                self._change_phase(phase)
                ahead = None
            batch = (ahead or pool.submit(self._draw, self.num_done)).result()
            ahead = pool.submit(self._draw, self.num_done + 1)
            self._step(batch)
        return ahead

    def _explained_out_of_memory(self, phase: Phase) -> AbstractContextManager[None]:
        return explained_out_of_memory(
            f"stage {self.stage.name!r} with image_size {phase.image_size} and "
            f"batch_size {phase.batch_size}",
            advice="lower one of them in train.trainer.phases, or train.data.max_objects, "
            "or train.data.num_frames",
        )

    def _generator(self, number: int, salt: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.options.seed * 1_000_003 + number) * 2 + salt)

    def _draw(self, number: int) -> TrainingBatch:
        assert self._phase is not None
        draws = self.world.draws(self._generator(number, 0))
        return self._source.sample(self.world.share_of(self._phase.batch_size), draws)

    def _step(self, batch: TrainingBatch) -> None:
        options = self.options
        generator = self._generator(self.num_done, 1)
        # Dropout knows no generator; rows of different processes lose different things.
        torch.manual_seed((generator.initial_seed() + self.world.rank * RANK_STEP) % 2**64)
        share = schedule(self.progress, options.optimizer)
        set_rate(self.optimizer, share)
        device = self.model.device
        batch = replace(batch, frames=batch.frames.to(device), masks=batch.masks.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            output: StepOutput = self._forward(batch, self.world.draws(generator))
        loss = self.world.mean(output.losses.total(options.weights))
        self.optimizer.zero_grad()
        loss.backward()
        learning = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = clip_gradients(
            [p for p in learning if p.grad is not None], options.optimizer.max_gradient_norm
        )
        cost = float(self.world.average(loss.detach()))
        rows = torch.stack([term.detach().float() for term in output.losses])
        means = self.world.average(self.world.mean(rows)).tolist()
        self._learn(math.isfinite(cost) and math.isfinite(norm))
        self.num_done += 1
        if self.world.is_first:
            terms = dict(zip(output.losses._fields, means, strict=True))
            numbers = {"loss": cost, "gradient": norm, "rate": share, **terms}
            self._report(batch, output, numbers)

    def _learn(self, is_finite: bool) -> None:
        if is_finite:
            self._lost_in_a_row = 0
            self.optimizer.step()
            self.average.update(self.model)
            return
        self._lost_in_a_row += 1
        self.optimizer.zero_grad()
        logger.warning("step %d has no finite loss or gradient; skipped", self.num_done)
        if self._lost_in_a_row >= MAX_LOST_STEPS:
            raise FloatingPointError(f"no finite loss for {MAX_LOST_STEPS} steps; lower the rate")

    def _report(
        self, batch: TrainingBatch, output: StepOutput, numbers: Mapping[str, float]
    ) -> None:
        options = self.options
        self.journal.add(numbers)
        if options.log_steps and self.num_done % options.log_steps == 0:
            self._write_line()
        if options.sheet_steps and self.num_done % options.sheet_steps == 0:
            sheet = self.out / f"{self.stage.name}_{self.num_done:06d}.png"
            if draw_sheet(sheet, batch, output):
                self.journal.show(self.num_done, sheet)
            self._draw_curves()
        steps = options.validate_steps
        if self.stage.validate is not None and steps and self.num_done % steps == 0:
            self.validate()

    def _write_line(self) -> None:
        self.journal.write(self.num_done, {"seconds": self.seconds, "progress": self.progress})

    def _draw_curves(self) -> None:
        if self.options.sheet_steps and self.journal.path.is_file():
            draw_curves(self.journal.path, self.out / f"{self.stage.name}_curves.png")

    def validate(self) -> Mapping[str, float]:
        """Measure the averaged weights, and write the numbers down; none without a validation."""
        if self.stage.validate is None:
            return {}
        numbers = self.stage.validate(self.averaged())
        self.journal.note(self.num_done, numbers)
        return numbers

    def averaged(self) -> SAM2Base:
        """A model of its own with the averaged weights, ready to predict."""
        assert self._phase is not None
        model = self.stage.build(self._phase.image_size)
        model.load_state_dict(self.average.with_start())
        return model.eval()
