"""`nightrank promote`: lets a model of the registry serve, if it passes every check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli import console
from pipelines.cli.console import cut
from pipelines.cli.models import print_checks
from pipelines.cli.options import Json, Quiet, RunDate, day_or_yesterday, load_night, not_empty, set_progress
from rerank_core.errors import FAILED, ConfigError


def promote(
    config: Annotated[Path, typer.Option("--config", help="The night's TOML; see examples/nightly.toml.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="ID",
            help="A model of the registry; default: the newest candidate.",
            callback=not_empty,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it without any check; needs --reason.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Serve the previous model again; needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log of decisions.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and decide, but change nothing.")
    ] = False,
    run_date: RunDate = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Promote a candidate model if it is not worse than the serving one. Exit code 5: it was not promoted."""
    from pipelines.promotion.steps import open_registry, promote_candidate

    _check(model=model or "", force=force, rollback=rollback, reason=reason, dry_run=dry_run)
    night = load_night(config)
    if rollback:
        decision = open_registry(night).rollback(reason=reason)
        result: dict[str, Any] = {"model": decision.model, "previous": decision.previous, "reason": reason}
    else:
        with set_progress(show=not (quiet or as_json)) as (_, on_scored):
            result = promote_candidate(
                night,
                run_date=day_or_yesterday(run_date),
                model=model or "",
                force=force,
                reason=reason,
                dry_run=dry_run,
                on_scored=on_scored,
            )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    elif not quiet:
        print_result(result, configured=night.scoring.model)
    if result.get("promoted") is False:
        raise typer.Exit(FAILED)


def _check(*, model: str, force: bool, rollback: bool, reason: str, dry_run: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: what is missing or too much.
    """
    if rollback and (model or force or dry_run):
        raise ConfigError("--rollback takes no other option than --reason: it names the model itself")
    if (force or rollback) and not reason.strip():
        raise ConfigError(
            f"{'--force' if force else '--rollback'} needs --reason TEXT, for whoever reads the log of decisions"
        )
    if reason and not (force or rollback):
        raise ConfigError("--reason is for --force and --rollback; without them the checks are the reasons")


def print_result(result: dict[str, Any], *, configured: str) -> None:
    """What was decided, with every check, and which model serves."""
    if "skipped" in result:
        console.out.print(f"nothing to promote: {cut(result['skipped'], 200)}")
        return
    model, previous = (result.get(key) or "the model that ships" for key in ("model", "previous"))
    print_checks(tuple(result.get("checks", ())))
    if result.get("promoted") is False:
        console.out.print(
            f"[bold red]Not promoted[/]: {model}: {cut(result['reason'], 1000)}; {previous} keeps serving",
            soft_wrap=True,
        )
        return
    would = "would serve" if result.get("dry_run") else "serves"
    console.out.print(f"[bold green]{model}[/] {would} in place of {previous}", soft_wrap=True)
    if configured != "registry:serving":
        console.out.print(
            f'[yellow]scoring.model = "{cut(configured, 100)}"[/]: nights do not read it from the registry; set '
            '"registry:serving"',
            soft_wrap=True,
        )
