"""A kept import path: the HQ token is a part of the one decoder (`hq=True`)."""

from sam2_hq.modeling.sam.mask_decoder import MaskDecoder

MaskDecoderHQ = MaskDecoder
