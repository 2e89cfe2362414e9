"""Run by Airflow's own interpreter: parses the DAG as Airflow does, and runs its task with commands that end as told.

    AIRFLOW_PYTHON tests/support/check_dag.py DAG_FILE FOLDER

FOLDER has the environment's commands. Prints one JSON object.
"""

import datetime
import json
import sys
import types
from pathlib import Path
from typing import Any


def main(dag_file: str, folder: Path) -> dict[str, Any]:
    """What Airflow makes of the DAG."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_file)
    (dag,) = bag.dags.values() or [None]
    if bag.import_errors or dag is None:
        return {"errors": bag.import_errors}
    task = dag.get_task("night")
    outcomes = {}
    for code in (0, 1, 2, 3, 4, 5, 6, 143):
        command = folder / f"exit{code}"
        command.write_text(f'#!/bin/sh\necho "$NIGHTRANK_ES_API_KEY $*" >> {folder}/calls\nexit {code}\n')
        command.chmod(0o755)
        task.python_callable.__globals__["COMMAND"][0] = str(command)
        run = types.SimpleNamespace(
            logical_date=datetime.datetime(2026, 3, 9, 2, 15, tzinfo=datetime.UTC), run_after=None
        )
        try:
            task.python_callable(dag_run=run)
            outcomes[code] = "success"
        except Exception as error:
            outcomes[code] = type(error).__name__
    return {
        "errors": bag.import_errors,
        "warnings": [str(one) for one in bag.captured_warnings.values()],
        "tasks": list(dag.task_ids),
        "retries": task.retries,
        "hours": task.execution_timeout.total_seconds() / 3600,
        "catchup": dag.catchup,
        "active": dag.max_active_runs,
        "timetable": str(dag.timetable),
        "outcomes": outcomes,
        "calls": (folder / "calls").read_text().splitlines(),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
