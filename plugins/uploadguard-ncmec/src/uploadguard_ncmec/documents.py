"""What a report says of an upload, and how it says it.

Everything in it is true to what uploadguard knows: that a person viewed the file only if somebody did, a classification
only if a list gave one and the options ask for it, an address or a port only if the host told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from uploadguard.actions import Task
from uploadguard.models import Match, Verdict
from uploadguard_ncmec.options import Contact, NcmecOptions
from uploadguard_ncmec.schema import FILE_DETAILS, REPORT, Attributed, build
from uploadguard_ncmec.values import address_of, clean, is_email, is_port, time_text, utc

__all__ = ["file_document", "file_name", "report_document"]

_DIGESTS = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256"}
_CLASSES = frozenset({"A1", "A2", "B1", "B2"})
_MAX_MATCHES = 20
_RESULTS = {Verdict.BLOCK: ", and was blocked", Verdict.QUEUE: ", and was held for review"}
_EXTENSIONS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/tiff": ".tif",
    "image/bmp": ".bmp",
}


def report_document(task: Task, options: NcmecOptions, *, attached: bool) -> bytes:
    """The ``report``. Without ``attached``, no file will follow, and its hashes are in the text.

    Raises :class:`~uploadguard_ncmec.schema.DocumentError`.
    """
    context = task.context
    return build(
        REPORT,
        {
            "incidentSummary": {
                "incidentType": options.incident_type,
                "platform": options.platform,
                "incidentDateTime": _incident_time(task),
                "incidentDateTimeDescription": "When the reporter received the upload."
                if context.uploaded_at is not None
                else "When the reporter checked the upload.",
            },
            "internetDetails": [
                {
                    "webPageIncident": {
                        "url": [context.url],
                        "additionalInfo": "Where the reporter serves the upload, or would have served it.",
                    }
                }
            ]
            if context.url and context.url.strip()
            else (),
            "reporter": {
                "reportingPerson": _person(options.reporter),
                "contactPerson": _person(options.contact) if options.contact is not None else None,
                "companyTemplate": options.company_template,
                "termsOfService": options.terms_of_service,
                "legalURL": options.legal_url,
            },
            "personOrUserReported": [reported] if (reported := _reported(task, options)) else (),
            "additionalInfo": "\n".join(_account(task, options, attached=attached)),
        },
    )


def file_document(task: Task, options: NcmecOptions, *, report_id: str, file_id: str, name: str) -> bytes:
    """The ``fileDetails`` of the uploaded file. Raises :class:`~uploadguard_ncmec.schema.DocumentError`."""
    context = task.context
    return build(
        FILE_DETAILS,
        {
            "reportId": report_id,
            "fileId": file_id,
            "fileName": name,
            "originalFileName": _base_name(context.filename),
            "uploadedToEspTimestamp": _incident_time(task),
            "locationOfFile": context.url if options.publicly_available else None,
            "fileViewedByEsp": task.viewed,
            "exifViewedByEsp": options.exif_viewed,
            "publiclyAvailable": options.publicly_available,
            "industryClassification": _classification(task) if options.classify else None,
            "originalFileHash": [Attributed(value, label) for label, value in _hashes(task, _DIGESTS)],
            "ipCaptureEvent": _ip_capture(task),
            "additionalInfo": ["\n".join(_found(task, options))],
        },
    )


def file_name(task: Task, media_type: str | None) -> str:
    """What the file is called there: by the task's key, since the uploader's own name may be anything."""
    return task.key + _EXTENSIONS.get(media_type or "", ".bin")


def _incident_time(task: Task) -> datetime:
    """When it was uploaded. A host's clock may be fast, but no upload comes after its check."""
    uploaded_at = utc(task.context.uploaded_at) if task.context.uploaded_at is not None else None
    return task.decided_at if uploaded_at is None else min(uploaded_at, task.decided_at)


def _person(contact: Contact) -> Mapping[str, Any]:
    return {
        "firstName": contact.first_name,
        "lastName": contact.last_name,
        "phone": [contact.phone],
        "email": [contact.email],
    }


