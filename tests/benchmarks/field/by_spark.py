"""Spark with an iterator pandas UDF, as Databricks documents inference on images: the binaryFile source, or a table of
paths whose files the UDF opens, and one network for each Python worker.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col, pandas_udf

from field.pillow_torch import PictureTransform, network_of_process
from field.trial import Progress, Trial


def main() -> None:
    trial = Trial.of_this_process()
    settings = trial.settings
    reads_files = settings["read"] == "paths"
    spark = session(trial)

    @pandas_udf("string")
    def label(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        network = network_of_process(trial.model, settings["threads"], settings.get("bfloat16", False))
        transform = PictureTransform(trial.card)
        progress = Progress(trial)
        for batch in batches:
            pictures = (Path(path).read_bytes() for path in batch) if reads_files else iter(batch)
            labels = network(np.stack([transform(bytes(picture)) for picture in pictures]))
            progress.done(len(labels))
            yield pd.Series(labels)

    pictures = listed(spark, trial) if reads_files else spark.read.format("binaryFile").load(trial.pictures)
    labelled = pictures.select(
        col("path").alias("uri"), label(col("path" if reads_files else "content")).alias("label")
    )
    labelled.write.mode("overwrite").parquet(trial.output)
    spark.stop()


def listed(spark: SparkSession, trial: Trial) -> DataFrame:
    paths = [(str(path),) for path in sorted(Path(trial.pictures).iterdir())]
    return spark.createDataFrame(paths, "path string").repartition(4 * trial.cores)


def session(trial: Trial) -> SparkSession:
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    settings = {
        "spark.driver.memory": "4g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(trial.settings["batch_size"]),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.files.maxPartitionBytes": str(trial.settings.get("partition_mib", 128) * 2**20),
        "spark.local.dir": str(Path(trial.output).parent),
    }
    builder = SparkSession.builder.master(f"local[{trial.cores}]").appName("bulk")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


if __name__ == "__main__":
    main()
