"""The pictures to learn from, their labels, and how they are shared out."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.parts import Fraction, Number, Part, Place, Seed, Uri, expected

__all__ = ["ExtraData", "LabelsAddress", "Split", "SplitWay", "TrainData"]

LABEL_FILES = (".csv", ".jsonl", ".parquet")


def _labels(value: str) -> str:
    if value == "folders" or value.lower().endswith(LABEL_FILES):
        return value
    what = f"folders, or the address of a {listing(LABEL_FILES)} file"
    raise expected(what, suggestion=nearest(value, ("folders",)))


LabelsAddress = Annotated[str, AfterValidator(_labels), Place("folders")]


SplitWay = Literal["hash", "stratified"]


class Split(Part):
    """How the pictures are shared out where the labels file has no `split` column. The three shares add up to 1."""

    way: SplitWay = Field(
        default="hash",
        description="hash: the seed and a picture's group, or its address below images, decide alone, so more pictures "
        "move none that are there and versions are compared on pictures that none has trained on; of n pictures a "
        "split with share s gets n s, give or take 2 sqrt(n s (1 - s)), and so it is for each label. stratified: every "
        "label keeps its shares to the picture, and one picture more may move any other: for sets of fewer than some "
        "hundred pictures that do not grow.",
    )
    train: Fraction = Field(gt=0, description="Share that the network learns from.")
    validation: Fraction = Field(
        gt=0, description="Share that chooses the best epoch, the calibration and the thresholds."
    )
    test: Fraction = Field(description="Share that only measures the result.")
    seed: Seed = Field(default=0, description="The same seed gives the same split.")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise expected(f"train, validation and test to add up to 1, and they add up to {total:g}")
        return self


class ExtraData(Part):
    """Further pictures that only train, such as synthetic or foreign ones. Their labels must be among the main ones."""

    images: Uri = Field(description="Root of these pictures; relative uris in their labels file start here.")
    labels: LabelsAddress = Field(description="As data.labels; columns split, group and slice are ignored.")
    weight: Number = Field(
        default=1.0,
        gt=0,
        le=100,
        description="How many of them an epoch holds for each main training picture, however many there are: with 0.5 "
        "one for every two, another part of them in each epoch, or some of them again.",
    )


class TrainData(Part):
    """The pictures to learn from and their labels."""

    images: Uri = Field(description="Root of the pictures; relative uris in the labels file start here.")
    labels: LabelsAddress = Field(
        description="A csv, jsonl or parquet file with the columns uri, labels and perhaps split, group (pictures of "
        "one group stay in one split) and slice (measured apart); or `folders`: the parent folder of a picture is its "
        "label, and top folders named train, validation and test are the splits."
    )
    positive: str | None = Field(
        default=None, min_length=1, description="With task binary and labels from folders: the folder that means yes."
    )
    split: Split = Split(train=0.8, validation=0.1, test=0.1)
    sources: tuple[ExtraData, ...] = Field(default=(), description="Further pictures to mix into training.")
    duplicates: Literal["ignore", "report", "together"] = Field(
        default="report",
        description="Pictures that are the same or nearly: report looks at every picture once and tells them, most of "
        "all those in two splits; together also keeps them in one split.",
    )
    suspects: Literal["held_out", "all"] = Field(
        default="held_out",
        description="Where to look for labels that are likely wrong: among validation and test pictures, or among the "
        "training pictures, too, by the features that the network has of them: one more pass over them. A network that "
        "learnt all its features from wrong labels doubts fewer of them.",
    )
