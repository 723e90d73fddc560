"""Daft with a class function, as in its own benchmark of image classification: from_glob_path, download, decode, and
`@daft.cls` with a batch method that holds the network.

`decode: daft` lets Daft decode, `decode: pillow` hands the class the bytes, for it to decode.
"""

import os

os.environ.update(DAFT_ANALYTICS_ENABLED="0", DAFT_PROGRESS_BAR="0", DO_NOT_TRACK="true")

import daft
import numpy as np
from daft import col
from daft.functions import decode_image, download

from field.pillow_torch import Network, PictureTransform
from field.trial import Progress, Trial


def main() -> None:
    trial = Trial.of_this_process()
    settings = trial.settings
    daft.set_runner_native()

    @daft.cls(max_concurrency=settings["instances"], use_process=settings["process"])
    class Classifier:
        def __init__(self) -> None:
            self._network = Network(trial.model, threads=settings["threads"], bfloat16=settings.get("bfloat16", False))
            self._transform = PictureTransform(trial.card)
            self._progress = Progress(trial)

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=settings["batch_size"])
        def label(self, pictures: daft.Series) -> list[str]:
            labels = self._network(np.stack([self._transform(picture) for picture in pictures.to_pylist()]))
            self._progress.done(len(labels))
            return labels

    pictures = daft.from_glob_path(f"{trial.pictures}/*").with_column("picture", download(col("path")))
    if settings["decode"] == "daft":
        pictures = pictures.with_column("picture", decode_image(col("picture"), mode="RGB"))
    labelled = pictures.with_column("label", Classifier().label(col("picture")))
    labelled.select(col("path").alias("uri"), "label").write_parquet(trial.output)


if __name__ == "__main__":
    main()
