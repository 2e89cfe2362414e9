"""Where a credential is read from: the environment, a file that it names, or Google's Secret Manager."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rerank_core.errors import ConfigError
from rerank_core.files import read_secret

STORED = "_SECRET_NAME"
_RESOURCE = re.compile(r"projects/[^/\s]+/secrets/[^/\s]+/versions/[^/\s]+")


def find_secret(environment: Mapping[str, str], name: str) -> str:
    """The secret in `name`, in the file of NAME_FILE, or in the stored secret of NAME_SECRET_NAME; "" if none is set.

    The last is for workers that no file can be mounted into: Dataflow's read it with their service account. What the
    variable holds is a name, and no secret.

    Raises:
        ConfigError: two of them are set, or the file or the stored secret cannot be read. Values are never quoted.
    """
    value, resource = read_secret(environment, name), environment.get(name + STORED, "")
    if not resource:
        return value
    if value:
        raise ConfigError(f"{name}{STORED} is set beside {name} or {name}_FILE; unset one")
    if not _RESOURCE.fullmatch(resource):
        raise ConfigError(
            f"{name}{STORED} must be projects/PROJECT/secrets/NAME/versions/VERSION, such as .../latest"
        )
    try:
        data: bytes = _client().access_secret_version(request={"name": resource}).payload.data
        found = data.decode().strip()
    except ImportError:
        raise ConfigError(
            f"{name}{STORED} needs Google's clients: pip install 'nightrank[dataflow]'"
        ) from None
    except Exception as error:  # Google's, which may quote what was sent
        raise ConfigError(
            f"{name}{STORED} names a secret that cannot be read: {type(error).__name__}; the service account of this "
            "process needs the role Secret Manager Secret Accessor"
        ) from None
    if not found:
        raise ConfigError(f"{name}{STORED} names an empty secret")
    return found


def _client() -> Any:
    from google.cloud import secretmanager

    return secretmanager.SecretManagerServiceClient()
