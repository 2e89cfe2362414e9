"""Objects of S3 and Google Cloud Storage, by the clients that Beam's own file systems use, with Beam's options.

Beam's file systems write an S3 object in three requests, read 16 MB where 16 KB are needed, and know no conditions.
What is read and written most is therefore here: whole objects in one request each, ranges of them, and writes that are
made only over the version that was read. Any other file system of Beam has the same functions, without conditions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


class Found(NamedTuple):
    """An object as it was read."""

    data: bytes
    version: str  # "" where the store has none


class Listed(NamedTuple):
    """An object as it is listed."""

    size: int  # bytes
    version: str  # another one after every change, or, as S3's, after a change of the bytes; "" where there is none


class Store(Protocol):
    """The objects of one kind of store. Missing objects are FileNotFoundError, all other failures any exception."""

    conditional: bool

    def get(self, path: str) -> Found:
        """A whole object."""

    def put(self, path: str, data: bytes) -> None:
        """Write a whole object: readers see the one before or this one."""

    def put_over(self, path: str, data: bytes, version: str | None) -> str | None:
        """Write it if the object is still of that version (None: there is none); the new version, or None if it is not.

        Only where the store is `conditional`.
        """

    def size(self, path: str) -> int:
        """Bytes of an object."""

    def read(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, which is not later than the object's end."""

    def list(self, prefix: str) -> dict[str, Listed]:
        """Every object whose path begins so, by path; none in a bucket that does not exist."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object of at most 5 GB within the store."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; one that is gone is no error."""


def _split(path: str) -> tuple[str, str]:
    bucket, _, name = path.partition("://")[2].partition("/")
    return bucket, name


class S3Store:
    """S3, and what speaks its protocol."""

    conditional = True

    def __init__(self, options: PipelineOptions):
        from apache_beam.io.aws.clients.s3.boto3_client import Client

        self._client = Client(options).client

    def get(self, path: str) -> Found:
        found = self._get(path)
        return Found(found["Body"].read(), found["ETag"])

    def put(self, path: str, data: bytes) -> None:
        bucket, key = _split(path)
        self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_over(self, path: str, data: bytes, version: str | None) -> str | None:
        bucket, key = _split(path)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return str(self._client.put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"])
        except self._client.exceptions.ClientError as error:
            if status_of(error) in (404, 409, 412):  # gone, written at this moment, of another version
                return None
            raise

    def size(self, path: str) -> int:
        bucket, key = _split(path)
        return int(self._client.head_object(Bucket=bucket, Key=key)["ContentLength"])

    def read(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._get(path, Range=f"bytes={start}-{end - 1}")["Body"].read())

    def list(self, prefix: str) -> dict[str, Listed]:
        bucket, key = _split(prefix)
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            found = [one for page in pages for one in page.get("Contents", ())]
        except self._client.exceptions.NoSuchBucket:
            return {}
        return {f"s3://{bucket}/{one['Key']}": Listed(one["Size"], one.get("ETag", "")) for one in found}

    def copy(self, source: str, target: str) -> None:
        (from_bucket, from_key), (bucket, key) = _split(source), _split(target)
        self._client.copy_object(CopySource={"Bucket": from_bucket, "Key": from_key}, Bucket=bucket, Key=key)

    def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), 1000):  # as many as one request takes
            keys = [{"Key": _split(path)[1]} for path in paths[start : start + 1000]]
            found = self._client.delete_objects(
                Bucket=_split(paths[0])[0], Delete={"Objects": keys, "Quiet": True}
            )
            for failed in found.get("Errors", ()):
                raise OSError(None, f"{failed.get('Code')}: {failed.get('Message')}", failed.get("Key"))

    def _get(self, path: str, **options: str) -> Any:
        bucket, key = _split(path)
        return self._client.get_object(Bucket=bucket, Key=key, **options)


