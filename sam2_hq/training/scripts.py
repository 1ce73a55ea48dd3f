"""Write what happens in a training clip: which pictures, where, and how they move.

A script is plain numbers, drawn on the host; `stage.py` plays it on the device. A still is a clip
of one frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam2_hq.training.geometry import (
    BEND_POINTS,
    Box,
    Matrix,
    Pose,
    box_in_picture,
    place,
    smooth_path,
    translation,
    turn,
    view,
)
from sam2_hq.training.packs import Ids, Pack

Ground = Literal["photos", "backgrounds", "clips"]


@dataclass
class Actor:
    """One thing in front of the ground.

    origin: a cut-out with exact alpha, or an object of a photo.
    matrices: [T, 3, 3] from the output to the square of its picture.
    bends: [T, 2, P] shifts of control points.
    gain: [3] factor on its colours.
    """

    origin: Literal["cutouts", "photos"]
    picture: int
    ids: Ids
    matrices: NDArray[np.float64]
    bends: NDArray[np.float64]
    gain: NDArray[np.float64]


@dataclass
class Script:
    """One clip.

    pictures: picture of the ground for each frame. matrices: [T, 3, 3].
    objects: objects of the ground that have a mask, as sets of ids.
    actors: from back to front.
    slots: what each object of the batch is: number in `objects`, then in `actors` after them.
    """

    ground: Ground
    pictures: list[int]
    matrices: NDArray[np.float64]
    objects: list[Ids] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class SceneOptions:
    """What a clip is made of.

    photos, composites, clips: how often each kind comes, in any unit; clips are real ones.
    max_actors: cut-outs in a composite, at most.
    photo_actors: share of actors that are objects cut from photos (hard masks).
    visitors: chance that a photo or a real clip gets an actor in front.
    whole: chance to see a whole picture squashed, as the predictor does.
    thin_power: cut-outs are drawn in proportion to thin ** thin_power; 0 draws them evenly.
    still: chance that a thing does not move.
    """

    photos: float = 0.6
    composites: float = 0.4
    clips: float = 0.0
    max_actors: int = 4
    photo_actors: float = 0.15
    visitors: float = 0.15
    whole: float = 0.3
    thin_power: float = 0.0
    still: float = 0.15


class ScriptWriter:
    """Draws scripts from packs. Owns no pixels and no random state."""

    def __init__(
        self,
        *,
        photos: Pack | None,
        cutouts: Pack | None,
        backgrounds: Pack | None,
        clips: Pack | None,
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
            return self._film(num_frames, rng)
        if kind == "photos":
            return self._photo(num_frames, rng)
        return self._composite(num_frames, rng)

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

    def _photo(self, num_frames: int, rng: np.random.Generator) -> Script:
        pack = self._pack("photos")
        number = int(rng.integers(len(pack)))
        targets = pack.targets[number]
        order = _objects_first_unions(targets, rng)[: self.max_objects]
        chosen = [targets[i] for i in order]
        height, width = (float(one) for one in pack.sizes[number])
        window = self._window(chosen[0].box, (height, width), rng)
        matrices = self._camera(window, (height, width), num_frames, rng)
        script = Script("photos", [number] * num_frames, matrices, [one.ids for one in chosen])
        if self.cutouts is not None and rng.random() < self.options.visitors:
            self._add_actors(script, 1, _aspect(window), rng)
        return self._cast(script, rng)

    def _film(self, num_frames: int, rng: np.random.Generator) -> Script:
        pack = self._pack("clips")
        frames = pack.clips[int(rng.integers(len(pack.clips)))]
        stride = int(rng.integers(1, 4))
        stride = max(1, min(stride, (len(frames) - 1) // max(num_frames - 1, 1)))
        start = int(rng.integers(max(len(frames) - stride * (num_frames - 1), 1)))
        # A clip shorter than asked runs back and forth.
        steps = [_bounce(start + stride * i, len(frames)) for i in range(num_frames)]
        if rng.random() < 0.5:
            steps.reverse()
        pictures = [frames[i] for i in steps]
        height, width = (float(one) for one in pack.sizes[pictures[0]])
        targets = pack.targets[pictures[0]]
        seen = [one for one in targets if any(one.box)] or targets
        window = self._window(seen[0].box, (height, width), rng)
        matrices = self._camera(window, (height, width), num_frames, rng, speed=0.004)
        script = Script("clips", pictures, matrices, [one.ids for one in targets])
        if self.cutouts is not None and rng.random() < self.options.visitors:
            self._add_actors(script, 1, _aspect(window), rng)
        return self._cast(script, rng)

    def _composite(self, num_frames: int, rng: np.random.Generator) -> Script:
        grounds: list[Ground] = ["photos", "backgrounds"]
        grounds = [name for name in grounds if self.packs[name] is not None]
        ground = grounds[int(rng.integers(len(grounds)))]
        pack = self._pack(ground)
        number = int(rng.integers(len(pack)))
        height, width = (float(one) for one in pack.sizes[number])
        window = self._window((0, 0, int(width), int(height)), (height, width), rng)
        matrices = self._camera(window, (height, width), num_frames, rng)
        script = Script(ground, [number] * num_frames, matrices)
        count = int(rng.integers(1, self.options.max_actors + 1))
        self._add_actors(script, count, _aspect(window), rng)
        return self._cast(script, rng)

    def _pack(self, name: Ground) -> Pack:
        pack = self.packs[name]
        assert pack is not None, name
        return pack

    def _window(
        self, box: tuple[int, int, int, int], size: tuple[float, float], rng: np.random.Generator
    ) -> Box:
        """A crop in picture pixels that shows at least part of `box`."""
        height, width = size
        if rng.random() < self.options.whole:
            return (0.0, 0.0, width, height)
        zoom = math.exp(rng.uniform(math.log(0.35), math.log(1.25)))
        stretch = math.exp(rng.uniform(-0.35, 0.35))
        shown_w, shown_h = width * zoom * stretch, height * zoom / stretch
        x = rng.uniform(box[0], box[2]) + rng.uniform(-0.3, 0.3) * shown_w
        y = rng.uniform(box[1], box[3]) + rng.uniform(-0.3, 0.3) * shown_h
        x, y = _inward(x, shown_w, width), _inward(y, shown_h, height)
        return (x - shown_w / 2, y - shown_h / 2, x + shown_w / 2, y + shown_h / 2)

    def _camera(
        self,
        window: Box,
        size: tuple[float, float],
        num_frames: int,
        rng: np.random.Generator,
        *,
        speed: float = 0.02,
    ) -> NDArray[np.float64]:
        """Where each frame looks at the ground: [T, 3, 3]."""
        angle = rng.normal(0, 0.15) if rng.random() < 0.5 else 0.0
        first = view(window, size, angle=angle, mirrored=bool(rng.random() < 0.5))
        if num_frames == 1 or rng.random() < self.options.still:
            return np.repeat(first[None], num_frames, 0)
        path = smooth_path(rng, num_frames, 4, speed=speed)
        moves = [_move(x, y, math.exp(zoom), turned) for x, y, zoom, turned in path]
        return np.stack([first @ move for move in moves])

    def _add_actors(
        self, script: Script, count: int, window_aspect: float, rng: np.random.Generator
    ) -> None:
        num_frames = len(script.pictures)
        for number in range(count):
            is_twin = number > 0 and rng.random() < 0.2
            if is_twin:
                model = script.actors[-1]
                origin, picture, ids = model.origin, model.picture, model.ids
            else:
                origin, picture, ids = self._choose_actor(rng)
            script.actors.append(
                Actor(
                    origin,
                    picture,
                    ids,
                    self._motion(origin, picture, ids, num_frames, window_aspect, rng),
                    _bending(num_frames, rng),
                    rng.uniform(0.8, 1.2) * rng.uniform(0.9, 1.1, 3),
                )
            )

    def _choose_actor(
        self, rng: np.random.Generator
    ) -> tuple[Literal["cutouts", "photos"], int, Ids]:
        photos = self.packs["photos"]
        if photos is not None and rng.random() < self.options.photo_actors:
            number = int(rng.integers(len(photos)))
            targets = photos.targets[number]
            return "photos", number, targets[_objects_first_unions(targets, rng)[0]].ids
        assert self.cutouts is not None
        return "cutouts", int(rng.choice(len(self.cutouts), p=self.cutout_share)), frozenset()

    def _motion(
        self,
        origin: str,
        picture: int,
        ids: Ids,
        num_frames: int,
        window_aspect: float,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """[T, 3, 3] from the output to the actor's picture."""
        box, size = self._extent(origin, picture, ids)
        aspect = (box[2] - box[0]) / (box[3] - box[1])
        inner = box_in_picture(box, size)
        poses = _poses(num_frames, rng, still=self.options.still)
        placed = [place(pose, aspect=aspect, window_aspect=window_aspect) for pose in poses]
        return np.stack([inner @ np.linalg.inv(one) for one in placed])

    def _extent(self, origin: str, picture: int, ids: Ids) -> tuple[Box, tuple[float, float]]:
        pack = self.cutouts if origin == "cutouts" else self.packs["photos"]
        assert pack is not None
        height, width = (float(one) for one in pack.sizes[picture])
        box: Box = (0.0, 0.0, width, height)
        for target in pack.targets[picture]:
            if target.ids == ids:
                box = target.box
        return box, (height, width)

    def _cast(self, script: Script, rng: np.random.Generator) -> Script:
        """Choose who is asked for: any object of the ground and any actor, up to the slots."""
        count = len(script.objects) + len(script.actors)
        script.slots = [int(i) for i in rng.permutation(count)[: self.max_objects]]
        return script


