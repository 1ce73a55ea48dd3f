"""A kept import path: HQ is a fact of the config, not a second class."""

from sam2_hq.modeling.sam2_base import SAM2Base

SAM2HQBase = SAM2Base