class GcsStore:
    """Google Cloud Storage.

    Before version 3, and a rewrite in any, its client tries a change again only under a condition. Those here have the
    same effect the second time.
    """

    conditional = True

    def __init__(self, options: PipelineOptions):
        from apache_beam.io.gcp.gcsio import create_storage_client
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._client, self._retry = create_storage_client(options), DEFAULT_RETRY

    def get(self, path: str) -> Found:
        blob = self._blob(path)
        data = blob.download_as_bytes(raw_download=True)  # which notes the generation of what it read
        return Found(data, str(blob.generation))

    def put(self, path: str, data: bytes) -> None:
        self._blob(path).upload_from_string(data, content_type="application/octet-stream", retry=self._retry)

    def put_over(self, path: str, data: bytes, version: str | None) -> str | None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        blob = self._blob(path)
        try:
            blob.upload_from_string(
                data, content_type="application/octet-stream", if_generation_match=int(version or 0)
            )
        except (NotFound, PreconditionFailed):
            return None
        return str(blob.generation)

    def size(self, path: str) -> int:
        blob = self._blob(path)
        blob.reload()
        return int(blob.size)

    def read(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._blob(path).download_as_bytes(start=start, end=end - 1, raw_download=True))

    def list(self, prefix: str) -> dict[str, Listed]:
        from google.api_core.exceptions import NotFound

        bucket, name = _split(prefix)
        try:
            fields = "items(name,size,generation),nextPageToken"
            blobs = list(self._client.list_blobs(bucket, prefix=name, fields=fields))
        except NotFound:
            return {}
        return {f"gs://{bucket}/{blob.name}": Listed(int(blob.size), str(blob.generation)) for blob in blobs}

    def copy(self, source: str, target: str) -> None:
        token, *_ = self._blob(target).rewrite(self._blob(source), retry=self._retry)
        while token:  # of a large object, of which a part was copied
            token, *_ = self._blob(target).rewrite(self._blob(source), token=token, retry=self._retry)

    def delete(self, paths: Sequence[str]) -> None:
        from google.api_core.exceptions import NotFound

        def remove(path: str) -> None:
            with contextlib.suppress(NotFound):
                self._blob(path).delete(retry=self._retry)

        # A request each: one after the other, a run of 10,000 files would take minutes.
        with ThreadPoolExecutor(16) as threads:
            for _ in threads.map(remove, paths):
                pass

    def _blob(self, path: str) -> Any:
        bucket, name = _split(path)
        return self._client.bucket(bucket).blob(name)


class BeamStore:
    """Any other file system of Beam."""

    conditional = False

    def __init__(self, options: PipelineOptions):
        """Beam's file systems know the options."""

    def get(self, path: str) -> Found:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return Found(bytes(file.read()), "")

    def put(self, path: str, data: bytes) -> None:
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            remote.write(data)

    def put_over(self, path: str, data: bytes, version: str | None) -> str | None:
        raise NotImplementedError("this file system has no conditions")

    def size(self, path: str) -> int:
        (found,) = FileSystems.match([path])[0].metadata_list or [None]
        if found is None:
            raise FileNotFoundError(2, "there is no such object", path)
        return int(found.size_in_bytes)

    def read(self, path: str, start: int, end: int) -> bytes:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.seek(start)
            return bytes(file.read(end - start))

    def list(self, prefix: str) -> dict[str, Listed]:
        found = FileSystems.match([f"{prefix}**"])[0].metadata_list
        return {file.path: Listed(file.size_in_bytes, str(file.last_updated_in_seconds)) for file in found}

    def copy(self, source: str, target: str) -> None:
        FileSystems.copy([source], [target])

    def delete(self, paths: Sequence[str]) -> None:
        FileSystems.delete([path for path in paths if FileSystems.exists(path)])


def cause_of(error: BaseException) -> BaseException:
    """What Beam wrapped, if it did: it keeps an exception for each path."""
    details = getattr(error, "exception_details", None)
    causes = [one for one in details.values() if isinstance(one, BaseException)] if details else []
    return causes[0] if causes else error


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer, by any of the clients."""
    error = cause_of(error)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
    code = getattr(error, "code", None)
    return int(code) if isinstance(code, int) else None


KINDS: dict[str, Any] = {"s3": S3Store, "gs": GcsStore}
"""By scheme; any other is a BeamStore."""
