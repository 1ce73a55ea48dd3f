"""One thread for every test and the programs it starts.

How many threads share a sum can change its last bit, and with it a pixel; on a busy machine the
libraries behind torch decide that anew from call to call.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch  # reads the variable

torch.set_num_threads(1)
