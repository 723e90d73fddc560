"""The plain way: PyTorch, timm and a DataLoader, with the recipe of a labelmill spec. Run with a JSON file that names
the pictures of each split, the recipe and where the result goes; needs no labelmill.
"""

import json
import math
import sys
import time
from pathlib import Path

import timm
import timm.optim
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset[tuple[Tensor, int]]):
    def __init__(self, examples: list[tuple[str, int]], transform: transforms.Compose) -> None:
        self._examples, self._transform = examples, transform

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self._examples[index]
        return self._transform(Image.open(path).convert("RGB")), label


def main(file: str) -> None:
    trial = json.loads(Path(file).read_text())
    recipe = trial["recipe"]
    torch.set_num_threads(trial["threads"])
    torch.manual_seed(recipe["seed"])
    network = timm.create_model(recipe["architecture"].removeprefix("timm/"), num_classes=len(trial["labels"]))
    network.to(memory_format=torch.channels_last)
    config = timm.data.resolve_data_config(pretrained_cfg=network.pretrained_cfg)
    loaders = _loaders(trial, recipe, config["mean"], config["std"], config["crop_pct"])
    optimizer = timm.optim.create_optimizer_v2(
        network, opt="adamw", lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"]
    )
    best, rates, state = -1.0, [], {}
    for epoch in range(recipe["epochs"]):
        rates.append(_epoch(network, optimizer, loaders["train"], epoch, recipe))
        accuracy = _accuracy(network, loaders["validation"])
        if accuracy > best:
            best, state = accuracy, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    result = {"accuracy": _accuracy(network, loaders["test"]), "pictures_per_s": rates}
    Path(trial["result"]).write_text(json.dumps(result))


def _loaders(
    trial: dict, recipe: dict, mean: tuple[float, ...], std: tuple[float, ...], crop: float
) -> dict[str, DataLoader]:
    size = recipe["image_size_px"]
    to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    bicubic = transforms.InterpolationMode.BICUBIC
    varied = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=tuple(recipe["crop_scale"]), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            *to_tensor,
        ]
    )
    plain = transforms.Compose(
        [transforms.Resize(math.floor(size / crop), interpolation=bicubic), transforms.CenterCrop(size), *to_tensor]
    )
    settings = {"num_workers": trial["workers"], "persistent_workers": trial["workers"] > 0}
    return {
        split: DataLoader(
            Pictures(trial["examples"][split], varied if split == "train" else plain),
            batch_size=recipe["batch_size"],
            shuffle=split == "train",
            drop_last=split == "train",
            **settings,
        )
        for split in ("train", "validation", "test")
    }


def _epoch(network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, epoch: int, recipe: dict) -> float:
    """Pictures a second of one epoch."""
    network.train()
    started, count = time.monotonic(), 0
    for step, (pixels, targets) in enumerate(loader):
        rate = _learning_rate(epoch * len(loader) + step, len(loader), recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = functional.cross_entropy(network(pixels.to(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        count += len(targets)
    return count / (time.monotonic() - started)


def _learning_rate(step: int, num_steps: int, recipe: dict) -> float:
    warmup = round(recipe["warmup_epochs"] * num_steps)
    if step < warmup:
        return recipe["learning_rate"] * (step + 1) / warmup
    done = (step - warmup) / max(1, recipe["epochs"] * num_steps - warmup)
    return recipe["learning_rate"] * 0.5 * (1 + math.cos(math.pi * done))


@torch.inference_mode()
def _accuracy(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    right = [
        (network(pixels.to(memory_format=torch.channels_last)).argmax(1) == targets).sum().item()
        for pixels, targets in loader
    ]
    return sum(right) / len(loader.dataset)


if __name__ == "__main__":
    main(sys.argv[1])
