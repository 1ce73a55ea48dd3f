"""Write what happens in a training clip: which pictures, where, and how they move.

A script is plain numbers, drawn on the host; `pack_source.py` plays it on the device. A still is a
clip of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam2_hq.checks import check_counts, check_shares
from sam2_hq.training.camera import aspect_of, draw_camera, draw_window
from sam2_hq.training.fronts import Front, draw_front, pass_behind
from sam2_hq.training.gallery import Gallery, Ids, IntBox, Target
from sam2_hq.training.geometry import BEND_POINTS, Box, Pose, box_in_picture, place
from sam2_hq.training.motion import (
    LARGEST,
    MIN_FRAMES_TO_LEAVE,
    WANDERING,
    draw_bends,
    draw_pose,
    draw_speed,
    draw_twin,
    move,
)

MAX_STRIDE = 3
"""Frames of a real clip are taken at most so far apart."""

PAN = 0.02
"""Typical camera move over a still, from frame to frame; the output is 2 wide."""
SHAKE = 0.004
"""The same over a real clip, which moves by itself."""

Ground = Literal["photos", "backgrounds", "clips"]


class Part(NamedTuple):
    """A thing to paste: a cut-out with exact alpha, or an object of a photo with a hard mask."""

    origin: Literal["cutouts", "photos"]
    picture: int
    ids: Ids
    box: IntBox


@dataclass(frozen=True)
class Actor:
    """A part in front of the ground.

    matrices: [T, 3, 3] from the output to the square of its picture.
    bends: [T, 2, P] shifts of control points.
    gain: [3] factor on its colours.
    """

    part: Part
    matrices: NDArray[np.float64]
    bends: NDArray[np.float64]
    gain: NDArray[np.float64]


@dataclass
class Script:
    """One clip.

    pictures: picture of the ground for each frame.
    matrices: [T, 3, 3] from the output to the square of the ground's picture.
    bends: [T, 2, P] shifts of control points of the ground.
    objects: objects of the ground that have a mask, as sets of ids.
    actors: from back to front.
    front: a piece of the ground in front of all actors.
    slots: what each object of the batch is: number in `objects`, then in `actors` after them.
    """

    ground: Ground
    pictures: list[int]
    matrices: NDArray[np.float64]
    bends: NDArray[np.float64]
    objects: list[Ids] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    front: Front | None = None
    slots: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class SceneOptions:
    """What a clip is made of.

    photos, composites, clips: how often each kind comes, in any unit; clips are real ones.
    max_actors: cut-outs in a composite, at most.
    photo_actors: share of actors that are objects cut from photos (hard masks).
    visitors: chance that a photo or a real clip gets an actor in front.
    unions: chance that unions of parts (a person, not the shirt) of a photo go before its parts.
    whole: chance to see a whole picture squashed, as the predictor does.
    min_zoom, max_zoom: else a window of so many times its sides; beyond 1 there is a margin.
    ground_objects: chance that an object of the photo behind a composite is asked for too.
    thin_power: cut-outs are drawn in proportion to thin ** thin_power; 0 draws them evenly.
    twins: chance that the next actor is the last one again, slightly changed.
    still: chance that a thing does not move.
    fronts: chance, where there are actors and three frames or more, that one of them goes behind a
        piece of the ground.
    smallest_actor: size of actors at least, but for twins; 1 fills the picture.
    fast_camera: chance that a camera over a still moves as fast as actors.
    """

    photos: float = 0.6
    composites: float = 0.4
    clips: float = 0.0
    max_actors: int = 4
    photo_actors: float = 0.15
    visitors: float = 0.15
    unions: float = 0.5
    whole: float = 0.3
    min_zoom: float = 0.35
    max_zoom: float = 1.15
    ground_objects: float = 0.3
    thin_power: float = 0.0
    twins: float = 0.2
    still: float = 0.15
    fronts: float = 0.0
    smallest_actor: float = 0.12
    fast_camera: float = 0.0

    def __post_init__(self) -> None:
        check_shares(
            vars(self),
            *("photo_actors", "visitors", "unions", "whole", "ground_objects", "twins", "still"),
            *("fronts", "fast_camera"),
        )
        check_counts(vars(self), "max_actors", least=1)
        if not 0 < self.min_zoom <= self.max_zoom:
            raise ValueError(
                "min_zoom must be above 0 and at most max_zoom, "
                f"got {self.min_zoom} and {self.max_zoom}"
            )
        if not 0 < self.smallest_actor <= LARGEST:
            raise ValueError(
                f"smallest_actor must be above 0 and at most {LARGEST}, got {self.smallest_actor}"
            )


class ScriptWriter:
    """Draws scripts from packs. Owns no pixels and no random state."""

    def __init__(
        self,
        *,
        photos: Gallery | None,
        cutouts: Gallery | None,
        backgrounds: Gallery | None,
        clips: Gallery | None,
        options: SceneOptions,
        max_objects: int,
    ) -> None:
        """Take the packs at hand.

        Raises:
            ValueError: if the mix needs a pack that is not given.
        """
        self.packs = {"photos": photos, "backgrounds": backgrounds, "clips": clips}
        self.cutouts = cutouts
        self.options = options
        self.max_objects = max_objects
        self.kinds = {"photos": options.photos, "clips": options.clips}
        self.kinds["composites"] = options.composites
        self._check()
        if cutouts is not None:
            thin = np.array([float(one.get("thin", 1.0)) for one in cutouts.entries])
            self.cutout_share = thin**options.thin_power / (thin**options.thin_power).sum()

    def write(self, num_frames: int, rng: np.random.Generator) -> Script:
        """Draw one script of `num_frames` frames."""
        weights = np.array(list(self.kinds.values()))
        kind = str(rng.choice(list(self.kinds), p=weights / weights.sum()))
        if kind == "clips":
            number = int(rng.integers(len(self._pack("clips").clips)))
            return self.write_film(number, num_frames, rng)
        if kind == "photos":
            return self.write_photo(int(rng.integers(len(self._pack("photos")))), num_frames, rng)
        return self._composite(num_frames, rng)

    def write_photo(self, number: int, num_frames: int, rng: np.random.Generator) -> Script:
        """One photo under a moving camera, maybe with something in front."""
        pack = self._pack("photos")
        chosen = self._shuffled(pack.targets[number], rng)[: self.max_objects]
        script, aspect = self._still_ground("photos", number, chosen, num_frames, rng)
        self._visit(script, aspect, rng)
        return self._cast(script, rng)

    def write_film(self, number: int, num_frames: int, rng: np.random.Generator) -> Script:
        """A real clip, one crop for all frames with a slight shake."""
        pack = self._pack("clips")
        pictures = choose_frames(pack.clips[number], num_frames, rng)
        height, width = (float(one) for one in pack.sizes[pictures[0]])
        targets = self._shuffled(pack.targets[pictures[0]], rng)
        targets.sort(key=lambda one: not any(one.box))
        box = targets[0].box if any(targets[0].box) else (0, 0, int(width), int(height))
        window = self._draw_window(box, (height, width), rng)
        script = Script(
            "clips",
            pictures,
            draw_camera(window, (height, width), num_frames, rng, still=0.5, speed=SHAKE),
            np.zeros((num_frames, 2, BEND_POINTS**2)),
            [one.ids for one in targets[: self.max_objects]],
        )
        self._visit(script, aspect_of(window), rng)
        return self._cast(script, rng)

    def _check(self) -> None:
        given = {name for name, pack in self.packs.items() if pack is not None}
        if min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise ValueError(f"options must mix kinds by positive weights, got {self.kinds}")
        for name in ("photos", "clips"):
            if self.kinds[name] and name not in given:
                raise ValueError(f"options ask for {name}, but no pack of {name} is given")
        if self.kinds["composites"] and (self.cutouts is None or not given - {"clips"}):
            raise ValueError(
                "options ask for composites: packs of cutouts and of photos or backgrounds "
                "are needed"
            )

    def _composite(self, num_frames: int, rng: np.random.Generator) -> Script:
        names: tuple[Ground, ...] = ("photos", "backgrounds")
        given = [name for name in names if self.packs[name] is not None]
        ground = given[int(rng.integers(len(given)))]
        number = int(rng.integers(len(self._pack(ground))))
        targets = self._shuffled(self._pack(ground).targets[number], rng)
        chosen = targets[:1] if rng.random() < self.options.ground_objects else []
        script, aspect = self._still_ground(ground, number, chosen, num_frames, rng)
        count = int(rng.integers(1, self.options.max_actors + 1))
        self._add_actors(script, count, aspect, rng)
        return self._cast(script, rng)

    def _still_ground(
        self,
        ground: Ground,
        number: int,
        chosen: Sequence[Target],
        num_frames: int,
        rng: np.random.Generator,
    ) -> tuple[Script, float]:
        """A picture under a moving camera, and the aspect of what it shows."""
        height, width = (int(one) for one in self._pack(ground).sizes[number])
        box = chosen[0].box if chosen else (0, 0, width, height)
        window = self._draw_window(box, (height, width), rng)
        is_fast = num_frames > 1 and rng.random() < self.options.fast_camera
        speed = draw_speed(rng) * WANDERING if is_fast else PAN
        script = Script(
            ground,
            [number] * num_frames,
            draw_camera(
                window, (height, width), num_frames, rng, still=self.options.still, speed=speed
            ),
            draw_bends(num_frames, rng),
            [one.ids for one in chosen],
        )
        return script, aspect_of(window)

    def _draw_window(self, box: Box, size: tuple[float, float], rng: np.random.Generator) -> Box:
        zoom = (self.options.min_zoom, self.options.max_zoom)
        return draw_window(box, size, rng, whole=self.options.whole, zoom=zoom)

    def _visit(self, script: Script, aspect: float, rng: np.random.Generator) -> None:
        if self.cutouts is not None and rng.random() < self.options.visitors:
            self._add_actors(script, 1, aspect, rng)

    def _pack(self, name: Ground) -> Gallery:
        pack = self.packs[name]
        assert pack is not None, name
        return pack

    def _add_actors(
        self, script: Script, count: int, window_aspect: float, rng: np.random.Generator
    ) -> None:
        """Each next actor stands in front of those before; some look like the one before."""
        num_frames = len(script.pictures)
        pose, part = None, None
        hider = None
        if num_frames >= MIN_FRAMES_TO_LEAVE and rng.random() < self.options.fronts:
            hider = int(rng.integers(count))
        for number in range(count):
            if pose is not None and part is not None and rng.random() < self.options.twins:
                pose = draw_twin(pose, rng)
            else:
                pose = draw_pose(rng, smallest=self.options.smallest_actor)
                part = self._choose_part(rng)
            way = None
            if number == hider:
                script.front = draw_front(pose, rng)
                way = pass_behind(pose, script.front, num_frames, rng)
            poses = move(pose, num_frames, rng, still=self.options.still, way=way)
            script.actors.append(
                Actor(
                    part,
                    self._carry(part, poses, window_aspect),
                    draw_bends(num_frames, rng),
                    rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3),
                )
            )

    def _choose_part(self, rng: np.random.Generator) -> Part:
        photos = self.packs["photos"]
        if photos is not None and rng.random() < self.options.photo_actors:
            number = int(rng.integers(len(photos)))
            target = self._shuffled(photos.targets[number], rng)[0]
            return Part("photos", number, target.ids, target.box)
        assert self.cutouts is not None
        number = int(rng.choice(len(self.cutouts), p=self.cutout_share))
        height, width = (int(one) for one in self.cutouts.sizes[number])
        return Part("cutouts", number, frozenset(), (0, 0, width, height))

    def _carry(
        self, part: Part, poses: Sequence[Pose], window_aspect: float
    ) -> NDArray[np.float64]:
        """[T, 3, 3] from the output to the picture of the part."""
        pack = self.cutouts if part.origin == "cutouts" else self.packs["photos"]
        assert pack is not None
        height, width = pack.sizes[part.picture]
        inner = box_in_picture(part.box, (height, width))
        x0, y0, x1, y1 = part.box
        aspect = (x1 - x0) / (y1 - y0)
        placed = [place(pose, aspect=aspect, window_aspect=window_aspect) for pose in poses]
        return np.stack([inner @ np.linalg.inv(one) for one in placed])

    def _shuffled(self, targets: Sequence[Target], rng: np.random.Generator) -> list[Target]:
        """The targets in a random order, in which unions may come first."""
        order = [targets[i] for i in rng.permutation(len(targets))]
        if rng.random() < self.options.unions:
            order.sort(key=lambda one: len(one.ids) == 1)
        return order

    def _cast(self, script: Script, rng: np.random.Generator) -> Script:
        """Choose who is asked for: any object of the ground and any actor, up to the slots."""
        count = len(script.objects) + len(script.actors)
        script.slots = [int(i) for i in rng.permutation(count)[: self.max_objects]]
        return script


def choose_frames(frames: Sequence[int], num_frames: int, rng: np.random.Generator) -> list[int]:
    """Take every first to third frame from a random start, forward or backward."""
    longest = (len(frames) - 1) // max(num_frames - 1, 1)
    stride = max(1, min(int(rng.integers(1, MAX_STRIDE + 1)), longest))
    start = int(rng.integers(max(len(frames) - stride * (num_frames - 1), 1)))
    # A clip shorter than asked runs back and forth.
    steps = [_bounce(start + stride * i, len(frames)) for i in range(num_frames)]
    if rng.random() < 0.5:
        steps.reverse()
    return [frames[i] for i in steps]


def _bounce(step: int, length: int) -> int:
    if length == 1:
        return 0
    step %= 2 * (length - 1)
    return min(step, 2 * (length - 1) - step)