def _reported(task: Task, options: NcmecOptions) -> Mapping[str, Any] | None:
    """What is known of the uploader; None where nothing is."""
    context = task.context
    email = _extra(task, "email")
    capture = _ip_capture(task)
    # What has no valid form is told in words: an investigator may make something of it.
    odd = []
    if email is not None and not is_email(email):
        odd.append(f"Email address, as recorded: {clean(email, 1000)}")
    if context.ip and capture is None:
        odd.append(f"IP address, as recorded: {clean(context.ip, 1000)}")
    known = {
        "personOrUserReportedPerson": {"email": [email]} if email is not None and is_email(email) else None,
        "espIdentifier": context.uploader,
        "screenName": _extra(task, "screen_name"),
        "profileUrl": [_extra(task, "profile_url")],
        "ipCaptureEvent": [capture],
        "additionalInfo": "\n".join(odd),
    }
    if not any(value and value != [None] for value in known.values()):
        return None
    return {**known, "espService": options.service}


def _extra(task: Task, name: str) -> str | None:
    value = task.context.extra.get(name)
    return (value.strip() or None) if isinstance(value, str) else None


def _ip_capture(task: Task) -> Mapping[str, Any] | None:
    address = address_of(task.context.ip or "")
    if address is None:
        return None
    port = task.context.port
    return {
        "ipAddress": address,
        "eventName": "Upload",
        "dateTime": _incident_time(task),
        "port": port if isinstance(port, int) and is_port(str(port)) else None,
    }


def _base_name(name: str | None) -> str | None:
    """Without the directories that some clients send."""
    return (PureWindowsPath(PurePosixPath(name).name).name or name) if name else None


def _hits(task: Task) -> list[Match]:
    """The matches with entries that speak against the upload, the closest first."""
    found = [match for match in task.decision.matches if not match.allow]
    return sorted(found, key=lambda match: (not match.exact, match.distance_bits))


def _classification(task: Task) -> str | None:
    """The class that the matched entries give, where they agree; those of exact matches outweigh the others."""
    hits = _hits(task)
    for chosen in ([m for m in hits if m.exact], hits):
        classes = {m.category.strip().upper() for m in chosen if m.category} & _CLASSES
        if classes:
            return classes.pop() if len(classes) == 1 else None
    return None


def _hashes(task: Task, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The hashes of these signal types, of the whole upload as it was sent, as label and hex."""
    for signal_type, label in names.items():
        for found in task.decision.hashes:
            if found.signal_type == signal_type and found.variant == "original" and found.frame == 0:
                yield label, found.value.hex()
                break


def _found(task: Task, options: NcmecOptions) -> Iterator[str]:
    hits = _hits(task)
    for match in hits[:_MAX_MATCHES]:
        parts = [match.signal_type, "exact" if match.exact else f"{match.distance_bits} bits apart"]
        if match.category:
            parts.append(f"category {clean(match.category, 200)}")
        if options.name_lists:
            parts.append(f"list {clean(match.list_name, 200)}, entry {clean(match.entry_id, 200)}")
        yield f"Match with an entry of a hash list: {', '.join(parts)}"
    if len(hits) > _MAX_MATCHES:
        yield f"Further matches: {len(hits) - _MAX_MATCHES}"


def _account(task: Task, options: NcmecOptions, *, attached: bool) -> Iterator[str]:
    """The lines of the report's ``additionalInfo``. The reference comes first, so that nothing can cut it off."""
    context, media = task.context, task.decision.media
    yield f"Reference of the reporter: {task.key}"
    if options.additional_info:
        yield options.additional_info
    result = _RESULTS.get(task.decision.verdict, "")
    yield f"The upload was compared with hash lists automatically{result}."
    if task.confirmed_at is not None:
        yield f"A person at the reporter confirmed it: {time_text(task.confirmed_at.astimezone(UTC))}"
    else:
        yield "No person at the reporter has decided about it."
    yield f"A person at the reporter has {'' if task.viewed else 'not '}viewed the file."
    yield from _found(task, options)
    yield f"File: {clean(media.media_type or 'of unknown type', 100)}, {media.size_bytes} bytes"
    if context.filename:
        yield f"Name of the file: {clean(context.filename, 500)}"
    if context.object_id:
        yield f"Name of the stored upload at the reporter: {clean(context.object_id, 500)}"
    if not attached:
        yield "The file is not attached. Its hashes:"
        for label, value in _hashes(task, {**_DIGESTS, "pdq": "PDQ"}):
            yield f"{label}: {value}"
