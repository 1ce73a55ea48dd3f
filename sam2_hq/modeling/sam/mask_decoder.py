"""The mask decoder: image and prompt tokens become mask logits, scores and pointer tokens.

The HQ token is a part of this one decoder: with `hq=True` it owns 13 more tensors, runs one more
token through the same transformer, and returns the logits of that token beside those of SAM.
How the two are combined is decided by the caller (`ops.masks.choose_hq`).

Sources: Kirillov et al., 2023; Ravi et al., 2024; Ke et al., 2023.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.modeling.layers import MLP, LayerNorm2d
from sam2_hq.modeling.sam.transformer import TwoWayTransformer
from sam2_hq.ops.masks import stability_score

NUM_CANDIDATES = 3  # masks for an ambiguous prompt, after the mask for an unambiguous one

CandidateChoice = Literal["single", "best", "all"]
"""Which SAM masks to make: the single one, the best of three by predicted IoU, or all three."""


class DecoderOutput(NamedTuple):
    """What one pass of the decoder knows.

    sam_logits: [B, M, 4g, 4g] masks of SAM, M = 3 for "all", else 1.
    iou: [B, M] predicted IoU of them.
    tokens: [B, M, C] tokens from which object pointers are made.
    object_score: [B, 1] logit.
    hq_logits: [B, 1, 4g, 4g] logits of the HQ token, None for a plain model or if not asked for.
    """

    sam_logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor
    hq_logits: Tensor | None


class _Reading(NamedTuple):
    """The transformer's answer: tokens by name, and the image map."""

    masks: Tensor  # [B, 4, C]
    iou: Tensor  # [B, C]
    object_score: Tensor  # [B, 1]
    hq: Tensor | None  # [B, C]
    image: Tensor  # [B, C, g, g]


