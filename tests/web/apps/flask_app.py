"""A small picture host in Flask, for the servers that it is tested under."""

from __future__ import annotations

import os
from typing import Any

import flask

from tests.web.apps.hold import hold
from tests.web.apps.probe import alive
from uploadguard.web.flask import Uploadguard

uploads = Uploadguard(hold=hold)


def create_app(**config: Any) -> flask.Flask:
    """The application. The Guard is opened when the first upload comes."""
    app = flask.Flask(__name__)
    app.config.update(config)
    uploads.init_app(app)
    app.add_url_rule("/upload", view_func=upload, methods=["POST"])
    app.add_url_rule("/raw", view_func=raw, methods=["PUT", "POST"])
    app.add_url_rule("/async", view_func=slow, methods=["POST"])
    app.add_url_rule("/bare", view_func=bare, methods=["POST"])
    app.add_url_rule("/alive", view_func=is_alive)
    return app


def told() -> dict[str, Any]:
    """What arrived at the view: each file's field, size and first bytes, and its verdict."""
    request = flask.request
    files = []
    for checked in flask.g.uploadguard.checked:
        data = checked.file.read()
        files.append([checked.field, checked.file.filename, len(data), data[:8].hex(), checked.decision.verdict.label])
    return {"files": files, "text": request.form.get("text"), "pid": os.getpid()}


@uploads.check_uploads
def upload() -> dict[str, Any]:
    """A form."""
    return told()


@uploads.check_uploads(raw=True)
def raw() -> dict[str, Any]:
    """A body that is the file itself."""
    data = flask.g.uploadguard.body.read()
    return {"size": len(data), "verdict": flask.g.uploadguard.decisions[0].verdict.label, "start": data[:4].hex()}


@uploads.check_uploads
async def slow() -> dict[str, Any]:
    """Asynchronous."""
    return told()


def bare() -> dict[str, Any]:
    """A form that is read and not checked, to compare with."""
    return {"sizes": [len(file.read()) for file in flask.request.files.values()]}


def is_alive() -> dict[str, Any]:
    """That it runs."""
    return alive(uploads.guard)


app = create_app()
