"""Where a network looked when it gave a label.

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391) where the network keeps a map of the picture up to its end:
convolutional networks, Swin. Attention roll-out (Abnar & Zuidema, ACL 2020, arXiv:2005.00928) where it mixes tokens by
attention: ViT, DeiT, BEiT. Each layer's attention is weighted by the gradient of the label's logit (Chefer et al., ICCV
2021, arXiv:2103.15679), since the plain roll-out says the same for every label.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from labelmill.errors import BundleError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.transform import evaluation_pixels
from labelmill.model.bundle import Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.network import head_of

__all__ = ["Explainer", "Explanation", "explain"]

# A last map of fewer places than this shows nothing: small pictures are explained by a layer further up.
_MIN_PLACES = 16
# Their outputs are no maps of the picture, or not at its own resolution.
_NO_MAPS = (nn.Dropout, nn.Identity, nn.Softmax, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`heat_hw` [S, S] lies over the pixels that the network sees (`evaluation_pixels`): 1.0 where most spoke for the
    label, 0.0 where nothing did, and 0.0 everywhere when nothing in the picture did."""

    heat_hw: NDArray[np.float32]
    method: Literal["Grad-CAM", "attention roll-out"]


def explain(bundle: Bundle, data: bytes, label: str, *, max_pixels: int = MAX_PIXELS) -> Explanation:
    """One picture, one label. ImageError: no pixels in `data`; BundleError: the bundle lacks the label, or is damaged.

    Loading takes longer than explaining: for several pictures keep an `Explainer`.
    """
    return Explainer(bundle, max_pixels=max_pixels).explain(data, label)


class Explainer:
    """A bundle, loaded on the CPU with what its layers say in between. Call it from one thread at a time."""

    def __init__(self, bundle: Bundle, *, max_pixels: int = MAX_PIXELS) -> None:
        self.bundle = bundle
        self._max_pixels = max_pixels
        self._module = PixelsToLogits.load(
            bundle.architecture, len(bundle.labels), bundle.preprocessing, bundle.weights_path()
        )
        self._trace = _Trace()
        self._trace.follow(self._module.network)

    def __repr__(self) -> str:
        return f"Explainer({self.bundle.reference})"

    def explain(self, data: bytes, label: str) -> Explanation:
        """As `labelmill.model.explain.explain`."""
        if label not in self.bundle.labels:
            known = ", ".join(self.bundle.labels)
            raise BundleError(f"{self.bundle.reference} has no label {label!r}; it has {known}.")
        pixels_hwc, _, _ = evaluation_pixels(data, self.bundle.preprocessing, max_pixels=self._max_pixels)
        with torch.enable_grad(), self._trace as trace:
            logits: Tensor = self._module(torch.from_numpy(pixels_hwc)[None])
            logit = logits[0, self.bundle.labels.index(label)]
            if trace.attentions and not trace.ends_in_map:
                heat = _roll_out(logit, trace.attentions, getattr(self._module.network, "num_prefix_tokens", 0))
                return Explanation(_spread(heat, pixels_hwc), "attention roll-out")
            return Explanation(_spread(_grad_cam(logit, trace.maps), pixels_hwc), "Grad-CAM")


