"""MetricsLog are there as they come, survive a kill, and go back to a checkpoint."""

from __future__ import annotations

from pathlib import Path

from rerank_core.training.metrics_log import MetricsLog


def test_a_line_is_on_disk_when_it_was_added(tmp_path: Path) -> None:
    figures = MetricsLog(tmp_path / "figures.jsonl")
    figures.add("loss", "one", 1, loss=0.5)
    assert (
        tmp_path / "figures.jsonl"
    ).read_text() == '{"kind": "loss", "stage": "one", "step": 1, "loss": 0.5}\n'
    assert MetricsLog(tmp_path / "figures.jsonl").lines == figures.lines


def test_half_a_line_of_a_killed_training_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    MetricsLog(path).add("loss", "one", 1, loss=0.5)
    with path.open("a") as file:
        file.write('{"kind": "lo')

    figures = MetricsLog(path)
    figures.rewind("one", 1)
    figures.add("loss", "one", 2, loss=0.25)

    assert [line["step"] for line in MetricsLog(path).lines] == [1, 2]


def test_a_stage_goes_back_to_its_checkpoint_and_others_stay(tmp_path: Path) -> None:
    figures = MetricsLog(tmp_path / "figures.jsonl")
    for kind, stage, step in (
        ("dev", "one", 4),
        ("stage", "one", 4),
        ("loss", "two", 1),
        ("dev", "two", 2),
        ("loss", "two", 3),
        ("stage", "two", 2),
    ):
        figures.add(kind, stage, step)

    figures.rewind("two", 2)
    assert figures.once("stage", "two", 2) == figures.lines[-1]
    assert figures.once("stage", "two", 2) is None
    figures.rewind("two", 2)

    kept = [
        (line["kind"], line["stage"], line["step"]) for line in MetricsLog(tmp_path / "figures.jsonl").lines
    ]
    assert kept == [("dev", "one", 4), ("stage", "one", 4), ("loss", "two", 1), ("dev", "two", 2)]
    assert figures.of("loss") == [{"kind": "loss", "stage": "two", "step": 1}]
    assert figures.of("dev", "one") == [{"kind": "dev", "stage": "one", "step": 4}]


def test_where_negatives_come_from_stays_when_a_stage_begins_anew(tmp_path: Path) -> None:
    figures = MetricsLog(tmp_path / "figures.jsonl")
    for kind in ("mined", "loss", "stage", "round"):
        figures.add(kind, "one-r2", 0 if kind == "mined" else 3)
    figures.rewind("one-r2", -1)
    assert [line["kind"] for line in figures.lines] == ["mined"]
