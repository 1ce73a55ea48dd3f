"""The model: the assembly of its networks, and five verbs. No verb reads or writes state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.config import CoreConfig, check_zoom_in
from sam2_hq.modeling.backbones.image_encoder import ImageEncoder
from sam2_hq.modeling.layers import MLP
from sam2_hq.modeling.memory_attention import MemoryAttention
from sam2_hq.modeling.memory_encoder import MemoryEncoder
from sam2_hq.modeling.position_encoding import sine_1d
from sam2_hq.modeling.sam.mask_decoder import CandidateChoice, DecoderOutput, MaskDecoder
from sam2_hq.modeling.sam.prompt_encoder import PromptEncoder
from sam2_hq.modeling.sam.transformer import TwoWayTransformer
from sam2_hq.ops.masks import certain_logits, choose_hq, hq_disagreement
from sam2_hq.structures import (
    HQ_MODES,
    NO_OBJECT_LOGIT,
    FrameFeatures,
    HQMode,
    MaskOutput,
    MaskPrompt,
    PointPrompt,
)

NO_OBJ_SCORE = NO_OBJECT_LOGIT  # the published name


@dataclass(frozen=True)
class MemoryTokens:
    """What a frame attends to, for B objects with the same memory layout.

    spatial: [B, r, Cm, g, g] memories; slots: their rows in the temporal embedding, one a memory.
    pointers: [B, n, C] object pointers; offsets: their distances in time, scaled to about -1..1.
    """

    spatial: Tensor
    slots: Sequence[int]
    pointers: Tensor | None = None
    offsets: Sequence[float] = ()


class SAM2Base(nn.Module):
    """Weights of HQ-SAM 2 (or plain SAM 2) and the five verbs over them.

    Attribute names are the parameter names of the published checkpoints.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: MemoryAttention,
        memory_encoder: MemoryEncoder,
        config: CoreConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.grid_size = config.image_size // config.backbone_stride
        if self.grid_size * config.backbone_stride != config.image_size:
            raise ValueError(
                f"image_size must be a multiple of backbone_stride {config.backbone_stride}, "
                f"got {config.image_size}"
            )
        self.image_encoder = image_encoder
        self.memory_attention = memory_attention
        self.memory_encoder = memory_encoder
        self.hidden_dim = image_encoder.neck.d_model
        self.mem_dim = memory_encoder.out_proj.out_channels
        self._check_parts()
        self._add_prompt_networks()
        self._add_memory_parameters()
        self._add_tables()
        self._hq_mode: HQMode = "correct" if config.hq else "off"
        if config.hq_mode is not None:
            self.hq_mode = config.hq_mode  # type: ignore[assignment]  # checked by the setter
        self.zoom_in = config.zoom_in

    # ---------------------------------------------------------------- parts

    def _check_parts(self) -> None:
        """Raise ValueError unless the parts make maps of the sizes that the others take."""
        stride, strides = self.config.backbone_stride, self.image_encoder.strides
        if strides[-1] != stride:
            raise ValueError(
                f"backbone_stride must be {strides[-1]}, that of the coarsest map which "
                f"image_encoder keeps (see scalp and q_pool), got {stride}"
            )
        wanted = [stride // 4, stride // 2]
        if self.config.use_high_res_features_in_sam and strides[:-1] != wanted:
            raise ValueError(
                f"image_encoder must keep finer maps of strides {wanted} for "
                f"use_high_res_features_in_sam, got {strides[:-1]}"
            )
        memory, neck = self.memory_encoder, self.image_encoder.neck
        sizes = {
            "memory_attention.d_model": (self.hidden_dim, self.memory_attention.d_model),
            "memory_attention.layer.cross_attention.kv_in_dim": (
                self.mem_dim,
                self.memory_attention.memory_dim,
            ),
            "memory_encoder.mask_downsampler.total_stride": (
                stride,
                memory.mask_downsampler.total_stride,
            ),
            "memory_encoder.in_dim": (self.hidden_dim, memory.pix_feat_proj.in_channels),
            "image_encoder.neck.position_encoding.num_pos_feats": (
                self.hidden_dim,
                neck.position_encoding.num_pos_feats,
            ),
            "memory_encoder.position_encoding.num_pos_feats": (
                self.mem_dim,
                memory.position_encoding.num_pos_feats,
            ),
        }
        for key, (fitting, got) in sizes.items():
            if got != fitting:
                raise ValueError(f"{key} must be {fitting} in this model, got {got}")

    def _add_prompt_networks(self) -> None:
        c, dim, grid = self.config, self.hidden_dim, self.grid_size
        self.sam_prompt_encoder = PromptEncoder(
            dim, (grid, grid), (c.image_size, c.image_size), c.sam_mask_in_chans
        )
        self.sam_mask_decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(
                c.sam_transformer_depth, dim, c.sam_transformer_heads, c.sam_transformer_mlp_dim
            ),
            hq=c.hq,
            use_high_res_features=c.use_high_res_features_in_sam,
            iou_head_depth=c.sam_iou_head_depth,
            iou_head_hidden_dim=c.sam_iou_head_hidden_dim,
            iou_prediction_use_sigmoid=c.iou_prediction_use_sigmoid,
            pred_obj_scores=c.pred_obj_scores,
            pred_obj_scores_mlp=c.pred_obj_scores_mlp,
            use_multimask_token_for_obj_ptr=c.use_multimask_token_for_obj_ptr,
            dynamic_multimask_via_stability=c.dynamic_multimask_via_stability,
            dynamic_multimask_stability_delta=c.dynamic_multimask_stability_delta,
            dynamic_multimask_stability_thresh=c.dynamic_multimask_stability_thresh,
        )

    def _add_memory_parameters(self) -> None:
        c, dim = self.config, self.hidden_dim
        if c.proj_tpos_enc_in_obj_ptrs and not c.add_tpos_enc_to_obj_ptrs:
            raise ValueError("proj_tpos_enc_in_obj_ptrs needs add_tpos_enc_to_obj_ptrs")
        self.maskmem_tpos_enc = _parameter(max(c.num_maskmem, 1), 1, 1, self.mem_dim)
        self.no_mem_embed = _parameter(1, 1, dim)
        self.no_mem_pos_enc = _parameter(1, 1, dim)
        self.no_obj_ptr: nn.Parameter | None = None
        self.no_obj_embed_spatial: nn.Parameter | None = None
        if c.no_obj_embed_spatial:
            self.no_obj_embed_spatial = _parameter(1, self.mem_dim)
        if not c.use_obj_ptrs_in_encoder:
            return
        if c.pred_obj_scores:
            self.no_obj_ptr = _parameter(1, dim)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj: nn.Module = (
            MLP(dim, dim, dim, 3) if c.use_mlp_for_obj_ptr_proj else nn.Linear(dim, dim)
        )
        self.obj_ptr_tpos_proj: nn.Module = (
            nn.Linear(dim, self.mem_dim) if c.proj_tpos_enc_in_obj_ptrs else nn.Identity()
        )

    def _add_tables(self) -> None:
        """Constants of the grid size: sine maps of frame and memory, rotations of the attention."""
        grid = self.grid_size
        frame = self.image_encoder.neck.position_encoding(grid, grid)
        memory = self.memory_encoder.position_encoding(grid, grid)
        self.register_buffer("frame_position", frame[None], persistent=False)
        self.register_buffer("memory_position", memory[None], persistent=False)
        self.frame_position: Tensor
        self.memory_position: Tensor
        self.memory_attention.set_grid(grid)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.no_mem_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; the verbs bring their inputs to it."""
        return self.no_mem_embed.dtype

    @property
    def num_loads(self) -> int:
        """How often the image encoder was given weights: features of other ones are void."""
        return self.image_encoder.num_loads

    @property
    def is_hq(self) -> bool:
        """Whether the decoder owns the HQ token."""
        return self.sam_mask_decoder.is_hq

    @property
    def hq_mode(self) -> HQMode:
        """How SAM and HQ masks become one: "off", "correct", "only" or "auto"."""
        return self._hq_mode

    @hq_mode.setter
    def hq_mode(self, mode: HQMode) -> None:
        self._hq_mode = self.check_hq_mode(mode)

    @property
    def zoom_in(self) -> float | None:
        """Predictors answer a prompt again in windows around the object; see `zoom_in.py`.

        The side of a window in larger sides of the object; None for one answer, as published.
        """
        return self._zoom_in

    @zoom_in.setter
    def zoom_in(self, ratio: float | None) -> None:
        check_zoom_in(ratio)
        self._zoom_in = ratio

    def check_hq_mode(self, mode: HQMode | None, hq_token_only: bool = False) -> HQMode:
        """The mode to use: the model's own when None, "only" when the published flag asks for it.

        Raises:
            ValueError: for an unknown mode, for the flag beside another mode, or for HQ on a model
                without the HQ token.
        """
        if hq_token_only and mode not in (None, "only"):
            raise ValueError(
                f"hq_token_only=True is hq_mode='only', got hq_mode={mode!r} beside it"
            )
        if mode is None:
            mode = "only" if hq_token_only else self._hq_mode
        if mode not in HQ_MODES:
            raise ValueError(f"hq_mode must be one of {', '.join(HQ_MODES)}, got {mode!r}")
        if mode != "off" and not self.is_hq:
            asked = "hq_token_only" if hq_token_only else f"hq_mode={mode!r}"
            raise ValueError(f"{asked} needs an HQ model; this one has no HQ token, use 'off'")
        return mode

    # ---------------------------------------------------------- constants

    def prepare(self) -> SAM2Base:
        """Compute what depends on weights alone once. Call it when the weights are final.

        Later changes of weights are noticed, but for those made through `.data`, and those made in
        place in a compiled model: call it again.
        """
        with torch.no_grad():
            side = self.image_size // 4
            self.image_encoder.trunk.prepare(side, side)
            self.sam_prompt_encoder.prepare()
        return self

    # ------------------------------------------------------------- verb 1

    def encode_image(self, pixels: Tensor) -> FrameFeatures:
        """Normalised pixels [B, 3, S, S] to the features of the frame."""
        decoder = self.sam_mask_decoder
        has_readers = decoder.conv_s0 is not None and decoder.conv_s1 is not None
        readers = [decoder.conv_s0, decoder.conv_s1] if has_readers else []
        maps = self.image_encoder(pixels.to(self.dtype), readers)
        embedding = maps[-1].to(self.dtype)  # the pyramid adds in float32
        return FrameFeatures(embedding, tuple(maps[: len(readers)]))

    def forward_image(self, pixels: Tensor) -> dict[str, Any]:
        """The published form of `encode_image`: a dict of pyramid maps and their position maps."""
        features = self.encode_image(pixels)
        maps = [*features.high_res, features.embedding]
        encode = self.image_encoder.neck.position_encoding
        positions = [encode(*m.shape[-2:])[None].to(m).expand(m.shape[0], -1, -1, -1) for m in maps]
        return {"vision_features": maps[-1], "vision_pos_enc": positions, "backbone_fpn": maps}

    # ------------------------------------------------------------- verb 2

    def condition(self, features: FrameFeatures, memory: MemoryTokens | None) -> Tensor:
        """Features of a frame to its embedding [B, C, g, g], given what the objects remember.

        None stands for no memory: the first prompted frame of an object.
        """
        embedding = features.embedding
        if self.config.num_maskmem == 0:
            return embedding
        if memory is None:
            if self.config.directly_add_no_mem_embed:
                return self.condition_still(features)
            # One token of nothing; only its first channels fit the memory width.
            dummy = self.no_mem_embed[..., : self.mem_dim].expand(1, self.grid_size**2, -1)
            place = self.no_mem_pos_enc[..., : self.mem_dim]
            return self.memory_attention(embedding, self.frame_position, dummy, place)
        tokens, places, num_pointer_tokens = self._memory_tokens(memory)
        return self.memory_attention(
            embedding.expand(tokens.shape[0], -1, -1, -1),
            self.frame_position,
            tokens,
            places,
            num_pointer_tokens,
        )

    def condition_still(self, features: FrameFeatures) -> Tensor:
        """Features of a picture that is no frame of a video to its embedding [B, C, g, g]."""
        if not self.config.directly_add_no_mem_embed:
            return features.embedding
        return features.embedding + self.no_mem_embed.flatten()[:, None, None]

    def _memory_tokens(self, memory: MemoryTokens) -> tuple[Tensor, Tensor, int]:
        """Token sequence [B, L, Cm], its positions [1, L, Cm], and how many tokens are pointers."""
        # Memories are stored in half precision.
        tokens = memory.spatial.to(self.dtype).flatten(3).transpose(2, 3).flatten(1, 2)
        rows = torch.stack([self.maskmem_tpos_enc[slot] for slot in memory.slots])  # [r, 1, 1, Cm]
        places = self.memory_position.flatten(2).transpose(1, 2) + rows.flatten(1, 2)
        places = places.reshape(1, -1, self.mem_dim)
        if memory.pointers is None:
            return tokens, places, 0
        split = self.hidden_dim // self.mem_dim
        pointers = memory.pointers.to(self.dtype).unflatten(2, (split, -1)).flatten(1, 2)
        pointer_places = self._pointer_places(memory.offsets).repeat_interleave(split, dim=0)
        return (
            torch.cat([tokens, pointers], dim=1),
            torch.cat([places, pointer_places[None]], dim=1),
            pointers.shape[1],
        )

    def _pointer_places(self, offsets: Sequence[float]) -> Tensor:
        """Temporal encoding [n, Cm] of pointers."""
        c, like = self.config, self.no_mem_embed
        if not c.add_tpos_enc_to_obj_ptrs:
            return like.new_zeros(len(offsets), self.mem_dim)
        position = torch.tensor(offsets, dtype=torch.float32).to(like.device, non_blocking=True)
        dim = self.hidden_dim if c.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        return self.obj_ptr_tpos_proj(sine_1d(position, dim).to(like.dtype))

    # ------------------------------------------------------------- verb 3

    def decode(
        self,
        embedding: Tensor,
        high_res: tuple[Tensor, ...],
        *,
        points: PointPrompt | None = None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
        hq_mode: HQMode | None = None,
    ) -> MaskOutput:
        """One mask an object, with its scores and its pointer.

        Args:
            embedding: [B, C, g, g] from `condition`.
            high_res: of the frame's features.
            points: clicks or a box; None on a frame without prompt.
            mask_logits: [B, 1, h, w] logits of an earlier mask, resized if h, w differ from 4g.
            multimask: make three candidates and take the one with the best predicted IoU.
            hq_mode: None for the model's own.
        """
        candidates: CandidateChoice = "best" if multimask else "single"
        out = self.decode_candidates(
            embedding, high_res, points=points, mask_logits=mask_logits, candidates=candidates
        )
        logits = self.combine(out, self.check_hq_mode(hq_mode)).float()
        disagreement = out.iou.new_zeros(out.iou.shape)
        if out.hq_logits is not None:
            disagreement = hq_disagreement(out.sam_logits, out.hq_logits)
        if self.config.pred_obj_scores:
            present = out.object_score > 0
            logits = torch.where(present[..., None, None], logits, NO_OBJECT_LOGIT)
        pointer = self.make_pointer(out.tokens[:, 0], out.object_score)
        return MaskOutput(logits, out.iou, pointer, out.object_score, disagreement)

    def decode_candidates(
        self,
        embedding: Tensor,
        high_res: tuple[Tensor, ...],
        *,
        points: PointPrompt | None,
        mask_logits: Tensor | None,
        candidates: CandidateChoice,
        pad_empty: bool = True,
        with_hq: bool = True,
    ) -> DecoderOutput:
        """The decoder's whole answer, before presence and HQ are applied.

        `pad_empty` adds the two padding tokens of the video path when there are no points; without
        `with_hq` there are no HQ logits.
        """
        prompts = self.sam_prompt_encoder
        if mask_logits is not None:
            size = prompts.mask_input_size
            mask_logits = mask_logits.float()
            if mask_logits.shape[-2:] != size:
                mask_logits = F.interpolate(
                    mask_logits, size, mode="bilinear", align_corners=False, antialias=True
                )
            mask_logits = mask_logits.to(self.dtype)
        if points is not None:
            sparse, dense = prompts((points.coords, points.labels), None, mask_logits)
        else:
            sparse, dense = prompts(None, None, mask_logits)
            if pad_empty:
                sparse = prompts.no_points(embedding.shape[0])
        return self.sam_mask_decoder(
            embedding,
            prompts.get_dense_pe(),
            sparse,
            dense,
            candidates=candidates,
            high_res=high_res,
            with_hq=with_hq,
        )

    def combine(self, out: DecoderOutput, hq_mode: HQMode) -> Tensor:
        """Mask logits [B, M, 4g, 4g] of the asked HQ mode."""
        if hq_mode == "off":
            return out.sam_logits
        assert out.hq_logits is not None  # `check_hq_mode` has looked
        return choose_hq(out.sam_logits, out.hq_logits, out.iou, hq_mode)

    def make_pointer(self, token: Tensor, object_score: Tensor) -> Tensor:
        """Object pointer [B, C]; that of an absent object leads to `no_obj_ptr`."""
        if not self.config.use_obj_ptrs_in_encoder:
            return torch.zeros_like(token)
        pointer = self.obj_ptr_proj(token)
        if self.no_obj_ptr is None:
            return pointer
        if self.config.soft_no_obj_ptr:
            present = object_score.sigmoid()
        else:
            present = (object_score > 0).to(pointer.dtype)
        return self._blend_pointer(pointer, present)

    def _blend_pointer(self, pointer: Tensor, present: Tensor) -> Tensor:
        assert self.no_obj_ptr is not None
        if self.config.fixed_no_obj_ptr:
            pointer = present * pointer
        return pointer + (1 - present) * self.no_obj_ptr

    def use_multimask(self, *, is_initial: bool, num_points: int) -> bool:
        """Whether a frame with this prompt gets three candidates; a box counts as two points."""
        c = self.config
        allowed = c.multimask_output_in_sam and (is_initial or c.multimask_output_for_tracking)
        return allowed and c.multimask_min_pt_num <= num_points <= c.multimask_max_pt_num

    # ------------------------------------------------------------- verb 4

    def adopt_mask(
        self, features: FrameFeatures, prompt: MaskPrompt, *, trust_mask: bool = False
    ) -> MaskOutput:
        """The user's mask is the answer; the network only makes a pointer for it.

        Args:
            features: of the frame.
            prompt: the mask.
            trust_mask: whether presence follows the mask alone. The published models also let the
                predicted score replace the pointer, which this leaves as it is by default.
        """
        mask = prompt.mask.float()
        high = certain_logits(mask)
        low = F.interpolate(
            high,
            self.sam_prompt_encoder.mask_input_size,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        present = (mask > 0).flatten(1).any(dim=1, keepdim=True).to(mask.dtype)
        low = _with_thin_masks(low, present)
        score = certain_logits(present)
        pointer = self._pointer_of_mask(features, mask, present, trust_mask=trust_mask)
        ones = torch.ones_like(score)
        return MaskOutput(low, ones, pointer, score, torch.zeros_like(score))

    def _pointer_of_mask(
        self, features: FrameFeatures, mask: Tensor, present: Tensor, *, trust_mask: bool
    ) -> Tensor:
        batch = mask.shape[0]
        if not self.config.use_obj_ptrs_in_encoder:
            return mask.new_zeros(batch, self.hidden_dim)
        prompts = self.sam_prompt_encoder
        dense = prompts(None, None, self.mask_downsample(mask.to(self.dtype)))[1]
        token, score = self.sam_mask_decoder.read_pointer(
            features.embedding, prompts.get_dense_pe(), prompts.no_points(batch), dense
        )
        pointer = self.obj_ptr_proj(token) if trust_mask else self.make_pointer(token, score)
        return pointer if self.no_obj_ptr is None else self._blend_pointer(pointer, present)

    # ------------------------------------------------------------- verb 5

    def encode_memory(
        self,
        features: FrameFeatures,
        mask_logits: Tensor,
        object_score: Tensor,
        *,
        binarize: bool = False,
    ) -> Tensor:
        """What a frame and its mask leave behind: memory [B, Cm, g, g].

        Args:
            features: of the frame; its raw embedding is used.
            mask_logits: [B, 1, h, w], brought to S x S when they are not.
            object_score: [B, 1] logit.
            binarize: encode the mask as 0 and 1 (masks a user asked for) instead of probabilities.
        """
        c = self.config
        size = (self.image_size, self.image_size)
        if mask_logits.shape[-2:] != size:
            mask_logits = F.interpolate(mask_logits, size, mode="bilinear", align_corners=False)
        mask = (mask_logits > 0).to(mask_logits.dtype) if binarize else mask_logits.sigmoid()
        mask = mask * c.sigmoid_scale_for_mem_enc + c.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder(features.embedding, mask.to(self.dtype))
        if self.no_obj_embed_spatial is not None:
            absent = (object_score <= 0).to(memory.dtype)[..., None, None]
            memory = memory + absent * self.no_obj_embed_spatial[..., None, None]
        return memory


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(*shape), std=0.02))


def _with_thin_masks(logits: Tensor, present: Tensor) -> Tensor:
    """Scaled-down logits [B, 1, h, w] of masks, in which none that is `present` [B, 1] is empty.

    What is too thin to fill half of a cell keeps the cells that it covers most.
    """
    most = logits.amax(dim=(-2, -1), keepdim=True)
    nothing, certain = certain_logits(logits.new_tensor([0.0, 1.0]))
    is_lost = (present[..., None, None] > 0) & (most <= 0)
    return torch.where(is_lost & (logits > (most + nothing) / 2), certain, logits)
