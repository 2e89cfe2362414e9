"""The log formats, in the order in which `log.format = "auto"` asks whether a file is theirs."""

from pipelines.sources.local.formats import aol, jsonl, parquet, tsv, ubi
from pipelines.sources.local.formats.base import LogFormat

FORMATS: dict[str, LogFormat] = {
    "parquet": parquet.FORMAT,
    "aol": aol.FORMAT,
    "ubi": ubi.FORMAT,
    "tsv": tsv.FORMAT,
    "jsonl": jsonl.FORMAT,
}
