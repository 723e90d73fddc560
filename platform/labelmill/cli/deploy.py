"""`labelmill deploy`: what has a scheduler run a job, or an operator keep an endpoint up."""

from enum import StrEnum
from typing import Annotated

import typer

from labelmill import __version__
from labelmill.cli.arguments import Overrides, SpecPath
from labelmill.cli.output import put

__all__ = ["deploy_command"]


class Target(StrEnum):
    CRONJOB = "cronjob"
    RAYCRONJOB = "raycronjob"
    CRONTAB = "crontab"
    SYSTEMD = "systemd"
    RAYSERVICE = "rayservice"


def deploy_command(
    path: SpecPath,
    target: Annotated[Target, typer.Option("--to", help="What shall run it.", show_default=False)],
    overrides: Overrides = None,
    image: Annotated[
        str, typer.Option("--image", envvar="LABELMILL_IMAGE", help="The container image, for Kubernetes.")
    ] = f"labelmill:{__version__}",
) -> None:
    """Print what has a scheduler run a job every night, or an operator keep an endpoint up.

    By the `schedule` of the spec, for Kubernetes (cronjob, raycronjob with KubeRay 1.7), cron and systemd; an endpoint
    for rayservice and systemd. Secrets stay variables, of a Secret or a file that the first lines name.

    Example: labelmill deploy jobs/label.yaml --to cronjob --set 'schedule.cron=0 2 * * *' | kubectl apply -f -
    """
    from labelmill.cluster.deploy import deployed
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or (), secrets_are_elsewhere=True)
    put(deployed(loaded, target.value, overrides=overrides or (), image=image).removesuffix("\n"))
