"""The stock Ray Data pattern of https://docs.ray.io/en/latest/data/working-with-images.html: read_images, a map that
transforms, and map_batches over a pool of actors with the network.

`read: binary` is the other form of its documentation, read_binary_files and one pool of actors that decodes and labels;
`between` says in what form pixels go from stage to stage: float32, as the documentation has it, or uint8.
"""

import os
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1", RAY_worker_niceness="0")

import numpy as np
import ray
import torch

from field.pillow_torch import Network, PictureTransform
from field.trial import Progress, Trial


def transform_image(row: dict[str, Any], transform: PictureTransform, trial: Trial) -> dict[str, Any]:
    pixels = transform(row["image"])
    if trial.settings["between"] == "float32":
        mean, std = np.float32(trial.card.mean) * 255, np.float32(trial.card.std) * 255
        pixels = ((pixels - mean) / std).transpose(2, 0, 1)
    return {"uri": row["path"], "image": pixels}


def _network(trial: Trial) -> Network:
    settings = trial.settings
    return Network(trial.model, threads=settings["threads"], bfloat16=settings.get("bfloat16", False))


class ImageClassifier:
    def __init__(self, trial: Trial) -> None:
        self._network = Network(
            trial.model, threads=trial.settings["threads"], bfloat16=trial.settings.get("bfloat16", False)
        )
        self._progress = Progress(trial)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        images = torch.as_tensor(np.array(batch["image"]))
        is_normalized = images.dtype == torch.float32
        labels = self._network.label_normalized(images) if is_normalized else self._network(images)
        self._progress.done(len(labels))
        return {"uri": batch["uri"], "label": labels}


class ImageDecoderAndClassifier:
    def __init__(self, trial: Trial) -> None:
        self._network = Network(
            trial.model, threads=trial.settings["threads"], bfloat16=trial.settings.get("bfloat16", False)
        )
        self._transform = PictureTransform(trial.card)
        self._progress = Progress(trial)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        labels = self._network(np.stack([self._transform(data) for data in batch["bytes"]]))
        self._progress.done(len(labels))
        return {"uri": batch["path"], "label": labels}


def main() -> None:
    trial = Trial.of_this_process()
    settings = trial.settings
    ray.init(num_cpus=trial.cores, include_dashboard=False, log_to_driver=False)
    if settings["read"] == "images":
        pictures = ray.data.read_images(trial.pictures, mode="RGB", include_paths=True).map(
            transform_image, fn_kwargs={"transform": PictureTransform(trial.card), "trial": trial}
        )
        classifier: type = ImageClassifier
    else:
        pictures = ray.data.read_binary_files(trial.pictures, include_paths=True)
        classifier = ImageDecoderAndClassifier
    pictures.map_batches(
        classifier,
        batch_size=settings["batch_size"],
        compute=ray.data.ActorPoolStrategy(size=settings["actors"]),
        num_cpus=settings["actor_cpus"],
        fn_constructor_kwargs={"trial": trial},
    ).write_parquet(trial.output)


if __name__ == "__main__":
    main()
