"""The rules of tracking: answer a prompt, make it a memory, step to another frame.

State is per object, arithmetic per group of objects whose memories have the same layout. The
tracker holds no state of its own and does no checking; the predictor in front of it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_hq.config import MemoryPolicy, PredictorOptions
from sam2_hq.modeling.sam2_base import MemoryTokens, SAM2Base
from sam2_hq.ops.appearance import (
    Appearance,
    Cells,
    cells_of,
    evidence,
    learn,
    stack_looks,
    surroundings,
)
from sam2_hq.ops.guided_filter import follow_edges
from sam2_hq.ops.masks import (
    OVERLAP_LOGIT,
    PROMPT_LOGIT_LIMIT,
    certain_logits,
    enlarge,
    fill_holes,
    non_overlapping,
)
from sam2_hq.structures import (
    NO_OBJECT_LOGIT,
    FrameFeatures,
    MaskOutput,
    MaskPrompt,
    PointPrompt,
    TrackedFrame,
)
from sam2_hq.tracking.memory import Recall
from sam2_hq.tracking.state import (
    FrameRecord,
    ObjectId,
    ObjectTrack,
    Painted,
    Pending,
    VideoState,
)
from sam2_hq.transforms import frame_pixels, normalize_frame
from sam2_hq.zoom_in import look_again, low_res_with

T = TypeVar("T")

EDGES_A_PASS = 8
"""Objects whose masks follow edges at a time: 60 MB each with a side of 1024 pixels."""


@dataclass(frozen=True)
class Tracker:
    """A model and the rules to run it by."""

    model: SAM2Base
    policy: MemoryPolicy
    options: PredictorOptions

    # -------------------------------------------------------------- frames

    def features(self, state: VideoState, frame: int) -> FrameFeatures:
        """Features of a frame, encoded at most once while it is among the last used."""

        def encode() -> FrameFeatures:
            pixels = normalize_frame(state.images.get(frame), state.device)
            return self.model.encode_image(pixels)

        held: set[int] = set()
        if state.goes_forward_only:  # a frame with an answer may be gone when that is committed
            held.update(f for track in state.tracks.values() for f in track.pending)
        return state.features.get(frame, self.model.num_loads, encode, held=held)

    # ------------------------------------------------------------- prompts

    def answer_points(
        self,
        state: VideoState,
        frame: int,
        object_id: ObjectId,
        prompt: PointPrompt,
        *,
        use_previous_mask: bool,
    ) -> None:
        """Decode an object on a frame from clicks; the answer is pending until the next commit."""
        track = state.tracks.get(object_id, ObjectTrack())
        is_initial = frame not in track.directions
        output = self.model.decode(
            self._embedding(state, track, frame, is_initial=is_initial),
            self.features(state, frame).high_res,
            points=prompt,
            mask_logits=self._previous_mask(state, track, frame) if use_previous_mask else None,
            multimask=self.model.use_multimask(
                is_initial=is_initial, num_points=prompt.labels.shape[1]
            ),
        )
        if self.model.zoom_in is not None:
            output = self._look_again(state, frame, prompt, output, self.model.zoom_in)
        record = self._shown(state, frame, track, output)
        self._await_commit(state, frame, object_id, prompt, Pending(record, is_initial))

    def _look_again(
        self, state: VideoState, frame: int, prompt: PointPrompt, output: MaskOutput, ratio: float
    ) -> MaskOutput:
        """The answer with the mask of further looks, at windows of the frame as it came.

        One look has to do for an absent object, and for a frame that cannot be read again.
        """
        if self.model.config.pred_obj_scores and not bool(output.object_score > 0):
            return output
        try:
            picture = state.pictures[frame]
        except (IndexError, ValueError):
            if not state.goes_forward_only:
                raise
            return output
        seen = look_again(
            self.model,
            picture,
            enlarge(output.mask_logits, state.video_size)[:, 0],
            prompt,
            iou=output.iou[:, 0],
            ratio=ratio,
            hq_mode=self.model.hq_mode,
            enlarge=enlarge,
        )
        low_res = low_res_with(output.mask_logits[0, 0], seen.logits[0], seen.windows[0])
        return output._replace(mask_logits=low_res[None, None])

    def answer_mask(
        self, state: VideoState, frame: int, object_id: ObjectId, prompt: MaskPrompt
    ) -> None:
        """Take the user's mask of an object on a frame; pending until the next commit."""
        features = self.features(state, frame)
        exact = not self.options.reference_compatible
        if self.model.config.use_mask_input_as_output_without_sam:
            output = self.model.adopt_mask(features, prompt, trust_mask=exact)
        else:
            output = self._decode_mask(state, frame, object_id, prompt)
        track = state.tracks.get(object_id, ObjectTrack())
        is_initial = frame not in track.directions
        mask = (prompt.mask > 0.5).cpu() if exact else None
        adopted = prompt.mask if self.model.config.use_mask_input_as_output_without_sam else None
        record = self._shown(state, frame, track, output, painted=adopted)
        pending = Pending(record, is_initial, mask)
        self._await_commit(state, frame, object_id, Painted(), pending)

    def _decode_mask(
        self, state: VideoState, frame: int, object_id: ObjectId, prompt: MaskPrompt
    ) -> MaskOutput:
        """The variant of the config in which a painted mask is only a prompt."""
        track = state.tracks.get(object_id, ObjectTrack())
        is_initial = frame not in track.directions
        return self.model.decode(
            self._embedding(state, track, frame, is_initial=is_initial),
            self.features(state, frame).high_res,
            mask_logits=prompt.mask,
            multimask=self.model.use_multimask(is_initial=is_initial, num_points=0),
        )

    def _await_commit(
        self,
        state: VideoState,
        frame: int,
        object_id: ObjectId,
        prompt: PointPrompt | Painted,
        pending: Pending,
    ) -> None:
        track = state.tracks.setdefault(object_id, ObjectTrack())
        # A frame that is an anchor stays one, or its correction would be lost.
        is_anchor = (
            pending.is_anchor
            or frame in track.anchors
            or self.options.add_all_frames_to_correct_as_cond
        )
        track.await_commit(frame, prompt, replace(pending, is_anchor=is_anchor))

    def _embedding(
        self, state: VideoState, track: ObjectTrack, frame: int, *, is_initial: bool
    ) -> Tensor:
        """The frame in the light of what one object remembers."""
        features = self.features(state, frame)
        if is_initial or self.model.config.num_maskmem == 0:
            return self.model.condition(features, None)
        recall = self._recall(state, track, frame, backward=track.directions[frame])
        memory = self._gather(state, [track], [recall]) if recall.spatial else None
        return self.model.condition(features, memory)

    def _previous_mask(self, state: VideoState, track: ObjectTrack, frame: int) -> Tensor | None:
        record = track.record(frame)
        if record is None or record.mask_logits is None:
            return None
        logits = record.mask_logits.to(state.device)
        return logits.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)

    # -------------------------------------------------------------- commit

    def commit(self, state: VideoState) -> None:
        """Make a memory of every pending answer; objects prompted on the same frame go together."""
        frames = sorted({f for track in state.tracks.values() for f in track.pending})
        for frame in frames:
            tracks = [track for track in state.tracks.values() if frame in track.pending]
            logits = [self._pending_logits(track.pending[frame], state) for track in tracks]
            if self.options.non_overlap_masks_for_mem_enc:
                logits = self._apart(state, frame, tracks, logits)
            for batch in self._batches(range(len(tracks))):
                self._commit_batch(state, frame, [(tracks[i], logits[i]) for i in batch])

    def _commit_batch(
        self, state: VideoState, frame: int, batch: list[tuple[ObjectTrack, Tensor]]
    ) -> None:
        records = [track.pending[frame].record for track, _ in batch]
        memory = self._encode_memory(
            state,
            frame,
            torch.cat([logits for _, logits in batch]),
            torch.cat([record.scores[:, :1] for record in records]),
            binarize=self.options.binarize_mask_from_pts_for_mem_enc,
        )
        for i, (track, _) in enumerate(batch):
            track.commit(frame, None if memory is None else memory[i : i + 1].clone())
            self._forget_around(track, frame)

    def _pending_logits(self, pending: Pending, state: VideoState) -> Tensor:
        """Full-size logits of an answer: of the painted mask, or up-scaled from the record."""
        if pending.exact_mask is not None:
            return certain_logits(pending.exact_mask.to(state.device).float())
        assert pending.record.mask_logits is not None
        return self._full_size(pending.record.mask_logits.to(state.device))

    def _apart(
        self, state: VideoState, frame: int, tracks: list[ObjectTrack], logits: list[Tensor]
    ) -> list[Tensor]:
        """Full-size logits of some objects, each pixel left to one of all that a frame holds."""
        new = {id(track): one for track, one in zip(tracks, logits, strict=True)}
        holders, held = [], []
        for track in state.tracks.values():
            record = track.record(frame)
            if id(track) in new:
                holders.append(track)
                held.append(new[id(track)])
            elif record is not None and record.mask_logits is not None:
                holders.append(track)
                held.append(self._full_size(record.mask_logits.to(state.device)))
        shares = _one_owner_a_pixel(torch.cat(held), holders, frame).split(1)
        apart = {id(track): share for track, share in zip(holders, shares, strict=True)}
        return [apart[id(track)] for track in tracks]

    def _full_size(self, logits: Tensor) -> Tensor:
        side = self.model.image_size
        return enlarge(logits, (side, side))

    def _forget_around(self, track: ObjectTrack, frame: int) -> None:
        if self.options.clear_non_cond_mem_around_input:
            policy = self.policy
            track.forget_around(frame, policy.memory_temporal_stride_for_eval * policy.num_maskmem)

    # ---------------------------------------------------------------- step

    def step(self, state: VideoState, frame: int, *, backward: bool) -> TrackedFrame:
        """Bring all objects to a frame: replay what the user said there, track the others."""
        self.commit(state)
        # A track without anchors had its prompts taken back: there is nothing to track from.
        tracks = [track for track in state.tracks.values() if track.anchors]
        todo = [track for track in tracks if frame not in track.prompts]
        answers = self._track(state, frame, todo, backward=backward)
        # All at once, after the last network has run: a step that is interrupted leaves no trace.
        for track in tracks:
            track.directions[frame] = backward
            if frame in track.prompts:
                self._forget_around(track, frame)
        for track, record in zip(todo, answers, strict=True):
            track.tracked[frame] = record
        if self.policy.max_memory_frames is not None:
            for track in state.tracks.values():
                track.forget_beyond(frame, backward=backward, policy=self.policy)
        return self.view(state, frame)

    def _track(
        self, state: VideoState, frame: int, tracks: list[ObjectTrack], *, backward: bool
    ) -> list[FrameRecord]:
        """What becomes of each object on a frame; nothing is written yet."""
        recalls = [self._recall(state, track, frame, backward=backward) for track in tracks]
        groups: dict[object, list[int]] = {}
        for i, recall in enumerate(recalls):
            groups.setdefault(recall.layout, []).append(i)
        batches = [batch for group in groups.values() for batch in self._batches(group)]
        outputs = [
            self._decode_batch(state, frame, [tracks[i] for i in b], [recalls[i] for i in b])
            for b in batches
        ]
        records = [self._record(output, state) for output in outputs]
        logits = [self._remembered(*pair, state) for pair in zip(outputs, records, strict=True)]
        if self.options.non_overlap_masks_for_mem_enc and outputs:
            order = [tracks[i] for batch in batches for i in batch]
            full = [*self._full_size(torch.cat(logits)).split(1)]
            apart = torch.cat(self._apart(state, frame, order, full))
            logits = list(apart.split([len(batch) for batch in batches]))
        looks = {i: track.looks() for i, track in enumerate(tracks)}
        is_judged = self.options.appearance_weight > 0 and any(looks.values())
        cells = self._cells(state, frame) if is_judged else None
        answers: dict[int, FrameRecord] = {}
        for batch, record, output, memory_logits in zip(
            batches, records, outputs, logits, strict=True
        ):
            memory = self._encode_memory(
                state, frame, memory_logits, output.object_score, binarize=False
            )
            shown = replace(record, memory=memory)
            if cells is not None:
                shown = self._judged(cells, [looks[i] for i in batch], shown, state)
            answers.update(zip(batch, shown.split(), strict=True))
        return [answers[i] for i in range(len(tracks))]

    def _judged(
        self, cells: Cells, looks: list[Appearance | None], record: FrameRecord, state: VideoState
    ) -> FrameRecord:
        """The record of a batch with masks that heed what its objects look like."""
        together = stack_looks(looks)
        if together is None:
            return record
        together = Appearance(*(part.to(state.device) for part in together))
        assert record.mask_logits is not None
        logits = record.mask_logits.to(state.device)
        found = evidence(cells, together, surroundings(logits[:, 0] > 0))
        judged = logits + self.options.appearance_weight * found
        judged = fill_holes(judged, self.options.fill_hole_area)
        is_left = (judged > 0).flatten(1).any(dim=1)[:, None, None, None]
        logits = torch.where(is_left, judged, logits)
        return replace(record, mask_logits=logits.to(state.storage_device))

    def _shown(
        self,
        state: VideoState,
        frame: int,
        track: ObjectTrack,
        output: MaskOutput,
        painted: Tensor | None = None,
    ) -> FrameRecord:
        """The record of an answer to a prompt, with what the object looks like there.

        After clicks on a frame that cannot be read again, that stays as it was.
        """
        record = self._record(output, state)
        if not self.options.appearance_weight:
            return record
        looks = None
        cells = self._cells(state, frame)
        logits = output.mask_logits[0, 0]
        if cells is not None:
            share = torch.sigmoid(logits)
            if painted is not None:
                share = F.interpolate(painted.float(), logits.shape, mode="area")[0, 0]
            looks = learn(cells, share, surroundings(logits[None] > 0)[0])
        elif painted is None and (logits > 0).any() and (before := track.record(frame)):
            looks = before.looks
        if looks is None:
            return record
        return replace(record, **looks._asdict()).to(state.storage_device)

    def _cells(self, state: VideoState, frame: int) -> Cells | None:
        """A frame as its cells are judged; None where it cannot be read again."""
        picture = _picture_again(state, frame)
        if picture is None:
            return None
        side = 4 * self.model.grid_size
        return cells_of(picture, self.features(state, frame), (side, side))

    def _remembered(self, output: MaskOutput, record: FrameRecord, state: VideoState) -> Tensor:
        """The mask for the memory: before its holes are filled, as published, or after."""
        if self.options.reference_compatible:
            return output.mask_logits
        assert record.mask_logits is not None
        return record.mask_logits.to(state.device)

    def _decode_batch(
        self, state: VideoState, frame: int, tracks: list[ObjectTrack], recalls: list[Recall]
    ) -> MaskOutput:
        features = self.features(state, frame)
        if self.model.config.num_maskmem == 0:
            embedding = self.model.condition(features, None).expand(len(tracks), -1, -1, -1)
        else:
            embedding = self.model.condition(features, self._gather(state, tracks, recalls))
        multimask = self.model.use_multimask(is_initial=False, num_points=0)
        return self.model.decode(embedding, features.high_res, multimask=multimask)

    def _recall(
        self, state: VideoState, track: ObjectTrack, frame: int, *, backward: bool
    ) -> Recall:
        return track.recall(
            frame, num_frames=state.known_frames, backward=backward, policy=self.policy
        )

    def _gather(
        self, state: VideoState, tracks: Sequence[ObjectTrack], recalls: Sequence[Recall]
    ) -> MemoryTokens:
        """Stack what objects with one layout recall; one operator whatever their number."""
        slots, offsets = recalls[0].layout
        pairs = list(zip(tracks, recalls, strict=True))
        maps = [track.recalled(f).memory for track, recall in pairs for f, _ in recall.spatial]
        memories = [m.to(state.device) for m in maps if m is not None]
        spatial = torch.cat(memories).unflatten(0, (len(tracks), len(slots)))
        if not (self.model.config.use_obj_ptrs_in_encoder and offsets):
            return MemoryTokens(spatial, slots)
        pointers = [
            track.recalled(f).pointer for track, recall in pairs for f, _ in recall.pointers
        ]
        stacked = torch.cat(pointers).unflatten(0, (len(tracks), len(offsets)))
        return MemoryTokens(spatial, slots, stacked, offsets)

    def _encode_memory(
        self,
        state: VideoState,
        frame: int,
        logits: Tensor,
        object_score: Tensor,
        *,
        binarize: bool,
    ) -> Tensor | None:
        if self.model.config.num_maskmem == 0:
            return None
        memory = self.model.encode_memory(
            self.features(state, frame), logits, object_score, binarize=binarize
        )
        return memory.to(getattr(torch, self.options.memory_dtype)).to(state.storage_device)

    def _record(self, output: MaskOutput, state: VideoState) -> FrameRecord:
        logits = fill_holes(output.mask_logits, self.options.fill_hole_area)
        return FrameRecord.from_output(output, logits).to(state.storage_device)

    def _batches(self, items: Sequence[T], most: int | None = None) -> Iterator[Sequence[T]]:
        """Cut a group into passes: one object at a time on a CPU, where batches measured slower."""
        size = self.options.object_batch
        if size is None:
            size = 1 if self.model.device.type == "cpu" else len(items)
        if most is not None:
            size = min(size, most)
        for start in range(0, len(items), max(size, 1)):
            yield items[start : start + size]

    # ---------------------------------------------------------------- view

    def view(self, state: VideoState, frame: int) -> TrackedFrame:
        """Masks of all objects on a frame in video pixels; where one is unknown, scores are NaN."""
        records = [track.record(frame) for track in state.tracks.values()]
        side = self.model.sam_prompt_encoder.mask_input_size
        logits, scores = [], []
        for record in records:
            if record is not None and record.mask_logits is not None:
                logits.append(record.mask_logits.to(state.device))
                scores.append(record.scores)
            else:  # not tracked there yet, or forgotten
                logits.append(torch.full((1, 1, *side), NO_OBJECT_LOGIT, device=state.device))
                scores.append(torch.full((1, 3), torch.nan, device=state.device))
        if not records:
            height, width = state.video_size
            masks = torch.zeros(0, 1, height, width, device=state.device)
            return TrackedFrame(frame, [], masks, torch.zeros(0, 3, device=state.device))
        masks = self._in_video_pixels(state, frame, torch.cat(logits))
        if self.options.non_overlap_masks:
            masks = _one_owner_a_pixel(masks, [*state.tracks.values()], frame)
        return TrackedFrame(frame, state.obj_ids, masks, torch.cat(scores))

    def _in_video_pixels(self, state: VideoState, frame: int, coarse: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of all objects, those of tracked ones along the edges of the frame.

        What was prompted stays as it was answered.
        """
        reach = self.options.edge_reach
        if reach is None:
            return enlarge(coarse, state.video_size)
        is_there = (coarse > 0).flatten(1).any(dim=1).tolist()
        found = [
            i
            for i, track in enumerate(state.tracks.values())
            if is_there[i] and frame not in track.prompts
        ]
        picture = _picture_again(state, frame) if found else None
        if picture is None:
            return enlarge(coarse, state.video_size)
        masks = coarse.new_empty(len(coarse), 1, *state.video_size)
        others = sorted({*range(len(coarse))} - {*found})
        masks[others] = enlarge(coarse[others], state.video_size)
        for batch in self._batches(found, most=EDGES_A_PASS):
            fine = follow_edges(coarse[list(batch)], picture, reach)
            masks[list(batch)] = enlarge(fine, state.video_size)
        return masks


def _picture_again(state: VideoState, frame: int) -> Tensor | None:
    """A frame that was read before, [3, S, S] in 0..1; None where it is gone."""
    if state.is_closed:
        return None
    try:
        square = state.images.get(frame)
    except (IndexError, ValueError):
        return None
    return frame_pixels(square, state.device)


def _one_owner_a_pixel(logits: Tensor, tracks: Sequence[ObjectTrack], frame: int) -> Tensor:
    """`non_overlapping` for logits [N, 1, H, W] of objects on a frame; painted ones go first."""
    painted = [isinstance(track.prompts.get(frame), Painted) for track in tracks]
    is_painted = torch.tensor(painted, device=logits.device)[:, None, None, None]
    taken = ((logits > 0) & is_painted).any(dim=0, keepdim=True)
    left = torch.where(taken & ~is_painted, logits.clamp(max=OVERLAP_LOGIT), logits)
    return non_overlapping(left)
