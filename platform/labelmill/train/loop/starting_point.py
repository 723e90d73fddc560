"""Where a network starts from: nothing, its library's hub, a file, or a version of ours."""

from dataclasses import dataclass, replace

from torch import nn

from labelmill.errors import SpecError
from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import Bundle
from labelmill.model.network import build_network, default_preprocessing
from labelmill.model.pruned import pruned_share
from labelmill.model.registry import Registry
from labelmill.train.job import Job

__all__ = ["StartingPoint", "starting_point"]


@dataclass(frozen=True)
class StartingPoint:
    """`source` is scratch, pretrained, the path of a .safetensors file, or a published version."""

    architecture: str
    source: str | Bundle
    preprocessing: Preprocessing

    def build(
        self, labels: tuple[str, ...], *, dropout: float | None = None, drop_path: float | None = None
    ) -> nn.Module:
        """The network with a logit for each label. A label that the published version knows keeps its row of the last
        layer, wherever it stands there; the others start from scratch. Errors as `build_network`, and BundleError."""
        weights, head_rows = self.source, None
        if isinstance(weights, Bundle):
            rows = {label: row for row, label in enumerate(weights.labels)}
            weights, head_rows = str(weights.weights_path()), [rows.get(label) for label in labels]
        return build_network(
            self.architecture,
            len(labels),
            weights,
            image_size_px=self.preprocessing.image_size_px,
            head_rows=head_rows,
            dropout=dropout,
            drop_path=drop_path,
        )


def starting_point(job: Job) -> StartingPoint:
    """What `model` says. The pictures are made as the published version wants them, or else as the architecture does;
    `image_size_px` overrules either. RegistryError, BundleError; SpecError: a version of another architecture."""
    architecture, weights, size_px = job.model.architecture, job.model.weights, job.model.image_size_px
    if "@" not in weights or weights.endswith(".safetensors"):
        return StartingPoint(architecture, weights, default_preprocessing(architecture, size_px))
    bundle = Registry(job.spec.registry).resolve(weights)
    _, whole = pruned_share(architecture) or (0, architecture)  # the weights to be pruned are those of the whole
    if bundle.architecture != whole:
        raise SpecError(
            f"model.weights: {weights} is a {bundle.architecture}, and model.architecture is {architecture}. "
            f"Write architecture: {bundle.architecture}, or start from other weights."
        )
    if size_px is None:
        return StartingPoint(architecture, bundle, bundle.preprocessing)
    return StartingPoint(architecture, bundle, replace(bundle.preprocessing, image_size_px=size_px))
