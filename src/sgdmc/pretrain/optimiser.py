"""Muon [1]_ for the matrices of the blocks, AdamW [2]_ for everything else.

References
----------
.. [1] Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
.. [2] Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Optimiser"]


def orthogonalise(update: Tensor, *, n_iter: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrices, roughly, by Newton–Schulz iteration.

    Parameters
    ----------
    update : Tensor (m, rows, columns), rows <= columns
    n_iter : int

    Returns
    -------
    Tensor (m, rows, columns)
        Singular values lie near 1 (within about .7 to 1.2).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = update / (update.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(n_iter):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Optimiser:
    """Update a :class:`sgdmc.pretrain.network.DigitNetwork` in place.

    Parameters
    ----------
    network : nn.Module
        Parameters of the blocks with two or three axes are matrices (the first of three is a
        stack); all others go to AdamW.
    matrix_rate, other_rate : float
        Step sizes before the schedule's factor.
    decay : float
        Weight decay of the matrices, in units of their step size.
    half : bool
        Orthogonalise in bfloat16.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        matrix_rate: float = 0.03,
        other_rate: float = 5e-3,
        decay: float = 0.02,
        half: bool = False,
    ) -> None:
        self.matrix_rate = matrix_rate
        self.decay = decay
        self.dtype = torch.bfloat16 if half else torch.float32
        self.matrices = [
            p for name, p in network.named_parameters() if "blocks" in name and p.ndim >= 2
        ]
        self.matrices = [p for p in self.matrices if p.shape[-2] > 3]
        chosen = {id(p) for p in self.matrices}
        others = [p for p in network.parameters() if id(p) not in chosen]
        self.momentum = [torch.zeros_like(p) for p in self.matrices]
        self.adam = torch.optim.AdamW(
            others, lr=other_rate, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0
        )
        self.other_rate = other_rate

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Apply the gradients with both step sizes multiplied by ``factor``."""
        groups: dict[tuple[int, int], list[tuple[Tensor, Tensor, bool]]] = {}
        for p, momentum in zip(self.matrices, self.momentum, strict=True):
            if p.grad is None:
                continue
            momentum.mul_(0.95).add_(p.grad)
            update = p.grad + 0.95 * momentum
            weights = p if p.ndim == 3 else p[None]
            update = update if p.ndim == 3 else update[None]
            for weight, u in zip(weights, update, strict=True):
                tall = u.shape[0] > u.shape[1]
                u = u.T if tall else u
                groups.setdefault((u.shape[0], u.shape[1]), []).append((weight, u, tall))
        for entries in groups.values():
            direction = orthogonalise(torch.stack([u for _, u, _ in entries]).to(self.dtype))
            for (weight, _, tall), u in zip(entries, direction, strict=True):
                rate = self.matrix_rate * factor
                gain = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1.0 - self.decay * rate)
                weight.add_((u.T if tall else u).to(weight.dtype), alpha=-rate * gain)
        for group in self.adam.param_groups:
            group["lr"] = self.other_rate * factor
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for mine, theirs in zip(self.momentum, state["momentum"], strict=True):
            mine.copy_(theirs)
        self.adam.load_state_dict(state["adam"])
