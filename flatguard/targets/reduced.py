"""Wrappers that compute a model in another layout or in a lower precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelsLast(nn.Module):
    """The model in channels-last layout, inside only: images and gradients stay NCHW-contiguous.

    AutoAttack's gradient check calls `.view`, which raises on a channels-last gradient.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        if images.requires_grad and torch.is_grad_enabled():
            images = images.view_as(images)  # a hook on the attack's own tensor would stay
            images.register_hook(lambda gradient: gradient.contiguous())
        logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits


class Reduced(nn.Module):
    """The model under autocast, with float32 images, logits and gradients.

    Weights and normalisation stay in float32; convolutions and matrix products are computed in the
    lower precision. bfloat16 has float32's range. Gradients of confident samples are below
    float16's smallest number, so each sample's are scaled by a power of two on their way back.

    Args:
        model: in float32.
        dtype: bfloat16 or float16.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """The logits, in float32."""
        scale = None
        if self.dtype == torch.float16 and images.requires_grad and torch.is_grad_enabled():
            scale, images = _GradientScale(), images.view_as(images)
            images.register_hook(scale.remove)
        with torch.autocast(images.device.type, self.dtype):
            output: Tensor = self.model(images)
        logits = output.float()
        if scale is not None and logits.requires_grad:
            logits.register_hook(scale.apply)
        return logits


class _GradientScale:
    """Brings each sample's gradient to about 1 at the logits, and back to its size at the input.

    Powers of two, so that nothing is rounded. A backward pass is linear in the gradient, and in
    eval mode each sample's is its own.
    """

    def __init__(self) -> None:
        self._factor = torch.ones(1)

    def apply(self, gradient: Tensor) -> Tensor:
        """A hook on the logits, `(n, k)`."""
        _, exponent = torch.frexp(gradient.detach().abs().amax(dim=1))
        self._factor = torch.ldexp(torch.ones_like(gradient[:, 0]), exponent)
        return gradient / self._factor[:, None]

    def remove(self, gradient: Tensor) -> Tensor:
        """A hook on the images, `(n, ...)`."""
        return gradient * self._factor.view(-1, *[1] * (gradient.ndim - 1))
