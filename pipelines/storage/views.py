"""The folders by table in the output folder: the newest published run of each date, for readers that list folders."""

from __future__ import annotations

import os

from pipelines.storage.filesystem import (
    copy_files,
    flush,
    is_local,
    join,
    listing,
    make_folder,
    put_folder,
    remove,
)
from pipelines.storage.runs import STAGING, is_part, table_path


def show(output: str, table: str, run_date: str, run_id: str) -> None:
    """Put a run's files of a table, as links or copies, in the place of what the table shows of their date."""
    source, target = (
        join(output, table_path(table, run_date, run_id)),
        join(output, table, f"run_date={run_date}"),
    )
    names = [name for name in listing(source) if is_part(name)]
    if not is_local(output):
        remove(target)
        copy_files(source, join(target, f"run_id={run_id}"), names)
        return
    aside = join(output, STAGING, f"{run_id}.{table}")
    remove(aside)
    copy_files(source, join(aside, f"run_id={run_id}"), names)
    flush(aside)
    put_folder(aside, target)
    remove(aside)


def hide(output: str, table: str, folder: str) -> None:
    """Take what a table shows of a date away: on a local file system in one step, so that nobody lists a part of it."""
    shown = join(output, table, folder)
    if is_local(output):
        aside = join(output, STAGING, f"{folder}.{table}.removed")
        remove(aside)
        make_folder(join(output, STAGING))
        os.rename(shown, aside)
        shown = aside
    remove(shown)
