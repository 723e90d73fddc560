"""What schedulers and operators are told of a spec: Kubernetes, KubeRay, cron, systemd. Nothing is started here."""

from labelmill.cluster.deploy.deploy import TARGETS, deployed

__all__ = ["TARGETS", "deployed"]