class _Trace(TorchFunctionMode):
    """What one pass of one picture leaves behind: its maps and its attention, in the order in which they were made.

    Fused attention never shows its weights, so while the trace is entered it is computed in steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self.maps: list[Tensor] = []
        self.attentions: list[Tensor] = []  # [1, heads, N, N], how much each token took from each
        self.ends_in_map = False
        self._at_head = False

    def __enter__(self) -> "_Trace":
        super().__enter__()  # type: ignore[no-untyped-call]  # torch has no types here
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._forget()  # or the pass's memory stayed until the next

    def follow(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.register_forward_hook(_attend)
            if not isinstance(module, _NO_MAPS):
                module.register_forward_hook(self._see)
        head_of(network).register_forward_pre_hook(self._reach_head)

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        return self._attention(*args, **(kwargs or {}))

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """As torch.nn.functional.scaled_dot_product_attention of a network that does not learn: nothing is dropped."""
        del dropout_p
        weights = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if is_causal:
            attn_mask = torch.ones(weights.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            shut = ~attn_mask if attn_mask.dtype == torch.bool else None
            weights = weights + attn_mask if shut is None else weights.masked_fill(shut, -math.inf)
        weights = weights.softmax(dim=-1)
        if weights.shape[0] == 1 and weights.shape[-2] == weights.shape[-1]:
            self.attentions.append(weights)
            self.ends_in_map = False
        return weights @ value

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._at_head or not isinstance(output, Tensor) or not output.requires_grad:
            return
        if (found := _as_map(output)) is not None and found.shape[-1] > 1:
            self.maps.append(output)
            self.ends_in_map |= output.ndim == 4

    def _reach_head(self, module: nn.Module, inputs: Any) -> None:
        self._at_head = True


def _attend(module: nn.MultiheadAttention, inputs: tuple[Tensor, ...], output: Any) -> tuple[Tensor, None]:
    """torch's own attention layer of a transformer, over one sequence, by the function that the trace sees."""
    query, key, value = (
        part.reshape(*part.shape[:2], module.num_heads, -1).transpose(1, 2)
        for part in F.linear(inputs[0], module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1)
    )
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return module.out_proj(attended), None


def _as_map(output: Tensor) -> Tensor | None:
    """What a layer says of one picture as a map [C, side, side], if it is one: channels first, channels last, or tokens
    in rows behind those that belong to no place. A network sees squares, so its maps are squares."""
    if output.shape[0] != 1:
        return None
    match output.shape[1:]:
        case (_, height, width) if height == width:
            return output[0]
        case (height, width, _) if height == width:
            return output[0].permute(2, 0, 1)
        case (count, _):
            side = math.isqrt(count)
            return output[0, count - side * side :].reshape(side, side, -1).permute(2, 0, 1)
    return None


def _grad_cam(logit: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Channels weighted by their mean gradient, as far as their sum speaks for the label: [side, side]."""
    alike = [output for output in outputs if output.ndim == outputs[-1].ndim]  # not the stem of a network of tokens
    large = [output for output in alike if _places(output) >= _MIN_PLACES]
    output = large[-1] if large else max(alike, key=_places)
    (gradient,) = torch.autograd.grad(logit, output)
    maps, gradients = _as_map(output.detach()), _as_map(gradient)
    assert maps is not None and gradients is not None
    return (maps * gradients.mean(dim=(1, 2), keepdim=True)).sum(dim=0).relu()


def _places(output: Tensor) -> int:
    found = _as_map(output)
    return 0 if found is None else found.shape[1] * found.shape[2]


def _roll_out(logit: Tensor, attentions: Sequence[Tensor], num_prefix_tokens: int) -> Tensor:
    """How much of each place reached the logit, through every layer and past it: [side, side]."""
    same = [attention for attention in attentions if attention.shape[-1] == attentions[-1].shape[-1]]
    gradients = torch.autograd.grad(logit, same)
    # The tokens that the network's end reads are those through which a gradient comes: a class token, or all of them.
    reached = gradients[-1][0].abs().sum(dim=(0, 2))
    relevance = reached / reached.sum().clamp(min=torch.finfo(reached.dtype).tiny)
    for attention, gradient in zip(reversed(same), reversed(gradients), strict=True):
        relevance = relevance + relevance @ (attention * gradient)[0].detach().relu().mean(dim=0)
    side = math.isqrt(len(relevance) - num_prefix_tokens)
    places = relevance[len(relevance) - side * side :].reshape(side, side)
    return places - places.min()


def _spread(heat: Tensor, pixels_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
    size_px = pixels_hwc.shape[:2]
    spread = F.interpolate(heat.detach()[None, None], size_px, mode="bilinear", align_corners=False)[0, 0]
    result: NDArray[np.float32] = (spread / spread.max().clamp(min=torch.finfo(spread.dtype).tiny)).numpy()
    return result
