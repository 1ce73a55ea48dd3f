"""How weights move: groups with their own rates, warm-up and cosine, and an average to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

TRUNK = "image_encoder.trunk."
BLOCK = TRUNK + "blocks."


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW and its schedule.

    lr: highest learning rate; encoder_lr: that of the image encoder, None for the same.
    warmup: share of the run in which the rate rises; final: last rate as a share of the highest.
    layer_decay: factor a trunk block below the one above it.
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
    frozen: tuple[str, ...] = ()


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


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> torch.optim.AdamW:
    """AdamW over what learns; each group carries its highest rate under `peak_lr`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    num_blocks = 1 + max((_block(name) for name, _ in model.named_parameters()), default=-1)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not _is_table(name)
        rate = _rate(name, options, num_blocks)
        key = (rate, options.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(parameter)
    described = [
        {"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    return torch.optim.AdamW(described, lr=options.lr, betas=options.betas, fused=True)


def _is_table(name: str) -> bool:
    """Tokens and position tables, which a decay to zero would blur together."""
    return any(part in name for part in ("pos_embed", "token", "_embed.", "tpos_enc", "no_"))


def _block(name: str) -> int:
    return int(name[len(BLOCK) :].split(".")[0]) if name.startswith(BLOCK) else -1


def _rate(name: str, options: OptimizerOptions, num_blocks: int) -> float:
    is_encoder = name.startswith("image_encoder.") and options.encoder_lr is not None
    rate = options.encoder_lr if is_encoder else options.lr
    assert rate is not None
    if not name.startswith(TRUNK) or "pos_embed" in name:
        return rate
    return rate * options.layer_decay ** (num_blocks - _block(name))


def schedule(progress: float, options: OptimizerOptions) -> float:
    """Share of the highest rate at a progress of 0..1: a straight warm-up, then a cosine."""
    if progress < options.warmup:
        return max(progress / options.warmup, 1e-3)
    after = (min(progress, 1.0) - options.warmup) / (1.0 - options.warmup)
    return options.final + (1.0 - options.final) * (1.0 + math.cos(math.pi * after)) / 2


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set every group to a share of its highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share


class Average:
    """An exponential moving average of the weights; owns its copy and never touches the model's."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step towards the model, larger at first so that the start is forgotten."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        state = model.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        own = [self.tensors[name] for name in floating]
        torch._foreach_lerp_(own, [state[name] for name in floating], 1 - decay)

    def restore(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from an earlier average."""
        self.num_updates = num_updates
        for name, value in tensors.items():
            self.tensors[name].copy_(value)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale gradients down to a common norm; returns the norm they had."""
    return float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
