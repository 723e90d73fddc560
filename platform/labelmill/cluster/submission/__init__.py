"""Work for a cluster that this machine is no node of: jobs through Ray's Jobs API, endpoints through that of Serve."""

from labelmill.cluster.submission.dashboard import Dashboard
from labelmill.cluster.submission.endpoint import Endpoint, declare, endpoints, remove, wait_until_it_answers
from labelmill.cluster.submission.following import follow, wait_for_end
from labelmill.cluster.submission.job import Job
from labelmill.cluster.submission.submit import Submission, secrets_of, submit

__all__ = [
    "Dashboard",
    "Endpoint",
    "Job",
    "Submission",
    "declare",
    "endpoints",
    "follow",
    "remove",
    "secrets_of",
    "submit",
    "wait_for_end",
    "wait_until_it_answers",
]
