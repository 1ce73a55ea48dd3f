"""A GPU for machines without one: tensors say that they are there, and may not mix with others.

Everything is computed on the CPU. Tensors made on the pretended device carry a mark, results of
marked tensors are marked, and an operation that a real GPU would refuse raises `MixedDevices`.
What runs inside one call of a torch function, the backward pass too, is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any  # Any: arguments and results of any torch function

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda")
torch.get_device_module("cuda")  # torch remembers the answer: ask before the pretence changes it

READS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__}
"""What copies to the host by itself."""


class MixedDevices(RuntimeError):
    """An operation had one foot on the host and one on the device."""


class PretendCuda(TorchFunctionMode):
    """While it is active, "cuda" is a device, and it is not the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves, _ = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = any(map(is_there, tensors))
        if func == Tensor.device.__get__ and there:
            return DEVICE
        if func == Tensor.is_cuda.__get__:
            return there
        if func is Tensor.numpy and there:
            raise MixedDevices("numpy of a tensor on the device")
        target = next((leaf for leaf in leaves if _names_device(leaf)), None)
        if target is None:
            _check(func, args, tensors)
        result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        if func in READS or func is Tensor.cpu:
            goes_there = False
        elif func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            goes_there = is_there(args[1])
        else:
            goes_there = there if target is None else torch.device(target).type == "cuda"
        return tree_map(lambda one: _land(one, tensors, goes_there=goes_there), result)


def move(model: nn.Module) -> nn.Module:
    """Pretend that a model is on the device."""
    for tensor in [*model.parameters(), *model.buffers()]:
        mark(tensor)
    return model


def mark(tensor: Tensor) -> Tensor:
    """Pretend that a tensor is on the device."""
    tensor._is_there = True  # type: ignore[attr-defined]
    return tensor


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor pretends to be on the device."""
    return "_is_there" in tensor.__dict__


def _names_device(leaf: Any) -> bool:
    if isinstance(leaf, torch.device):
        return True
    return isinstance(leaf, str) and leaf in ("cpu", "cuda")


def _here(leaf: Any) -> Any:
    return torch.device("cpu") if _names_device(leaf) else leaf


def _land(result: Any, arguments: list[Tensor], *, goes_there: bool) -> Any:
    """Mark what belongs on the device; what has crossed over is not what it was."""
    if not isinstance(result, Tensor) or is_there(result) == goes_there:
        return result
    if any(result is one for one in arguments):
        result = result.clone()
    return mark(result) if goes_there else result


def _check(func: Callable[..., Any], args: Any, tensors: list[Tensor]) -> None:
    if func in (Tensor.copy_, Tensor.to):
        return
    if func is Tensor.__getitem__ and is_there(args[0]):
        return  # an index may lie on the host
    if func is Tensor.__setitem__:
        tensors = [one for one in (args[0], args[2]) if isinstance(one, Tensor)]
    wide = {is_there(one) for one in tensors if one.dim() > 0}
    if len(wide) > 1:
        where = [("device" if is_there(one) else "host", list(one.shape)) for one in tensors]
        raise MixedDevices(f"{getattr(func, '__name__', func)} of {where}")
