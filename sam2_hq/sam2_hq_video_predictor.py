"""A kept import path: one predictor serves plain and HQ models."""

from sam2_hq.sam2_video_predictor import SAM2VideoPredictor

SAM2HQVideoPredictor = SAM2VideoPredictor
