"""What a run costs, by the prices that its spec names."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.spec import Prices
from labelmill.storage import Traffic

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """Money, in `currency`. Cores and GPUs are those that the workers held, for as long as the run took."""

    cores: float
    gpus: float
    requests: float
    transfer: float
    currency: str

    @property
    def total(self) -> float:
        return self.cores + self.gpus + self.requests + self.transfer

    def per_million(self, num_pictures: int) -> float | None:
        return self.total / num_pictures * 1_000_000 if num_pictures else None

    def said(self, amount: float) -> str:
        """An amount with enough digits to be more than nothing: 0.00021 USD, 12.40 USD."""
        return f"{amount:,.2f} {self.currency}" if amount >= 1 or not amount else f"{amount:.2g} {self.currency}"


def cost_of(prices: Prices, *, core_hours: float, gpu_hours: float, traffic: Traffic) -> Cost:
    """The cost of `core_hours`, `gpu_hours` and what went to and from the object store."""
    requests = (
        traffic.gets * prices.get_per_1000 + traffic.puts * prices.put_per_1000 + traffic.lists * prices.list_per_1000
    ) / 1000
    return Cost(
        cores=core_hours * prices.core_hour,
        gpus=gpu_hours * prices.gpu_hour,
        requests=requests,
        transfer=traffic.read_bytes / 1e9 * prices.transfer_gb,
        currency=prices.currency,
    )
