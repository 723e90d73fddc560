"""A training run on an MLflow server: parameters, curves, report, and where the bundle lies.

The run there carries the run's own identity as a tag, so a run that is started again, anywhere, goes on in it. The
trials of a search lie below the search.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from labelmill.errors import ClusterError
from labelmill.model.bundle import Bundle
from labelmill.train.job import Job
from labelmill.train.tracking.curves import Point

__all__ = ["MlflowRun"]

# MLflow's own limits: characters of a parameter, and what one request may hold.
_MAX_PARAMETER_LENGTH = 6000
_NUM_PARAMETERS_AT_ONCE = 100
_NUM_METRICS_AT_ONCE = 1000

_IDENTITY = "labelmill.run"
# Every epoch has one, at its last step.
_LAST_OF_AN_EPOCH = "speed/pictures_per_s"
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A run must not stand still for the four minutes that MLflow would try.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MlflowRun:
    """The run of this identity in the experiment that the spec names; made when it is not there yet.

    ClusterError, from every method: no MLflow is installed, or its server does not do what it is asked.
    """

    def __init__(self, job: Job) -> None:
        assert job.spec.tracking.mlflow is not None
        self._uri = job.spec.tracking.mlflow
        os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ClusterError("tracking.mlflow needs MLflow's client: pip install 'labelmill[mlflow]'") from None
        with self._answering():
            self._client = MlflowClient(tracking_uri=self._uri)
            self._run_id = self._find_or_create(job)
            self._log_parameters(job.source)
            shown = self._client.get_metric_history(self._run_id, _LAST_OF_AN_EPOCH)
            self.last_step = max((metric.step for metric in shown), default=0)

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, round(point.at_s * 1000), point.step) for point in points]
        with self._answering():
            for start in range(0, len(metrics), _NUM_METRICS_AT_ONCE):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + _NUM_METRICS_AT_ONCE])
        self.last_step = points[-1].step

    def finish(self, bundle: Bundle) -> None:
        """The bundle's measurements, report, spec and address; and the run has ended."""
        with self._answering():
            for split in ("validation", "test"):
                for name, value in bundle.metrics.get(split, {}).items():
                    if isinstance(value, int | float):
                        self._client.log_metric(self._run_id, f"bundle/{split}/{name}", value)
            tags = {"reference": bundle.reference, "digest": bundle.digest, "uri": bundle.uri}
            for name, text in tags.items():
                self._client.set_tag(self._run_id, f"labelmill.bundle.{name}", text)
            for name in [name for name in bundle.files if name.endswith(".html")]:
                self._client.log_text(self._run_id, bundle.read_file(name).decode(), name)
            self._client.log_dict(self._run_id, bundle.spec, "spec.yaml")
            self._client.set_terminated(self._run_id, "FINISHED")

    def end(self, status: str) -> None:
        with self._answering():
            self._client.set_terminated(self._run_id, status)

    def _find_or_create(self, job: Job) -> str:
        experiment = self._experiment(job.spec.tracking.experiment or job.spec.name)
        identity = job.run_uri.rpartition("/runs/")[2]
        if found := self._find(experiment, identity):
            self._client.update_run(found, status="RUNNING")
            return found
        search, _, trial = identity.partition("/trials/")
        tags = {_IDENTITY: identity}
        if trial and (parent := self._find(experiment, search)):
            tags["mlflow.parentRunId"] = parent
        name = f"trial {int(trial)}" if trial else f"{job.spec.name} {identity[:8]}"
        return str(self._client.create_run(experiment, tags=tags, run_name=name).info.run_id)

    def _find(self, experiment: str, identity: str) -> str | None:
        found = self._client.search_runs([experiment], f"tags.`{_IDENTITY}` = '{identity}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another run was quicker
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, text[:_MAX_PARAMETER_LENGTH]) for key, text in _flat(parameters, "")]
        for start in range(0, len(params), _NUM_PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + _NUM_PARAMETERS_AT_ONCE])

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as exc:
            reason = (str(exc).strip() or type(exc).__name__).splitlines()[0][:300]
            raise ClusterError(f"MLflow at {self._uri} did not do what it was asked: {reason}") from exc


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
