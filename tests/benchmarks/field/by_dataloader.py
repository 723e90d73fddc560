"""A PyTorch DataLoader with Pillow and torchvision, the way of timm's inference.py: workers decode, one process labels.

Unlike timm's it keeps a picture's own name with it.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from field.pillow_torch import Network, PictureTransform
from field.trial import Card, Progress, Trial


class Pictures(Dataset):
    def __init__(self, folder: str, card: Card) -> None:
        self.paths = sorted(str(path) for path in Path(folder).iterdir())
        self._transform = PictureTransform(card)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        path = self.paths[index]
        return self._transform(Path(path).read_bytes()), path


def together(items: list[tuple[np.ndarray, str]]) -> tuple[torch.Tensor, list[str]]:
    return torch.from_numpy(np.stack([pixels for pixels, _ in items])), [path for _, path in items]


def main() -> None:
    trial = Trial.of_this_process()
    settings = trial.settings
    batch_size = settings["batch_size"]
    loader = DataLoader(
        Pictures(trial.pictures, trial.card),
        batch_size=batch_size,
        num_workers=settings["workers"],
        collate_fn=together,
    )
    compiled_for = batch_size if settings.get("compile") else None
    network = Network(
        trial.model, threads=settings["threads"], bfloat16=settings.get("bfloat16", False), compiled_for=compiled_for
    )
    progress = Progress(trial)
    uris: list[str] = []
    labels: list[str] = []
    for pixels, paths in loader:
        labels += network(pixels)
        uris += paths
        progress.done(len(paths))
    pq.write_table(pa.table({"uri": uris, "label": labels}), Path(trial.output, "labels.parquet"))


if __name__ == "__main__":
    main()
