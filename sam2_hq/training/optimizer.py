"""How weights move: groups with their own rates, warm-up and cosine, and an average to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sam2_hq.checks import check_numbers, check_shares

ENCODER = "image_encoder."
TRUNK = ENCODER + "trunk."
BLOCK = TRUNK + "blocks."

MIN_MATRIX_SIDE = 16
"""Thinner matrices are read-outs, such as those of IoUs and scores; AdamW takes them."""


class _Role(NamedTuple):
    """What decides rate and decay of a parameter, whatever these are."""

    is_encoder: bool
    depth: int
    decays: bool


Groups = dict[_Role, dict[str, nn.Parameter]]


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW, maybe with Muon, and the schedule.

    lr: highest learning rate; encoder_lr: that of the image encoder, None for the same.
    warmup: share of the run in which the rate rises; final: last rate as a share of the highest.
    layer_decay: factor a trunk block below the one above it.
    ema: decay of the moving average of the weights, which is what a run writes.
    start_share: share of the weights that the run began with in what it writes; what a long run
        unlearns comes back with it (WiSE-FT, Wortsman et al. 2022).
    muon: let the matrices of hidden layers learn by Muon (torch 2.9 or newer) at the same rates.
    frozen: patterns of parameter names that do not learn.
    """

    lr: float = 1e-3
    encoder_lr: float | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    max_gradient_norm: float = 1.0
    warmup: float = 0.03
    final: float = 0.02
    ema: float = 0.998
    start_share: float = 0.0
    muon: bool = False
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shares(vars(self), "start_share", "ema", "warmup", "final", "layer_decay")
        check_numbers(vars(self), "lr", "weight_decay", least=0)
        if self.encoder_lr is not None:
            check_numbers(vars(self), "encoder_lr", least=0)
        if not self.max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm must be above 0, got {self.max_gradient_norm}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}")


