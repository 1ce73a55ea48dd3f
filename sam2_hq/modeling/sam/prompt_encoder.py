"""The prompt encoder: points, boxes and masks become embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_hq.modeling.layers import LayerNorm2d, WithTable
from sam2_hq.modeling.position_encoding import PositionEmbeddingRandom
from sam2_hq.structures import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING

NUM_POINT_KINDS = 4  # negative, positive, box top-left, box bottom-right


class PromptEncoder(WithTable):
    """Turn prompts into sparse tokens and a dense map.

    Args:
        embed_dim: channels C of tokens and map.
        image_embedding_size: (height, width) of the embedding grid.
        input_image_size: (height, width) of the model input, the frame of the coordinates.
        mask_in_chans: channels inside the mask path.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_embedding_size = image_embedding_size
        self.input_image_size = input_image_size
        self.mask_input_size = (4 * image_embedding_size[0], 4 * image_embedding_size[1])
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, embed_dim) for _ in range(NUM_POINT_KINDS)
        )
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )

    def prepare(self) -> None:
        """Keep the position map; call it when the weights are final."""
        self.keep_table(self._dense_pe())

    def table_weights(self) -> tuple[Tensor, ...]:
        """What the position map is made of."""
        return (self.pe_layer.positional_encoding_gaussian_matrix,)

    def get_dense_pe(self) -> Tensor:
        """Position map of the embedding grid, [1, C, g, g]."""
        table = self.kept_table()
        return self._dense_pe() if table is None else table

    def _dense_pe(self) -> Tensor:
        return self.pe_layer(self.image_embedding_size)[None]

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts.

        Args:
            points: coordinates [B, P, 2] in model pixels and labels [B, P] in -1..3.
            boxes: [B, 4] x0, y0, x1, y1 in model pixels.
            masks: [B, 1, 4g, 4g] mask logits.

        Returns:
            Sparse tokens [B, T, C], one a point plus a padding token unless boxes are given, and
            the dense map [B or 1, C, g, g] (or one that broadcasts to it).
        """
        parts = []
        if points is not None:
            parts.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2)
            kinds = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], device=boxes.device)
            labels = kinds.expand(corners.shape[0], 2)
            parts.append(self._embed_points(corners, labels, pad=False))
        if parts:
            sparse = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        else:
            batch = 1 if masks is None else masks.shape[0]
            sparse = self.no_mask_embed.weight.new_zeros(batch, 0, self.embed_dim)
        if masks is not None:
            return sparse, self.mask_downscaling(masks)
        return sparse, self.no_mask_embed.weight[:, :, None, None]

    def no_points(self, batch: int) -> Tensor:
        """Tokens [B, 2, C] of a frame without points: two paddings, as in the published models."""
        return self.not_a_point_embed.weight.expand(batch, 2, -1)

    def _embed_points(self, coords: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        scale = coords.new_tensor([self.input_image_size[1], self.input_image_size[0]])
        code = self.pe_layer.encode((coords + 0.5) / scale)
        padding = labels == PADDING
        kinds = torch.cat([e.weight for e in (*self.point_embeddings, self.not_a_point_embed)])
        kinds = F.pad(kinds, (0, 0, 0, 1))  # labels that mean nothing have a place alone
        known = (labels >= 0) & (labels < NUM_POINT_KINDS)
        index = torch.where(known, labels.long(), torch.where(padding, -2, -1))
        tokens = code.masked_fill(padding[..., None], 0.0) + kinds[index]
        if not pad:
            return tokens
        padded = self.not_a_point_embed.weight.expand(tokens.shape[0], 1, -1)
        return torch.cat([tokens, padded], dim=1)
