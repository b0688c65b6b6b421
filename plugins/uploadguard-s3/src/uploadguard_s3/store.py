"""The calls to the S3 service, with its answers as values and a handful of errors.

:class:`Gone` and :class:`Changed` are ordinary answers here: objects are deleted and overwritten while they are looked
at. All else is :class:`~uploadguard_s3.model.S3Retry` or :class:`~uploadguard_s3.model.S3Poison`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
)

from uploadguard_s3.model import NO_VERSION, ObjectRef, S3Poison, S3Retry

__all__ = ["Changed", "Copied", "Found", "Gone", "Lock", "Reading", "Store"]

CHUNK_BYTES = 1 << 18
_RESUMES = 3
_MAX_TAGS = 10
_GONE = frozenset({"404", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "405"})  # 405: it is a delete marker
_CHANGED = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict", "409"})
_NEVER = frozenset({"InvalidObjectState", "EntityTooLarge", "KeyTooLongError", "InvalidBucketName"})


class Gone(Exception):
    """There is no such version, or no such key."""


class Changed(Exception):
    """It is not what the condition asked for: it was overwritten meanwhile."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object version as the service describes it. ``ref`` has its version, if any, its ETag and its size."""

    ref: ObjectRef
    modified: datetime
    tags_count: int
    metadata: Mapping[str, str]
    content_type: str | None
    legal_hold: bool = False
    retained: bool = False

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.ref.size_bytes or 0

    @property
    def fixed(self) -> bool:
        """Whether its version can never be overwritten. The version ``null`` can."""
        return self.ref.is_fixed

    def same(self, other: Found | None) -> bool:
        """Whether the other is this version still."""
        if other is None:
            return False
        mine, others = (one.ref.version_id or NO_VERSION for one in (self, other))
        return mine == others and self.ref.etag == other.ref.etag and self.modified == other.modified


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made. ``sha256`` is base64, where the service computed it."""

    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Lock:
    """What keeps a copy from being deleted."""

    legal_hold: bool = False
    mode: str | None = None
    until: datetime | None = None

    def arguments(self) -> dict[str, Any]:
        """As ``CopyObject`` takes it."""
        arguments: dict[str, Any] = {"ObjectLockLegalHoldStatus": "ON"} if self.legal_hold else {}
        if self.until is not None:
            arguments |= {"ObjectLockMode": self.mode, "ObjectLockRetainUntilDate": self.until}
        return arguments


class Store:
    """An open S3 client of aioboto3's."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def head(self, ref: ObjectRef) -> Found | None:
        """The version that ``ref`` names, the newest one where it names none; None where there is none."""
        try:
            with _errors("HeadObject"):
                return _found(ref, await self._client.head_object(**_place(ref)))
        except Gone:
            return None

    async def current(self, ref: ObjectRef) -> Found | None:
        """The newest version of a key; None where it has none, or was deleted."""
        return await self.head(ObjectRef(ref.bucket, ref.key))

    async def read(self, ref: ObjectRef) -> Reading:
        """The version that ``ref`` names, if it is of its ETag still. Raises :class:`Gone`, :class:`Changed`."""
        answer = await self.get(ref)
        return Reading(self, _found(ref, answer), answer["Body"])

    async def sha256_of(self, copied: Copied) -> bytes | None:
        """The digest of a copy's bytes; None where it is not there any more."""
        try:
            return await self.sha256(ObjectRef(copied.bucket, copied.key, copied.version_id, copied.etag))
        except (Changed, Gone):
            return None

    async def sha256(self, ref: ObjectRef) -> bytes:
        """The digest of an object's bytes, read anew. Raises :class:`Gone`, :class:`Changed`."""
        reading = await self.read(ref)
        digest = hashlib.sha256()
        try:
            async for chunk in reading.chunks():
                digest.update(chunk)
        finally:
            reading.close()
        return digest.digest()

    async def get(self, ref: ObjectRef, start: int = 0) -> Mapping[str, Any]:
        """The answer with the version's bytes, from ``start`` on."""
        condition = {"IfMatch": _quoted(ref.etag)} if ref.etag else {}
        part = {"Range": f"bytes={start}-"} if start else {}
        with _errors("GetObject"):
            answer: Mapping[str, Any] = await self._client.get_object(**_place(ref), **condition, **part)
        return answer

    async def tags(self, found: Found) -> dict[str, str]:
        """The version's tags."""
        if not found.tags_count:
            return {}
        with _errors("GetObjectTagging"):
            answer = await self._client.get_object_tagging(**_place(found.ref))
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    async def set_tags(self, found: Found, tags: Mapping[str, str]) -> None:
        """Give the version these tags and no others."""
        tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
        with _errors("PutObjectTagging"):
            await self._client.put_object_tagging(**_place(found.ref), Tagging={"TagSet": tag_set})

    async def clear_tags(self, ref: ObjectRef) -> None:
        """Take all tags away."""
        with _errors("DeleteObjectTagging"):
            await self._client.delete_object_tagging(**_place(ref))

    async def copy(
        self,
        found: Found,
        bucket: str,
        key: str,
        tags: Mapping[str, str],
        *,
        over: str | None = None,
        lock: Lock | None = None,
    ) -> Copied:
        """Copy this very version with its metadata, and these tags.

        Nothing may be at the place, or an object of the ETag ``over``. Raises :class:`Changed` where there is, or
        where the version is another one by now; :class:`Gone`.
        """
        source = {"Bucket": found.ref.bucket, "Key": found.ref.key}
        conditions: dict[str, Any] = {"IfNoneMatch": "*"} if over is None else {"IfMatch": _quoted(over)}
        if found.fixed:
            source["VersionId"] = str(found.ref.version_id)
        if found.ref.etag is not None:
            conditions["CopySourceIfMatch"] = _quoted(found.ref.etag)
        with _errors("CopyObject"):
            answer = await self._client.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource=source,
                MetadataDirective="COPY",
                TaggingDirective="REPLACE",
                Tagging=urlencode(tags),
                ChecksumAlgorithm="SHA256",
                **conditions,
                **(lock.arguments() if lock is not None else {}),
            )
        result = answer.get("CopyObjectResult", {})
        return Copied(bucket, key, answer.get("VersionId"), _etag(result), result.get("ChecksumSHA256"))

    async def lock(self, found: Found, lock: Lock) -> None:
        """Keep a version from being deleted."""
        place = _place(found.ref)
        with _errors("PutObjectLegalHold"):
            if lock.legal_hold:
                await self._client.put_object_legal_hold(**place, LegalHold={"Status": "ON"})
            if lock.until is not None:
                retention = {"Mode": lock.mode, "RetainUntilDate": lock.until}
                await self._client.put_object_retention(**place, Retention=retention)

    async def delete(self, found: Found) -> bool:
        """Delete this very version for good; False where it is another one by now."""
        condition = {} if found.fixed or found.ref.etag is None else {"IfMatch": _quoted(found.ref.etag)}
        if not found.fixed and not found.same(await self.current(found.ref)):  # not all services know the condition
            return False
        try:
            with _errors("DeleteObject"):
                await self._client.delete_object(**_place(found.ref), **condition)
        except Gone:
            return True
        except Changed:
            return False
        return True

    async def delete_copy(self, copied: Copied) -> None:
        """Take a copy away again, unless it was overwritten meanwhile."""
        place: dict[str, Any] = {"Bucket": copied.bucket, "Key": copied.key}
        if copied.version_id is not None:
            place["VersionId"] = copied.version_id
        elif copied.etag is not None:
            place["IfMatch"] = _quoted(copied.etag)
        try:
            with _errors("DeleteObject"):
                await self._client.delete_object(**place)
        except (Changed, Gone):
            return

    async def has_versions(self, bucket: str) -> bool:
        """Whether a bucket keeps versions, or did."""
        with _errors("GetBucketVersioning"):
            return bool((await self._client.get_bucket_versioning(Bucket=bucket)).get("Status"))

    async def pages(
        self, bucket: str, prefix: str, *, versions: bool
    ) -> AsyncIterator[list[tuple[ObjectRef, datetime]]]:
        """All objects below a prefix, or all their versions, a page at a time, with when they were written."""
        kind, field = ("list_object_versions", "Versions") if versions else ("list_objects_v2", "Contents")
        pages = self._client.get_paginator(kind).paginate(Bucket=bucket, Prefix=prefix).__aiter__()
        while True:
            try:
                with _errors("ListObjects"):
                    page = await anext(pages)
            except StopAsyncIteration:
                return
            yield [
                (
                    ObjectRef(bucket, one["Key"], one.get("VersionId"), _etag(one), None, one["Size"]),
                    one["LastModified"],
                )
                for one in page.get(field, ())
            ]


