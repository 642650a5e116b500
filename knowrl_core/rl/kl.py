"""Estimators of KL(policy || reference) from tokens that the policy sampled.

With ``d = log policy(x) - log reference(x)`` for a token x (Schulman 2020, "Approximating KL Divergence"):

* k1 = d: unbiased; single values may be negative.
* k2 = d^2 / 2: biased, never negative; its gradient is that of the KL.
* k3 = exp(-d) - 1 + d: unbiased, never negative.

In the loss, k1's gradient vanishes in expectation (it is the score function alone), so there it only adds noise: use k2
or k3 with ``rl.kl_in: loss``.
"""

from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
Values = TypeVar("Values", Tensor, NDArray[np.float64])


def kl_estimate(policy: Values, reference: Values, estimator: Estimator) -> Values:
    """Estimate the KL per token, in nats; tensors keep their gradient.

    Args:
        policy: [N] log-probabilities by the policy.
        reference: [N] by the reference.
        estimator: Which estimate.
    """
    difference = policy - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    if isinstance(difference, Tensor):
        return torch.expm1(-difference) + difference
    return np.expm1(-difference) + difference