def _objects_first_unions(targets: list, rng: np.random.Generator) -> list[int]:
    """A random order of the targets in which unions come early half of the time."""
    order = [int(i) for i in rng.permutation(len(targets))]
    if rng.random() < 0.5:
        order.sort(key=lambda i: len(targets[i].ids) == 1)
    return order


def _poses(num_frames: int, rng: np.random.Generator, *, still: float) -> list[Pose]:
    size = math.exp(rng.uniform(math.log(0.12), math.log(0.75)))
    reach = max(0.2, 1.05 - 0.6 * size)
    x, y = rng.uniform(-reach, reach, 2)
    angle = rng.normal(0, 0.4) if rng.random() < 0.7 else rng.uniform(-math.pi, math.pi)
    shear, mirrored = rng.normal(0, 0.12), bool(rng.random() < 0.5)
    path = np.zeros((num_frames, 4))
    if num_frames > 1 and rng.random() >= still:
        speed = math.exp(rng.uniform(math.log(0.01), math.log(0.15)))
        path = smooth_path(rng, num_frames, 4, speed=speed) * [1, 1, 0.4, 0.8]
        path[:, :2] += _excursion(num_frames, rng)
    return [
        Pose(x + dx, y + dy, size * math.exp(float(np.clip(grow, -0.7, 0.7))), angle + da, shear, mirrored)
        for dx, dy, grow, da in path
    ]