class Reading:
    """A version that is open for reading. Close it, read or not."""

    def __init__(self, store: Store, found: Found, body: Any) -> None:
        self.found = found
        self._store = store
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes. A connection that breaks is taken up again, on the same conditions, where it broke."""
        position, resumes = 0, 0
        while True:
            broken: Exception | None = None
            try:
                while chunk := await self._body.read(CHUNK_BYTES):
                    position += len(chunk)
                    yield chunk
            except FlexibleChecksumError:
                raise S3Retry("the object's bytes are not those of its checksum") from None
            except (BotoCoreError, aiohttp.ClientError, OSError) as error:
                broken = error
            if position == self.found.size_bytes:
                return
            resumes += 1
            if resumes > _RESUMES or position > self.found.size_bytes:
                raise S3Retry("the object could not be read to its end") from broken
            self.close()
            self._body = (await self._store.get(self.found.ref, position))["Body"]

    def close(self) -> None:
        """Let go of the connection."""
        self._body.close()


def _place(ref: ObjectRef) -> dict[str, str]:
    place = {"Bucket": ref.bucket, "Key": ref.key}
    return place if ref.version_id is None else {**place, "VersionId": ref.version_id}


def _found(ref: ObjectRef, answer: Mapping[str, Any]) -> Found:
    version_id = answer.get("VersionId")  # not the one that was asked for: a bucket without versions heeds none
    return Found(
        ref=ObjectRef(ref.bucket, ref.key, version_id, _etag(answer), ref.sequencer, answer["ContentLength"]),
        modified=answer["LastModified"],
        tags_count=answer.get("TagCount", 0),
        metadata=answer.get("Metadata", {}),
        content_type=answer.get("ContentType"),
        legal_hold=answer.get("ObjectLockLegalHoldStatus") == "ON",
        retained=answer.get("ObjectLockRetainUntilDate") is not None,
    )


def _etag(answer: Mapping[str, Any]) -> str | None:
    etag = answer.get("ETag")
    return etag.strip('"') if isinstance(etag, str) and etag else None


def _quoted(etag: str) -> str:
    return f'"{etag}"'


@contextmanager
def _errors(operation: str) -> Iterator[None]:
    """What a call raised, as one of the errors of this module. No text of the service's goes on: it names keys."""
    try:
        yield
    except ClientError as error:
        raise _error(operation, error) from None
    except ParamValidationError:
        raise S3Poison(f"{operation}: the bucket, key or version cannot be one") from None
    except NoCredentialsError:
        raise S3Retry("there are no credentials for the S3 service") from None
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise S3Retry(f"{operation}: the S3 service cannot be reached ({type(error).__name__})") from error


def _error(operation: str, error: ClientError) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _GONE:
        return Gone()
    if code in _CHANGED or status == 412:
        return Changed()
    shown = code if re.fullmatch(r"[A-Za-z0-9]{1,64}", code) else "?"
    # A HEAD's answer has no body, so the SDK gives its status for the code.
    reason = f"{operation}: the S3 service answered {status}" + (f" {shown}" if shown != str(status) else "")
    if status == 403:
        reason += "; are these the right credentials, and may they do that?"
    if code in _NEVER or (status == 400 and code not in ("RequestTimeout", "ExpiredToken", "RequestTimeTooSkewed")):
        return S3Poison(reason)
    return S3Retry(reason)
