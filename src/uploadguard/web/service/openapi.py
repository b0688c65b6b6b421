"""The service's description, OpenAPI 3.1. Tests hold the real answers against it."""

from __future__ import annotations

from typing import Any

from uploadguard.models import FailureCode, Media, Verdict
from uploadguard.versions import versions
from uploadguard.web.service.context import CONTEXT_FIELDS, HEADER_PREFIX

__all__ = ["document"]

Json = dict[str, Any]

_VERDICTS = [verdict.label for verdict in Verdict]
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_CONTEXT_MEANINGS = {
    "filename": "The file's name, as the uploader gave it.",
    "uploader": "The host's name for who uploads.",
    "ip": "The uploader's address.",
    "port": "The uploader's port.",
    "tenant": "Whose rules apply.",
    "object_id": "The host's name for the upload.",
    "url": "Where it is, or would be, served.",
    "uploaded_at": "When, ISO 8601 with a zone; now by default.",
    "extra": "More, as a JSON object.",
}


def document() -> Json:
    """The description, as JSON types."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "uploadguard",
            "version": versions()["uploadguard"],
            "summary": "Checks image uploads against hash lists of known abuse material.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"basic": []}],
        "paths": {
            "/v1/check": {"post": _check()},
            "/v1/check-hash": {"post": _check_hash()},
            "/v1/decisions/{reference}": {"get": _decision()},
            "/v1/hooks/tusd": {"post": _tusd()},
            "/livez": {"get": _open("Whether the process is alive.", {"200": _json("It is.", _LIVE)})},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _open("This description.", {"200": _json("It.", {"type": "object"})})},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The password is the token."},
            },
            "schemas": {
                "Error": _ERROR,
                "Answer": _ANSWER,
                "Media": _MEDIA,
                "Context": _context(),
                "Decision": _DECISION,
                "RecordedDecision": _RECORDED,
                "HashCheck": _HASHES,
            },
        },
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: Json, optional: Json | None = None, *, closed: bool = True) -> Json:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": not closed,
    }


def _json(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: int) -> Json:
    texts = {
        400: "The request is wrong.",
        401: "No token, or not one that is known.",
        403: "The token is not good for this.",
        404: "There is no such thing.",
        408: "The body took too long.",
        413: "The body is too large.",
        422: "The upload cannot be checked, or must not go on.",
        500: "This failed.",
        503: "Not now: Retry-After says when.",
    }
    return {str(status): _json(texts[status], _ref("Error")) for status in statuses}


_LIVE = _object({"alive": {"const": True}})
_ERROR = _object({"error": _object({"code": _TEXT, "message": _TEXT})})
_ANSWER = _object({"status": {"type": "integer"}, "body": _object({"detail": _TEXT}, {"reference": _TEXT})})
_MEDIA = _object(
    {
        name: _COUNT if name.startswith(("size", "frames", "orientation", "scale"))
        else _nullable(_COUNT if name in ("width", "height") else _TEXT)
        for name in Media.__slots__
    }
)  # fmt: skip
_DECISION = _object(
    {
        "reference": {**_TEXT, "description": "A random name for the decision; the uploader may see it."},
        "verdict": {"enum": _VERDICTS},
        "treat_as": {
            "enum": ["allow", "queue", "block"],
            "description": "The verdict, with not_scanned as web.not_scanned says: what a host acts on.",
        },
        "answer": {
            **_nullable(_ref("Answer")),
            "description": "What the uploader may be answered; null: the upload may go on.",
        },
        "reasons": {"type": "array", "items": _TEXT, "description": "Stable codes, the weightiest first."},
        "report_due": {"type": "boolean"},
        "generation": _COUNT,
        "media": _ref("Media"),
        "timings_ms": {"type": "object", "additionalProperties": {"type": "number"}},
        "shadow": _nullable({"enum": _VERDICTS}),
        "pending": {
            "description": "Whether a match service is still to answer, and may revise this; in full, which ones.",
            "anyOf": [{"type": "boolean"}, {"type": "array", "items": _TEXT}],
        },
        "revises": _nullable(_TEXT),
    },
    {
        "matches": {"type": "array", "items": {"type": "object"}, "description": "Only in full."},
        "failures": {
            "type": "array",
            "description": "Only in full.",
            "items": _object(
                {
                    "code": {"enum": [code.value for code in FailureCode]},
                    "detail": _TEXT,
                    "frame": _nullable(_COUNT),
                    "matcher": _nullable(_TEXT),
                }
            ),
        },
        "hashes": {"type": "array", "items": {"type": "object"}, "description": "Only in full."},
    },
    closed=False,
)
_CASE = _object({"state": {"enum": ["open", "proposed", "confirmed", "dismissed"]}, "decided_at": _nullable(_TEXT)})
_RECORDED = {
    "allOf": [
        _ref("Decision"),
        _object(
            {
                "decided_at": _TEXT,
                "object_id": _nullable(_TEXT),
                "tenant": _nullable(_TEXT),
                "case": {**_nullable(_CASE), "description": "Its review; null where there is none."},
            },
            closed=False,
        ),
    ]
}
_HASHES = _object(
    {
        "hashes": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1024,
            "items": _object(
                {"signal_type": _TEXT, "value": {**_TEXT, "description": "Hex or base64."}},
                {
                    "quality": {**_nullable({"type": "integer", "minimum": 0, "maximum": 100})},
                    "variant": _TEXT,
                    "frame": _COUNT,
                },
            ),
        }
    },
    {"context": _ref("Context")},
)


def _context() -> Json:
    special: Json = {"port": {"type": "integer", "minimum": 0, "maximum": 65535}, "extra": {"type": "object"}}
    properties = {
        name: {**_nullable(special.get(name, _TEXT)), "description": _CONTEXT_MEANINGS[name]} for name in CONTEXT_FIELDS
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _options() -> list[Json]:
    def option(name: str, text: str, *values: str) -> Json:
        schema = {"enum": list(values), "default": values[0]}
        return {"name": name, "in": "query", "description": text, "schema": schema}

    return [
        option(
            "respond",
            "decision: 200 with the decision. answer: the status and body for the uploader. gate: the same, and an "
            "error status for all that must not be served now.",
            *("decision", "answer", "gate"),
        ),
        option("detail", "full adds matches, failures and hashes, with the names of lists.", "brief", "full"),
    ]


def _checked() -> Json:
    relayed = "With respond=answer or gate"
    return {
        "200": _json("The decision, or that the upload may go on.", {"anyOf": [_ref("Decision"), _body()]}),
        "202": _json(f"{relayed}: the upload is queued (web.queue_status).", _body()),
        **_errors(400, 401, 403, 408, 413, 500, 503),
        "422": _json(f"{relayed}: the upload is blocked (web.block_status).", _body()),
    }


def _body() -> Json:
    return _object({"detail": _TEXT}, {"reference": _TEXT})


def _check() -> Json:
    headers: list[Json] = [
        {
            "name": "-".join(["X", "Uploadguard", *name.split("_")]).title(),
            "in": "header",
            "description": f"{_CONTEXT_MEANINGS[name]} Percent-encoded UTF-8.",
            "schema": _TEXT,
        }
        for name in CONTEXT_FIELDS
    ]
    assert all(header["name"].lower().startswith(HEADER_PREFIX) for header in headers)
    fields: Json = {name: {**_TEXT, "description": _CONTEXT_MEANINGS[name]} for name in CONTEXT_FIELDS}
    file: Json = {"type": "string", "format": "binary", "description": "The upload: one, and the last part."}
    return {
        "operationId": "check",
        "summary": "Check an upload: the body, or the one file of a form.",
        "parameters": [*_options(), *headers],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {"schema": {"type": "object", "properties": {**fields, "file": file}}},
            },
        },
        "responses": _checked(),
    }


def _check_hash() -> Json:
    return {
        "operationId": "checkHash",
        "summary": "Look up hashes of a file that is not here. What is not found is not_scanned, never allow.",
        "parameters": _options(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("HashCheck")}}},
        "responses": _checked(),
    }


def _decision() -> Json:
    return {
        "operationId": "decision",
        "summary": "A decision that the ledger keeps, as it stands now.",
        "parameters": [
            {"name": "reference", "in": "path", "required": True, "schema": _TEXT},
            _options()[1],
        ],
        "responses": {
            "200": _json("The decision; of one that was revised, the later one.", _ref("RecordedDecision")),
            **_errors(400, 401, 403, 404, 500, 503),
        },
    }


def _tusd() -> Json:
    hook: Json = {"type": "object", "properties": {"Type": _TEXT, "Event": {"type": "object"}}}
    refuse: Json = {"enum": ["fail", "respond"], "default": "fail"}
    return {
        "operationId": "tusd",
        "summary": "HTTP hooks of tusd 2: pre-finish is checked, pre-create refuses uploads in parts.",
        "parameters": [{"name": "refuse", "in": "query", "schema": refuse}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": hook}}},
        "responses": {
            "200": _json("The hook's answer.", {"type": "object"}),
            **_errors(400, 401, 403, 404, 408, 413, 500, 503),
            "422": _json("The upload may not go on, or cannot be checked.", {"type": "object"}),
        },
    }


def _open(text: str, responses: Json) -> Json:
    return {"summary": text, "security": [], "responses": responses}


def _ready() -> Json:
    checks = _object(
        {
            "hash_set": {"enum": ["ok", "empty"]},
            "freshness": {"enum": ["ok", "stale"]},
            "recording": {"enum": ["off", "database", "spool", "refusing"]},
            "refresh": {"enum": ["ok", "failing"]},
        }
    )
    schema = _object({"ready": {"type": "boolean"}, "checks": checks})
    return _open(
        "Whether uploads can be checked.",
        {"200": _json("They can.", schema), "503": _json("They cannot, or not as they should.", schema)},
    )


def _metrics() -> Json:
    text = {"text/plain": {"schema": _TEXT}}
    return {
        "summary": "Prometheus metrics, where telemetry.metrics is on.",
        "responses": {"200": {"description": "The metrics.", "content": text}, **_errors(401, 403, 404)},
    }
