"""One thread for every test and the programs it starts; no example is too slow.

How many threads share a sum can change its last bit, and with it a pixel; on a busy machine the
libraries behind torch decide that anew from call to call. How long an example takes there says
nothing about it either.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch  # reads the variable
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")
