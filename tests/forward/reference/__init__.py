"""A second opinion on lib/forward: teacher-forced log-probabilities in NumPy and fp64, of files alone.

No rounding is added anywhere: norms, softmax, RoPE tables and routers are fp64 too, where transformers
goes through fp32. No code is shared with lib/forward, and none with transformers.
"""

from .model import SUPPORTED, logprobs_of, token_logprobs

__all__ = ["SUPPORTED", "logprobs_of", "token_logprobs"]
