"""What torch.nn itself draws when a layer is built."""

from __future__ import annotations

import math

from torch import Tensor

from bnlm.init.fans import fans


def torch_default_std(weight: Tensor) -> float:
    """Return ``1 / sqrt(3 * fan_in)``, the standard deviation of torch.nn's Linear and convolution weights.

    torch draws them by ``kaiming_uniform_(weight, a=sqrt(5))``, that is from U(-b, b) with b = 1 / sqrt(fan_in)
    (`torch.nn.Linear.reset_parameters`): a gain of 1/sqrt(3) = 0.58, whatever the activation. The fan_in is that of the
    shape, for transposed convolutions too.
    """
    fan_in, _ = fans(weight)
    return 1.0 / math.sqrt(3.0 * fan_in)
