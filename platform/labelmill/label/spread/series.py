"""What Prometheus sees of a run on a cluster, beside what Ray Data says of its operators. Ray exports it with the other
metrics of the driver's node, and puts `ray_` before each name and `_total` behind those of counters."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from labelmill.label.work.chunk import Chunk

__all__ = ["Series"]


class Series:
    """The counters and gauges of one run; each has the job's name as label `job`."""

    def __init__(self, job: str) -> None:
        self._job = {"job": job}
        self._pictures = Counter(
            "labelmill_label_pictures",
            "Pictures that have a row now, by its status. All but ok are failures.",
            tag_keys=("job", "status"),
        )
        self._read_bytes = Counter(
            "labelmill_label_read_bytes", "Bytes that the workers read from the store.", tag_keys=("job",)
        )
        self._commits = Counter("labelmill_label_commits", "Commits to the table.", tag_keys=("job",))
        self._rate = Gauge(
            "labelmill_label_pictures_per_second", "Over the last half minute; 0 when over.", tag_keys=("job",)
        )
        self._todo = Gauge("labelmill_label_pictures_left", "Pictures of the run still to label.", tag_keys=("job",))
        self._left_s = Gauge("labelmill_label_seconds_left", "At the rate of the last half minute.", tag_keys=("job",))
        self._num_commits = 0

    def add(self, chunk: Chunk) -> None:
        """A chunk has been finished."""
        for status, count in chunk.statuses.items():
            self._pictures.inc(count, {**self._job, "status": status})
        if (read_bytes := sum(spent.traffic.read_bytes for spent in chunk.spent)) > 0:
            self._read_bytes.inc(read_bytes, self._job)

    def look(self, num_commits: int, pictures_per_s: float, pictures_left: int) -> None:
        """How the run stands now. Without a rate there is no telling how long it takes."""
        if num_commits > self._num_commits:
            self._commits.inc(num_commits - self._num_commits, self._job)
            self._num_commits = num_commits
        self._rate.set(pictures_per_s, self._job)
        self._todo.set(pictures_left, self._job)
        if pictures_per_s or not pictures_left:
            self._left_s.set(pictures_left / max(pictures_per_s, 1e-9), self._job)
