"""Files that appear under their names when all of them are written, local or on an object store."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipelines.storage.filesystem import (
    create,
    exists,
    is_local,
    join,
    listing,
    move_objects,
    put_folder,
    remove,
)
from rerank_core.errors import OutputError

Open = Callable[[str], BinaryIO]
"""Opens a file of the target for writing, by its path in the folder; "" is the target itself, a file."""


@contextlib.contextmanager
def writing(path: str) -> Iterator[Open]:
    """Write a file or a folder. Nothing is left of one that could not be written to its end.

    Raises:
        OutputError: there is something at `path`: it is never replaced.
    """
    check_free(path)
    path = path.rstrip("/")
    parent, slash, name = path.rpartition("/")
    temporary = f"{parent}{slash}_{name}.tmp-{uuid.uuid4().hex}"
    try:
        with contextlib.ExitStack() as opened:

            def open_part(part: str = "") -> BinaryIO:
                return opened.enter_context(create(join(temporary, part) if part else temporary))

            yield open_part
        _put(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def check_free(path: str) -> None:
    """Refuse a path where there is a file, or a folder that is not empty.

    Raises:
        OutputError: naming it.
    """
    if not path.rstrip("/"):
        raise OutputError("the path to write is empty, or the root; name a file or a folder")
    there = os.path.lexists(path) and not os.path.isdir(path) if is_local(path) else exists(path)
    if there or listing(path):
        raise OutputError(f"{path} exists already, and is not replaced; remove it, or name another")


def _put(temporary: str, path: str) -> None:
    if not is_local(path):
        pairs = [(join(temporary, name), join(path, name)) for name in listing(temporary)]
        move_objects(pairs or [(temporary, path)])
    elif os.path.isdir(temporary):
        put_folder(temporary, path)
        remove(temporary)  # the empty folder that was there, if there was one
    else:
        os.replace(temporary, path)
