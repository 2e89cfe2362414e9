"""A night as a DAG of Airflow 3. Nightrank is in a virtual environment of its own, and Airflow calls its command.

One task, and not one a step: the command runs the steps that are due on this day, skips those that are done, and
resumes after a failure, where `--only STEP` runs a step whatever the day.
"""

import datetime
import os
import subprocess
from typing import Any

from airflow.sdk import Connection, CronTriggerTimetable, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

COMMAND = [
    "/srv/search/.venv/bin/nightrank",
    "nightly",
    "--config",
    "/srv/search/night.toml",
    "--finish-by",
    "06:00",
]
CONNECTION = "nightrank_elasticsearch"  # its password is the API key; "" where no cluster is read
FINAL = {
    2: "wrong call or configuration",
    3: "an input cannot be used",
    6: "held back: read its report",
}
"""Exit codes that another try cannot mend, so that somebody is notified at once."""


@dag(
    schedule=CronTriggerTimetable("15 2 * * *", timezone="UTC"),
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=datetime.timedelta(hours=6),
    tags=["search"],
)
def nightrank() -> None:
    """Reranks the day's queries, and publishes them by 06:00 UTC."""

    @task(
        retries=5,  # code 4, another run writes to the folder, above all
        retry_delay=datetime.timedelta(minutes=10),
        execution_timeout=datetime.timedelta(hours=5),
    )
    def night(dag_run: Any = None) -> None:
        moment = dag_run.logical_date or dag_run.run_after  # a run by hand may have no logical date
        day = (moment.astimezone(datetime.UTC) - datetime.timedelta(days=1)).date()
        secrets = {}
        if CONNECTION:
            key = Connection.get(CONNECTION).password
            if not key:
                raise AirflowFailException(
                    f"the connection {CONNECTION!r} has no password: put the API key there"
                )
            secrets["NIGHTRANK_ES_API_KEY"] = key
        call = [*COMMAND, "--run-date", day.isoformat(), "--quiet"]
        with subprocess.Popen(call, env=os.environ | secrets) as process:
            try:
                code = process.wait()
            except BaseException:  # the task was stopped, or ran out of time
                process.terminate()  # a night cleans up for ten seconds at most
                raise
        if code in FINAL:
            raise AirflowFailException(f"exit code {code}: {FINAL[code]}")
        if code:
            raise AirflowException(f"exit code {code}; readers keep the night before")

    night()


nightrank()