def _excursion(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mostly none; else out of sight and back, or out for good: [T, 2]."""
    chance = rng.random()
    if num_frames < 3 or chance > 0.2:
        return np.zeros((num_frames, 2))
    heading = rng.uniform(0, 2 * math.pi)
    time = np.linspace(0, 1, num_frames)
    far = np.sin(math.pi * time) ** 2 if chance < 0.14 else time**2
    return 2.6 * far[:, None] * np.array([math.cos(heading), math.sin(heading)])


def _bending(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[T, 2, P]: a lasting bend, and one that comes and goes."""
    count = BEND_POINTS**2
    lasting = rng.normal(0, 0.05, (2, count)) * (rng.random() < 0.5)
    swing = rng.normal(0, 0.06, (2, count)) * (rng.random() < 0.5)
    rate, phase = rng.uniform(0.3, 1.2), rng.uniform(0, 2 * math.pi)
    return lasting + swing * np.sin(rate * np.arange(num_frames) + phase)[:, None, None]


def _move(x: float, y: float, zoom: float, angle: float) -> Matrix:
    return translation(x, y) @ turn(angle, 0.0, mirrored=False) @ np.diag([zoom, zoom, 1.0])


def _inward(middle: float, shown: float, side: float) -> float:
    """Move a window inside where it fits, else over the whole side."""
    low, high = sorted((shown / 2, side - shown / 2))
    return float(np.clip(middle, low, high))


def _aspect(window: Box) -> float:
    return (window[2] - window[0]) / (window[3] - window[1])


def _bounce(step: int, length: int) -> int:
    if length == 1:
        return 0
    step %= 2 * (length - 1)
    return min(step, 2 * (length - 1) - step)
