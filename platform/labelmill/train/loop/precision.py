"""What the network computes in."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

__all__ = ["Precision"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The type of the network's arithmetic on a device; weights, losses and what an optimizer keeps stay in float32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str, device: torch.device) -> "Precision":
        """`auto` is bfloat16 on a GPU that has it, float16 on an older one, and float32 on a CPU."""
        if name != "auto":
            return cls(device, _DTYPES[name])
        if device.type != "cuda":
            return cls(device, torch.float32)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return cls(device, torch.bfloat16 if native else torch.float16)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> GradScaler:
        """Keeps gradients within the small range of float16 (Micikevicius et al., 2018); otherwise it does nothing."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)