def teach_only(model: nn.Module, is_taught: Callable[[str], bool]) -> None:
    """Freeze the parameters whose name is not taught; those frozen before stay so."""
    for name, parameter in model.named_parameters():
        if not is_taught(name):
            parameter.requires_grad_(False)


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Let parameters whose name matches a pattern keep their value, and all others learn.

    Raises:
        ValueError: if a pattern matches nothing, or nothing is left to learn.
    """
    patterns = list(patterns)
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"frozen must match parameters, got {pattern!r} which matches none")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatchcase(name, p) for p in patterns))
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"frozen must leave something to learn, got {patterns}")


class Optimizers:
    """Optimizers of disjoint parameters that step as one."""

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        self.members = {type(one).__name__: one for one in members}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for one in self.members.values() for group in one.param_groups]

    def step(self) -> None:
        """Let each take its step."""
        for one in self.members.values():
            one.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for one in self.members.values():
            one.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of each, under its name."""
        return {name: one.state_dict() for name, one in self.members.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier state; rates, decays and betas stay those of this run's options.

        Raises:
            ValueError: if other optimizers wrote it.
        """
        if set(state) != set(self.members):
            raise ValueError(
                f"the state must be of the optimizers {sorted(self.members)}, got {sorted(state)}: "
                "go on with the options that the run began with"
            )
        for name, one in self.members.items():
            own, given = _names(one.state_dict()), _names(state[name])
            if own != given:
                others = sorted(set(own) ^ set(given))
                raise ValueError(
                    f"the state of {name} must be of the parameters that learn, got another "
                    f"choice or order ({', '.join(others[:3]) or 'same names'}): go on with the "
                    "options that the run began with"
                )
            options = [_options_of(group) for group in one.param_groups]
            one.load_state_dict(state[name])  # replaces the options of the groups too
            for group, own_options in zip(one.param_groups, options, strict=True):
                group.update(own_options)


def _options_of(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _names(state: Mapping[str, Any]) -> list[str]:
    return [name for group in state["param_groups"] for name in group["names"]]


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> Optimizers:
    """AdamW, and Muon if asked for, over what learns; groups carry their highest rate as `peak_lr`.

    Raises:
        ValueError: if nothing learns, or Muon is asked for and this version of torch has none.
    """
    plain: Groups = {}
    matrices: Groups = {}
    tables = _tables(model)
    num_blocks = 1 + max((_block(name) for name, _ in model.named_parameters()), default=-1)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in tables
        role = _Role(name.startswith(ENCODER), _depth(name, num_blocks), decays)
        is_matrix = decays and parameter.ndim == 2 and min(parameter.shape) >= MIN_MATRIX_SIDE
        groups = matrices if options.muon and is_matrix else plain
        groups.setdefault(role, {})[name] = parameter
    members: list[torch.optim.Optimizer] = []
    if plain:
        described = _described(plain, options)
        members.append(torch.optim.AdamW(described, lr=options.lr, betas=options.betas, fused=True))
    if matrices:
        members.append(_muon(_described(matrices, options), options))
    if not members:
        raise ValueError(
            f"frozen must leave something that this stage teaches, got {list(options.frozen)}"
        )
    return Optimizers(members)


def _muon(groups: list[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    """Scaled to the step length of AdamW, so that both take the same rates."""
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer.muon needs torch 2.9 or newer, got {torch.__version__}")
    return torch.optim.Muon(groups, lr=options.lr, adjust_lr_fn="match_rms_adamw")


def _described(groups: Groups, options: OptimizerOptions) -> list[dict[str, Any]]:
    described = []
    for role, members in groups.items():
        own = options.encoder_lr if role.is_encoder else None
        rate = (options.lr if own is None else own) * options.layer_decay**role.depth
        decay = options.weight_decay if role.decays else 0.0
        described.append(
            {
                "params": list(members.values()),
                "names": list(members),
                "lr": rate,
                "peak_lr": rate,
                "weight_decay": decay,
            }
        )
    return described


def _tables(model: nn.Module) -> set[str]:
    """Names of tokens and position tables, which a decay to zero would blur together."""
    kinds = {prefix: type(module) for prefix, module in model.named_modules()}
    found = set()
    for name, _ in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if issubclass(kinds[owner], nn.Embedding) or leaf not in ("weight", "bias"):
            found.add(name)
    return found


def _block(name: str) -> int:
    return int(name[len(BLOCK) :].split(".")[0]) if name.startswith(BLOCK) else -1


def _depth(name: str, num_blocks: int) -> int:
    """How often the rate of a parameter is decayed: the more, the lower in the trunk."""
    if not name.startswith(TRUNK) or "pos_embed" in name:
        return 0
    return num_blocks - _block(name)


def schedule(progress: float, options: OptimizerOptions) -> float:
    """Share of the highest rate at a progress of 0..1: a straight warm-up, then a cosine."""
    if progress < options.warmup:
        return max(progress / options.warmup, 1e-3)
    after = (min(progress, 1.0) - options.warmup) / (1.0 - options.warmup)
    return options.final + (1.0 - options.final) * (1.0 + math.cos(math.pi * after)) / 2


def set_rate(optimizer: Optimizers, share: float) -> None:
    """Set every group to a share of its highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


class Average:
    """An exponential moving average of what learns; all else stays the model's own tensors.

    start_share: see `OptimizerOptions`.
    """

    def __init__(self, model: nn.Module, decay: float, start_share: float = 0.0) -> None:
        self.decay = decay
        self.start_share = start_share
        self.num_updates = 0
        self.tensors = {name: value.detach() for name, value in model.state_dict().items()}
        self._learning = [name for name, value in model.named_parameters() if value.requires_grad]
        for name in self._learning:
            self.tensors[name] = self.tensors[name].clone()
        kept = self._learning if start_share else []
        self._start = {name: self.tensors[name].clone() for name in kept}

    def with_start(self) -> dict[str, Tensor]:
        """All tensors, those that learn mixed with what the run began with."""
        if not self.start_share:
            return self.tensors
        mixed = {
            name: self.tensors[name].lerp(start, self.start_share)
            for name, start in self._start.items()
        }
        return self.tensors | mixed

    def follow(self, model: nn.Module) -> None:
        """Take what does not learn from another model with the same weights."""
        own = {name: self.tensors[name] for name in self._learning}
        self.tensors = {name: value.detach() for name, value in model.state_dict().items()} | own

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step towards the model, larger at first so that the start is forgotten."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        state = model.state_dict()
        own = [self.tensors[name] for name in self._learning]
        torch._foreach_lerp_(own, [state[name] for name in self._learning], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        learned = {name: self.tensors[name] for name in self._learning}
        return {"num_updates": self.num_updates, "learned": learned, "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier average of the same weights and their start.

        Raises:
            ValueError: if a share of the start is wanted that the earlier run did not keep.
        """
        if self.start_share and not state["start"]:
            raise ValueError(
                "start_share must be 0 where a run goes on that began without, "
                f"got {self.start_share}"
            )
        self.num_updates = state["num_updates"]
        for name, value in state["learned"].items():
            self.tensors[name].copy_(value)
        # Kept also where no share of it is wanted now.
        self._start = {name: one.to(self.tensors[name]) for name, one in state["start"].items()}


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale gradients down to a common norm; returns the norm they had."""
    return float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
