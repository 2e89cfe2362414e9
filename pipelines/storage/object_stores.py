"""Which store a path is in, its client with Beam's options, and what its failures are called."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.storage.clients import KINDS, BeamStore, Store, cause_of, status_of
from rerank_core.errors import ConfigError
from rerank_core.redact import redact
from schemas.errors import ManifestError, Unanswered

EXTRAS = {"s3": ("boto3", "s3"), "gs": ("google.cloud.storage", "gcs")}
"""What each scheme needs: a module, and the extra of Nightrank that installs it."""


class StoreError(OSError):
    """An object store refused, or did not answer: what it holds may be whole."""


def unreadable(message: str, error: Exception) -> ManifestError:
    """The error of a file of a run that cannot be read: that its store did not answer says nothing about the file."""
    return (Unanswered if isinstance(error, StoreError) else ManifestError)(message)


_stores: dict[str, tuple[Any, Store]] = {}
_opening = threading.Lock()


def store_of(path: str) -> Store:
    """The store of a path, with the options that Beam's file systems have now; its client is made once.

    Raises:
        ConfigError: the client is not installed.
    """
    scheme = path.partition("://")[0]
    check_installed(path)
    options = use_options()
    with _opening:
        known = _stores.get(scheme)
        if known is None or known[0] is not options:
            known = _stores[scheme] = options, KINDS.get(scheme, BeamStore)(options)
    return known[1]


def use_options(options: PipelineOptions | None = None) -> PipelineOptions:
    """Give Beam's file systems their options, which they need before their first use: by default the environment's.

    Returns:
        The options that they have now.
    """
    if options is not None or FileSystems._pipeline_options is None:  # a worker has those of its pipeline
        FileSystems.set_options(PipelineOptions([]) if options is None else options)
    found: PipelineOptions = FileSystems._pipeline_options
    return found


def check_installed(path: str) -> None:
    """Refuse a path whose store's client is not installed.

    Raises:
        ConfigError: it names the remedy.
    """
    module, extra = EXTRAS.get(path.partition("://")[0], ("", ""))
    with contextlib.suppress(ModuleNotFoundError):  # of a parent of the module
        if not module or importlib.util.find_spec(module):
            return
    raise ConfigError(f"{path} needs {module}, which is not installed: pip install 'nightrank[{extra}]'")


@contextlib.contextmanager
def answered(path: str) -> Iterator[None]:
    """Raise whatever a store's client raises as an OSError that names the object, in a line without secrets.

    Raises:
        ConfigError: the client is not installed.
    """
    if "://" not in path:
        yield
        return
    check_installed(path)
    use_options()
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "there is no such object", path) from None
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        if status_of(error) == 404:
            raise FileNotFoundError(2, "there is no such object or bucket", path) from None
        if isinstance(error, ValueError) and str(error).startswith("Unable to get filesystem"):
            raise  # of an unknown scheme, which has a message already
        said = " ".join(redact(str(cause_of(error)) or type(error).__name__).split())[:300]
        raise StoreError(None, f"the object store answers: {said}", path) from None
