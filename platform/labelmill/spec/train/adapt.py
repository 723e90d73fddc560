"""How a published model is adapted to pictures of another kind, without labels."""

from pydantic import Field

from labelmill.spec.parts import Part, Seed, Uri, Whole
from labelmill.spec.train.published import Published

__all__ = ["Adapt"]


class Adapt(Part):
    """A published model whose normalisation statistics are estimated anew on unlabelled pictures of the target."""

    model: Published = Field(description="The published model, <name>@<version>.")
    images: Uri = Field(description="Folder or prefix of unlabelled pictures as the model will meet them.")
    max_pictures: Whole = Field(
        default=1024, ge=2, description="At most so many of them are looked at, drawn at random from all."
    )
    prior_pictures: Whole = Field(
        default=16,
        ge=0,
        description="For how many pictures the old statistics count: a guard where the target gives only a few.",
    )
    seed: Seed = Field(default=0, description="Of the draw.")