class MaskDecoder(nn.Module):
    """Predict masks from an image embedding and prompt embeddings.

    Args:
        transformer_dim: channels C.
        transformer: lets tokens and image attend to each other.
        hq: own the HQ token.
        use_high_res_features: add the two finer encoder maps while up-scaling.
        iou_head_depth, iou_head_hidden_dim: shape of the IoU head.
        iou_prediction_use_sigmoid: squash predicted IoUs to 0..1.
        pred_obj_scores, pred_obj_scores_mlp: predict presence, with an MLP or a linear layer.
        use_multimask_token_for_obj_ptr: pointers of the candidates come from their own tokens.
        dynamic_multimask_via_stability: in evaluation, replace an unstable single mask by the best
            of three; stability is the IoU of the mask at two thresholds `delta` around zero.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        hq: bool = False,
        use_high_res_features: bool = False,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        iou_prediction_use_sigmoid: bool = False,
        pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False,
        use_multimask_token_for_obj_ptr: bool = False,
        dynamic_multimask_via_stability: bool = False,
        dynamic_multimask_stability_delta: float = 0.05,
        dynamic_multimask_stability_thresh: float = 0.98,
    ) -> None:
        super().__init__()
        dim, fine = transformer_dim, transformer_dim // 8
        num_masks = 1 + NUM_CANDIDATES
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_masks, dim)
        self.obj_score_token = nn.Embedding(1, dim) if pred_obj_scores else None
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, fine, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, fine, kernel_size=1) if use_high_res_features else None
        self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1) if use_high_res_features else None
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, fine, 3) for _ in range(num_masks)
        )
        self.iou_prediction_head = MLP(
            dim,
            iou_head_hidden_dim,
            num_masks,
            iou_head_depth,
            sigmoid_output=iou_prediction_use_sigmoid,
        )
        self.pred_obj_score_head = _score_head(dim, pred_obj_scores, pred_obj_scores_mlp)
        self.hf_token = nn.Embedding(1, dim) if hq else None
        self.hf_mlp = MLP(dim, dim, fine, 3) if hq else None
        self.embedding_maskfeature = _hq_features(fine) if hq else None
        self.use_multimask_token_for_obj_ptr = use_multimask_token_for_obj_ptr
        self.dynamic_multimask_via_stability = dynamic_multimask_via_stability
        self.stability_delta = dynamic_multimask_stability_delta
        self.stability_threshold = dynamic_multimask_stability_thresh

    @property
    def is_hq(self) -> bool:
        """Whether this decoder owns the HQ token."""
        return self.hf_token is not None

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        *,
        candidates: CandidateChoice,
        high_res: tuple[Tensor, ...] = (),
        with_hq: bool = True,
    ) -> DecoderOutput:
        """Decode masks.

        Args:
            image: [B or 1, C, g, g]; one image may serve many prompts.
            image_pe: [1, C, g, g].
            sparse: [B, T, C] prompt tokens.
            dense: [B or 1, C, g or 1, g or 1] prompt map.
            candidates: which SAM masks to return.
            high_res: the encoder maps [., C/8, 4g, 4g] and [., C/4, 2g, 2g], already projected.
            with_hq: make the HQ logits, which are two fifths of the work; the token is read anyway.
        """
        reading = self._read(image, image_pe, sparse, dense)
        upscaled = self._upscale(reading.image, high_res)
        iou = self.iou_prediction_head(reading.iou)
        tokens = reading.masks
        if candidates == "single":
            logits, chosen_iou = self._single(tokens, iou, upscaled)
            pointer_tokens = tokens[:, :1]
        else:
            tokens, chosen_iou = tokens[:, 1:], iou[:, 1:]
            hyper = self._hyper(tokens, first=1)
            if candidates == "best":
                best = chosen_iou.argmax(dim=1, keepdim=True)
                chosen_iou = chosen_iou.gather(1, best)
                hyper = _pick(hyper, best)
                tokens = _pick(tokens, best)
            logits = _project(hyper, upscaled)
            by_candidate = self.use_multimask_token_for_obj_ptr
            pointer_tokens = tokens if by_candidate else reading.masks[:, :1]
        hq = None
        if with_hq and reading.hq is not None:
            hq = self._hq_logits(reading.hq, upscaled)
        return DecoderOutput(logits, chosen_iou, pointer_tokens, reading.object_score, hq)

    def read_pointer(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Only the token of the single mask [B, C] and the object score [B, 1]; no mask is made."""
        reading = self._read(image, image_pe, sparse, dense)
        return reading.masks[:, 0], reading.object_score

    def _read(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> _Reading:
        learned = [self.obj_score_token, self.iou_token, self.mask_tokens, self.hf_token]
        own = torch.cat([e.weight for e in learned if e is not None])
        tokens = torch.cat([own.expand(sparse.shape[0], -1, -1), sparse], dim=1)
        tokens, image_map = self.transformer(image + dense, image_pe, tokens)
        start = 0 if self.obj_score_token is None else 1
        end = start + 1 + self.mask_tokens.num_embeddings
        if self.pred_obj_score_head is None:
            # Published constant: without the head every object counts as present.
            object_score = tokens.new_full((tokens.shape[0], 1), 10.0)
        else:
            object_score = self.pred_obj_score_head(tokens[:, 0])
        return _Reading(
            masks=tokens[:, start + 1 : end],
            iou=tokens[:, start],
            object_score=object_score,
            hq=tokens[:, end] if self.is_hq else None,
            image=image_map,
        )

    def _upscale(self, image: Tensor, high_res: tuple[Tensor, ...]) -> Tensor:
        up1, norm, act1, up2, act2 = self.output_upscaling
        if not high_res:
            return act2(up2(act1(norm(up1(image)))))
        fine, middle = high_res
        return act2(up2(act1(norm(up1(image) + middle))) + fine)

    def _single(self, tokens: Tensor, iou: Tensor, upscaled: Tensor) -> tuple[Tensor, Tensor]:
        if not self.dynamic_multimask_via_stability or self.training:
            return _project(self._hyper(tokens[:, :1], first=0), upscaled), iou[:, :1]
        hyper = self._hyper(tokens, first=0)
        best = iou[:, 1:].argmax(dim=1, keepdim=True) + 1
        pair = torch.cat([hyper[:, :1], _pick(hyper, best)], dim=1)
        logits = _project(pair, upscaled)
        # An empty mask at both thresholds counts as stable, as published.
        stability = stability_score(logits[:, :1], 0.0, self.stability_delta, if_empty=1.0)
        stable = stability >= self.stability_threshold
        chosen = torch.where(stable[..., None, None], logits[:, :1], logits[:, 1:])
        return chosen, torch.where(stable, iou[:, :1], iou.gather(1, best))

    def _hyper(self, tokens: Tensor, *, first: int) -> Tensor:
        """One weight vector a mask: each token goes through its own MLP, all of them at once."""
        # Any: a module list does not know the type of its items
        mlps: Any = self.output_hypernetworks_mlps[first : first + tokens.shape[1]]
        x = tokens.transpose(0, 1)  # [M, B, C]
        for i in range(len(mlps[0].layers)):
            weight = torch.stack([m.layers[i].weight for m in mlps]).transpose(1, 2)
            bias = torch.stack([m.layers[i].bias for m in mlps])[:, None]
            x = torch.baddbmm(bias, F.relu(x) if i else x, weight)
        return x.transpose(0, 1)

    def _hq_logits(self, token: Tensor, upscaled: Tensor) -> Tensor:
        """The HQ mask. The last convolution is contracted with the token's vector beforehand."""
        assert self.hf_mlp is not None
        assert self.embedding_maskfeature is not None
        conv1, norm, act, conv2 = self.embedding_maskfeature
        vector = self.hf_mlp(token)  # [B, C/8]
        kernel, offset = conv2.parameters()
        weight = (vector @ kernel.flatten(1)).unflatten(1, kernel.shape[1:])
        bias = vector @ offset
        features = act(norm(conv1(upscaled)))
        batch, channels = features.shape[:2]
        stacked = features.reshape(1, batch * channels, *features.shape[2:])
        return F.conv2d(stacked, weight, bias, padding=1, groups=batch).transpose(0, 1)


def _score_head(dim: int, predicts: bool, with_mlp: bool) -> nn.Module | None:
    if not predicts:
        return None
    return MLP(dim, dim, 1, 3) if with_mlp else nn.Linear(dim, 1)


def _hq_features(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
        LayerNorm2d(2 * channels),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, kernel_size=3, padding=1),
    )


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Choose one of M vectors a row: [B, M, D] by [B, 1] to [B, 1, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _project(hyper: Tensor, upscaled: Tensor) -> Tensor:
    """[B, M, D] weights on [B, D, H, W] features to [B, M, H, W] logits."""
    return (hyper @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
