"""`labelmill submit` and what follows: jobs that run on a cluster which this machine is no node of."""

import json
import sys
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.cli.arguments import Overrides, SpecPath
from labelmill.cli.output import print_table, put
from labelmill.errors import ClusterError, SpecError
from labelmill.terminal import log_to, printable_lines

if TYPE_CHECKING:
    from labelmill.cluster.submission import Dashboard, Endpoint, Job
    from labelmill.spec import LoadedSpec

__all__ = ["submitted"]

submitted = typer.Typer()


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter(f"expected a date such as 2026-11-27, got {text!r}") from exc


Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="URL",
        help="The cluster's dashboard, http://HOST:8265; its token by RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.",
        show_default=False,
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `labelmill submit` and `labelmill jobs` say it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
_STOPPED_WITHIN_S = 75.0  # Ray kills after 60


@submitted.command("submit")
def submit_command(
    path: SpecPath,
    address: Address,
    overrides: Overrides = None,
    night: Annotated[
        date | None,
        typer.Option(
            "--night",
            parser=_date,
            metavar="DATE",
            help="Which night's job this is; without it today, in the time zone of the spec's schedule.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it, and exit with its exit code.")] = False,
    ship_code: Annotated[
        bool, typer.Option("--ship-code", help="Send this labelmill's code along, for development.")
    ] = False,
    send_secrets: Annotated[
        bool,
        typer.Option(
            "--send-secrets",
            help="Send the values of the variables that carry secrets. Whoever has the cluster's token can read them "
            "from then on; without it the nodes must have these variables.",
        ),
    ] = False,
) -> None:
    """Hand a job to a Ray cluster, or have it serve an endpoint.

    The same spec for the same night is one job: it is followed while it runs and when it has succeeded, and handed over
    again only after it failed or was stopped. An endpoint is known by its name, and changed in place.

    Example: labelmill submit jobs/label.yaml --address http://head:8265 --wait
    """
    from labelmill.cluster.submission import Dashboard, secrets_of, submit
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or (), secrets_are_elsewhere=True)
    with log_to(sys.stderr):
        dashboard = Dashboard(address)
        secrets = secrets_of(loaded) if send_secrets else {}
        if loaded.spec.kind == "serve":
            if night is not None or ship_code:
                raise SpecError("--night and --ship-code are for jobs, and kind: serve is an endpoint: leave them out")
            _declare(loaded, dashboard, secrets, wait=wait)
            return
        found = submit(loaded, dashboard, night=night, ship_code=ship_code, secrets=secrets)
    job = found.job
    put(f"submitted {job.id}" if found.is_new else f"{job.id} is there already: {job.status}")
    if wait:
        _follow(dashboard, job.id)
    elif not job.is_over:
        put(f"follow it with `labelmill logs {job.id} --follow --address {dashboard.address}`", err=True)


@submitted.command("jobs")
def jobs_command(address: Address, as_json: AsJson = False) -> None:
    """The jobs of a Ray cluster, oldest first, and what it serves.

    Example: labelmill jobs --address http://head:8265
    """
    from labelmill.cluster.submission import endpoints

    dashboard = _dashboard(address)
    records = [*map(_record, dashboard.jobs()), *map(_endpoint_record, endpoints(dashboard))]
    if as_json:
        put(json.dumps(records, indent=2))
    elif records:
        print_table(["job", "status", "started", "took", "exit code"], [_row(record) for record in records])
    else:
        put("no jobs", err=True)


@submitted.command("status")
def status_command(job_id: JobId, address: Address, as_json: AsJson = False) -> None:
    """How a submitted job, or an endpoint, is doing.

    Example: labelmill status label-nightly-2026-11-27-0f3a9c1b-1 --address http://head:8265
    """
    dashboard = _dashboard(address)
    name = _served(job_id)
    record = _endpoint_record(_endpoint(dashboard, name)) if name else _record(dashboard.job(job_id))
    if as_json:
        put(json.dumps(record, indent=2))
        return
    code = "" if record["exit_code"] is None else f", exit code {record['exit_code']}"
    took = f", {record['took_s']:,.0f} s" if record["took_s"] is not None else ""
    put(printable_lines(f"{record['status']}{code}{took}"))
    if record["message"]:
        put(printable_lines(record["message"]))


