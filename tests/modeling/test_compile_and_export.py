"""Each verb is a whole graph: it exports, it compiles without a break, and it writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sam2_hq.modeling.sam2_base import MemoryTokens, SAM2Base
from sam2_hq.structures import FrameFeatures, MaskPrompt, PointPrompt
from tests.toy import SIDE, toy_predictor

DIM, MEM, GRID = 32, 16, SIDE // 16
Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return toy_predictor().requires_grad_(False)


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    yield
    torch._dynamo.reset()


class Verb(nn.Module):
    """A verb as a module of tensors, as exporters want it."""

    def __init__(self, model: SAM2Base, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *tensors: Tensor) -> Any:
        return self.call(self.model, *tensors)


def encode_image(model: SAM2Base, pixels: Tensor) -> Any:
    return model.encode_image(pixels)


def condition(model: SAM2Base, embedding: Tensor, spatial: Tensor, pointers: Tensor) -> Any:
    slots = range(spatial.shape[1])
    offsets = [i / 15 for i in range(pointers.shape[1])]
    memory = MemoryTokens(spatial, list(slots), pointers, offsets)
    return model.condition(FrameFeatures(embedding, ()), memory)


def condition_on_nothing(model: SAM2Base, embedding: Tensor) -> Any:
    return model.condition(FrameFeatures(embedding, ()), None)


def decode(model: SAM2Base, embedding: Tensor, fine: Tensor, middle: Tensor) -> Any:
    return model.decode(embedding, (fine, middle), multimask=True, hq_mode="auto")


def decode_prompt(
    model: SAM2Base,
    embedding: Tensor,
    fine: Tensor,
    middle: Tensor,
    coords: Tensor,
    labels: Tensor,
    mask_logits: Tensor,
) -> Any:
    prompt = PointPrompt(coords, labels)
    return model.decode(embedding, (fine, middle), points=prompt, mask_logits=mask_logits)


def adopt_mask(model: SAM2Base, embedding: Tensor, mask: Tensor) -> Any:
    return model.adopt_mask(FrameFeatures(embedding, ()), MaskPrompt(mask))


def encode_memory(model: SAM2Base, embedding: Tensor, logits: Tensor, score: Tensor) -> Any:
    return model.encode_memory(FrameFeatures(embedding, ()), logits, score)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(sum(shape)))


MAPS = (
    noise(1, DIM, GRID, GRID),
    noise(1, DIM // 8, 4 * GRID, 4 * GRID),
    noise(1, DIM // 4, 2 * GRID, 2 * GRID),
)
CLICKS = (torch.tensor([[[20.0, 30.0], [100.0, 90.0]]]), torch.tensor([[1, 0]]).int())
CASES: dict[str, Case] = {
    "encode_image": (encode_image, (noise(1, 3, SIDE, SIDE),)),
    "condition": (condition, (MAPS[0], noise(1, 3, MEM, GRID, GRID), noise(1, 2, DIM))),
    "condition_on_nothing": (condition_on_nothing, MAPS[:1]),
    "decode": (decode, MAPS),
    "decode_prompt": (decode_prompt, (*MAPS, *CLICKS, noise(1, 1, 4 * GRID, 4 * GRID))),
    "adopt_mask": (adopt_mask, (MAPS[0], (noise(1, 1, SIDE, SIDE) > 0).float())),
    "encode_memory": (encode_memory, (MAPS[0], noise(1, 1, SIDE, SIDE), noise(1, 1))),
}


@torch.no_grad()
@pytest.mark.parametrize("verb", CASES)
def test_a_verb_exports_with_equal_results(model: SAM2Base, verb: str) -> None:
    call, tensors = CASES[verb]
    module = Verb(model, call)
    program = torch.export.export(module, tensors, strict=False)
    assert_close(program.module()(*tensors), module(*tensors))
    assert not program.graph_signature.buffers_to_mutate


@torch.no_grad()
@pytest.mark.parametrize("verb", CASES)
def test_a_verb_compiles_to_one_graph_with_equal_results(model: SAM2Base, verb: str) -> None:
    call, tensors = CASES[verb]
    compiled = torch.compile(Verb(model, call), fullgraph=True, backend="eager")
    assert_close(compiled(*tensors), call(model, *tensors))


@torch.no_grad()
def test_conditioning_compiles_for_any_number_of_memories(model: SAM2Base) -> None:
    compiled = torch.compile(model.condition, fullgraph=True, backend="eager", dynamic=True)
    features = FrameFeatures(*MAPS[:1], MAPS[1:])
    for frames, pointers in ((1, 0), (2, 2), (7, 16)):
        memory = MemoryTokens(
            noise(1, frames, MEM, GRID, GRID),
            list(range(frames)),
            noise(1, pointers, DIM) if pointers else None,
            [i / 15 for i in range(pointers)],
        )
        assert_close(compiled(features, memory), model.condition(features, memory))


@torch.no_grad()
@pytest.mark.parametrize("verb", CASES)
@pytest.mark.parametrize("prepared", [True, False])
def test_a_verb_changes_neither_the_model_nor_its_input(verb: str, prepared: bool) -> None:
    model = toy_predictor()
    if not prepared:
        model.train().eval()  # drops the tables
    call, tensors = CASES[verb]
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    versions = {name: value._version for name, value in held.items()}
    before = [t.clone() for t in tensors]
    call(model, *tensors)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert {name: id(value) for name, value in after.items()} == {
        name: id(value) for name, value in held.items()
    }
    assert {name: value._version for name, value in after.items()} == versions
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@torch.no_grad()
def test_decoding_lowers_to_operators_without_a_break(model: SAM2Base) -> None:
    compiled = torch.compile(Verb(model, decode), fullgraph=True, backend="aot_eager")
    assert_close(compiled(*MAPS), decode(model, *MAPS))