@submitted.command("logs")
def logs_command(
    job_id: JobId,
    address: Address,
    following: Annotated[
        bool, typer.Option("--follow", help="Go on until it ends, and exit with its exit code.")
    ] = False,
) -> None:
    """What a submitted job has written.

    Example: labelmill logs label-nightly-2026-11-27-0f3a9c1b-1 --follow --address http://head:8265
    """
    dashboard = _dashboard(address)
    if _served(job_id):
        raise ClusterError(
            f"an endpoint writes where its replicas are: see Serve's page at {dashboard.address}/#/serve"
        )
    if following:
        dashboard.job(job_id)
        _follow(dashboard, job_id)
    else:
        _put_log(dashboard.logs(job_id))


@submitted.command("stop")
def stop_command(job_id: JobId, address: Address) -> str:
    """Stop a submitted job, which commits what it has, or an endpoint, which answers what it has in hand.

    The same spec, submitted again, goes on from there.

    Example: labelmill stop label-nightly-2026-11-27-0f3a9c1b-1 --address http://head:8265
    """
    from labelmill.cluster.submission import remove, wait_for_end

    dashboard = _dashboard(address)
    if name := _served(job_id):
        _endpoint(dashboard, name)
        if not remove(name, dashboard):
            raise ClusterError(f"{name} was started by `labelmill run` on a node: stop it there")
        return f"{job_id} ends"
    job = dashboard.job(job_id)
    if job.is_over:
        return f"{job_id} was over already: {job.status}"
    dashboard.stop(job_id)
    job = wait_for_end(dashboard, job_id, _STOPPED_WITHIN_S)
    if not job.is_over:
        raise ClusterError(f"{job_id} has not ended after {_STOPPED_WITHIN_S:g} s: ask again, or look at its logs")
    return f"{job_id} has ended: {job.status}"


def _declare(loaded: "LoadedSpec", dashboard: "Dashboard", secrets: dict[str, str], *, wait: bool) -> None:
    from labelmill.cluster.submission import declare, wait_until_it_answers

    name = loaded.spec.name
    is_new = declare(loaded, dashboard, secrets)
    put(f"submitted serve-{name}" if is_new else f"serve-{name} is there already")
    if wait:
        wait_until_it_answers(name, dashboard)
        put(f"{name} answers")


def _served(job_id: str) -> str:
    """The name of an endpoint; ids of jobs begin with another kind."""
    return job_id.removeprefix("serve-") if job_id.startswith("serve-") else ""


def _endpoint(dashboard: "Dashboard", name: str) -> "Endpoint":
    from labelmill.cluster.submission import endpoints

    found = next((endpoint for endpoint in endpoints(dashboard) if endpoint.name == name), None)
    if found is None:
        raise ClusterError(f"the cluster at {dashboard.address} serves no {name}: see `labelmill jobs`")
    return found


def _dashboard(address: str) -> "Dashboard":
    from labelmill.cluster.submission import Dashboard

    return Dashboard(address)


def _follow(dashboard: "Dashboard", job_id: str) -> None:
    from labelmill.cluster.submission import follow

    try:
        job = follow(dashboard, job_id, _put_log)
    except (KeyboardInterrupt, SystemExit):
        put(f"the job goes on: `labelmill stop {job_id} --address {dashboard.address}` ends it", err=True)
        raise
    if job.exit_code:
        put(printable_lines(f"{job_id}: {job.status}, exit code {job.exit_code}"), err=True)
        raise typer.Exit(job.exit_code)


def _put_log(text: str) -> None:
    sys.stdout.write(printable_lines(text.removesuffix("\n").replace("\t", " ")) + ("\n" if text else ""))
    sys.stdout.flush()


def _record(job: "Job") -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "exit_code": job.exit_code,
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "ended_at": job.ended_at.isoformat() if job.ended_at else None,
        "took_s": job.duration_s,
        **{name: job.metadata.get(name) for name in ("kind", "name", "night")},
        "message": _last_line(job) if job.status == "FAILED" else "",
    }


def _endpoint_record(endpoint: "Endpoint") -> dict[str, Any]:
    return {
        "id": f"serve-{endpoint.name}",
        "status": endpoint.status,
        **dict.fromkeys(("exit_code", "started_at", "ended_at", "took_s", "night")),
        "kind": "serve",
        "name": endpoint.name,
        "message": endpoint.message,
    }


def _row(record: dict[str, Any]) -> list[str]:
    started = f"{record['started_at'][:19]}Z" if record["started_at"] else ""
    took = f"{record['took_s']:,.0f} s" if record["took_s"] is not None else ""
    return [
        record["id"],
        record["status"],
        started,
        took,
        str(record["exit_code"] if record["exit_code"] is not None else ""),
    ]


def _last_line(job: "Job") -> str:
    """Of a job that failed, Ray's message ends with what it wrote last."""
    lines = [line.strip() for line in job.message.splitlines() if line.strip()]
    return lines[-1] if lines else ""
