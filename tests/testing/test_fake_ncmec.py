"""The fake CyberTipline keeps to what is public of the real one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import httpx
import pytest

from uploadguard.testing.fakes import FakeProcess, LostResponse
from uploadguard.testing.fakes.ncmec import FakeNcmec, answering

REFERENCE = "12345678-1234-1234-1234-123456789abc"
MINIMAL = (
    "<report><incidentSummary><incidentType>Child Sex Tourism</incidentType>"
    "<incidentDateTime>2026-01-02T03:04:05Z</incidentDateTime></incidentSummary>"
    "<reporter><reportingPerson><email>desk@host.example</email></reportingPerson></reporter>"
    f"<additionalInfo>Reference {REFERENCE}.</additionalInfo></report>"
)
XML = {"Content-Type": "text/xml; charset=utf-8"}


@pytest.fixture
def fake() -> Iterator[FakeNcmec]:
    with FakeNcmec() as server:
        yield server


class Api(httpx.Client):
    """Calls that give the code and the answer's values."""

    def call(self, path: str, **request: object) -> tuple[int, dict[str, str | None]]:
        answer = self.post(path, **request)  # type: ignore[arg-type]
        assert answer.status_code == 200
        assert answer.headers["request-id"]
        root = ET.fromstring(answer.content)
        assert root.tag == ("reportDoneResponse" if root.find("files") is not None else "reportResponse")
        return int(root.findtext("responseCode") or -1), {item.tag: item.text for item in root}

    def xml(self, path: str, document: str | bytes) -> tuple[int, dict[str, str | None]]:
        return self.call(path, content=document, headers=XML)

    def opened(self) -> str:
        code, values = self.xml("/submit", MINIMAL)
        assert code == 0
        return values["reportId"] or ""

    def upload(self, report: str, data: bytes = b"picture") -> tuple[int, dict[str, str | None]]:
        return self.call("/upload", data={"id": report}, files={"file": ("a.jpg", data, "image/jpeg")})

    def end(self, path: str, report: str) -> int:
        return self.call(path, data={"id": report})[0]


@pytest.fixture
def api(fake: FakeNcmec) -> Iterator[Api]:
    with Api(base_url=fake.url, auth=(fake.username, fake.password), trust_env=False) as client:
        yield client


def details(report: str, file: str | None, more: str = "") -> str:
    return f"<fileDetails><reportId>{report}</reportId><fileId>{file}</fileId>{more}</fileDetails>"


def test_a_report_is_opened_given_a_file_and_finished(fake: FakeNcmec, api: Api) -> None:
    report = api.opened()
    code, uploaded = api.upload(report, b"picture")
    assert (code, uploaded["hash"]) == (0, hashlib.md5(b"picture").hexdigest())
    more = "<fileViewedByEsp>false</fileViewedByEsp><originalFileHash hashType='MD5'>00</originalFileHash>"
    assert api.xml("/fileinfo", details(report, uploaded["fileId"], more))[0] == 0
    assert fake.finished_by_reference == {}
    answer = api.post("/finish", data={"id": report})
    root = ET.fromstring(answer.content)
    assert (root.tag, root.findtext("responseCode"), root.findtext("reportId")) == ("reportDoneResponse", "0", report)
    assert [item.text for item in root.findall("files/fileId")] == [uploaded["fileId"]]
    assert fake.finished_by_reference == {REFERENCE: 1}
    [file] = fake.reports[int(report)].files.values()
    assert (file.data, file.name, file.described) == (b"picture", "a.jpg", 1)
    assert fake.snapshot()["finished"] == {REFERENCE: 1}


def test_a_finished_report_cannot_be_changed_or_taken_back(api: Api) -> None:
    report = api.opened()
    assert api.end("/finish", report) == 0
    assert api.end("/finish", report) == api.end("/retract", report) == api.upload(report)[0] == 5102


def test_a_retracted_report_cannot_be_finished(fake: FakeNcmec, api: Api) -> None:
    report = api.opened()
    assert api.end("/retract", report) == 0
    assert api.end("/finish", report) == api.end("/retract", report) == api.upload(report)[0] == 5101
    assert fake.finished == []


def test_unfinished_reports_are_deleted_a_day_after_opening(fake: FakeNcmec, api: Api) -> None:
    report = api.opened()
    fake.clock.advance(24 * 3600 - 60)
    assert api.xml("/fileinfo", details(report, "none"))[0] == 5002
    fake.clock.advance(120)
    assert api.end("/finish", report) == api.end("/retract", report) == api.upload(report)[0] == 5001


def test_a_change_keeps_a_report_for_an_hour_more(fake: FakeNcmec, api: Api) -> None:
    report = api.opened()
    fake.clock.advance(24 * 3600 - 60)
    code, uploaded = api.upload(report)
    assert code == 0
    fake.clock.advance(3600 - 60)
    assert api.xml("/fileinfo", details(report, uploaded["fileId"]))[0] == 0
    fake.clock.advance(3600 - 60)
    assert api.end("/finish", report) == 0
    fake.clock.advance(1000 * 3600)
    assert api.end("/finish", report) == 5102, "a finished one is never deleted"


def test_only_the_right_password_is_let_in(fake: FakeNcmec, api: Api) -> None:
    assert api.get("/status").status_code == 200
    fake.password = "another"
    for answer in (api.get("/status"), api.post("/submit", content=MINIMAL, headers=XML), httpx.get(fake.url + "/xsd")):
        assert (answer.status_code, answer.content) == (401, b"")
    assert fake.reports == {}


def test_status_and_schema(api: Api) -> None:
    assert b"Remote User" in api.get("/status").content
    schema = api.get("/xsd")
    names = {item.get("name") for item in ET.fromstring(schema.content)}
    assert {"report", "fileDetails", "ipCaptureEvent"} <= names
    assert api.get("/submit").status_code == 405
    assert api.post("/elsewhere").status_code == 404


@pytest.mark.parametrize(
    "document",
    [
        MINIMAL.replace("<reporter>", "<victim/><reporter>"),
        MINIMAL.replace("<incidentSummary>", "<reporter/><incidentSummary>"),
        MINIMAL.replace("Child Sex Tourism", "Tourism"),
        MINIMAL.replace("2026-01-02T03:04:05Z", "2026-01-32T03:04:05Z"),
        MINIMAL.replace("2026-01-02T03:04:05Z", "yesterday"),
        MINIMAL.replace("<incidentType>Child Sex Tourism</incidentType>", ""),
        MINIMAL.replace("desk@host.example", "desk"),
        MINIMAL.replace("<reporter>", "<reporter kind='x'>"),
        MINIMAL.replace("<reporter>", "<reporter>text"),
        MINIMAL.replace("</additionalInfo>", "</additionalInfo><additionalInfo/>"),
        MINIMAL.replace("<reporter>", "<internetDetails/><reporter>"),
        "<fileDetails><reportId>1</reportId><fileId>2</fileId></fileDetails>",
    ],
)
def test_a_report_out_of_order_or_incomplete_is_refused(fake: FakeNcmec, api: Api, document: str) -> None:
    assert document != MINIMAL
    assert api.xml("/submit", document)[0] == 4100
    assert fake.reports == {}


@pytest.mark.parametrize(
    "more",
    [
        "<publiclyAvailable>true</publiclyAvailable><fileViewedByEsp>true</fileViewedByEsp>",
        "<fileViewedByEsp>yes</fileViewedByEsp>",
        "<industryClassification>C1</industryClassification>",
        "<originalFileHash>00</originalFileHash>",
        "<ipCaptureEvent><eventName>Upload</eventName><ipAddress>192.0.2.1</ipAddress></ipCaptureEvent>",
        "<ipCaptureEvent><ipAddress>192.0.2.1</ipAddress><port>0</port></ipCaptureEvent>",
        "<ipCaptureEvent><ipAddress>localhost</ipAddress></ipCaptureEvent>",
    ],
)
def test_file_details_out_of_order_are_refused(api: Api, more: str) -> None:
    report = api.opened()
    assert api.xml("/fileinfo", details(report, api.upload(report)[1]["fileId"], more))[0] == 4100


@pytest.mark.parametrize(
    "document",
    [
        "<report>",
        b"",
        b"\xff\xfe\x00",
        "<!DOCTYPE report><report/>",
        '<!DOCTYPE report [<!ENTITY a "b">]><report>&a;</report>',
        "<report>\x01</report>",
    ],
)
def test_what_is_no_xml_is_malformed(api: Api, document: str | bytes) -> None:
    assert api.xml("/submit", document)[0] == 4110


def test_odd_ids_and_forms(api: Api) -> None:
    assert api.end("/finish", "no number") == 4200
    assert api.end("/finish", "77") == 5001
    assert api.call("/upload", data={"id": "1"})[0] == 4000
    assert api.post("/submit", content=MINIMAL).status_code == 415


def test_a_lost_answer_still_took_effect(fake: FakeNcmec, api: Api) -> None:
    report = api.opened()
    fake.misbehave(LostResponse(), path="/finish")
    with pytest.raises(httpx.TransportError):
        api.end("/finish", report)
    assert fake.finished_by_reference == {REFERENCE: 1}
    assert api.end("/finish", report) == 5102


def test_any_code_can_be_had(fake: FakeNcmec, api: Api) -> None:
    fake.misbehave(answering(1111), path="/submit")
    assert api.xml("/submit", MINIMAL)[0] == 1111
    assert fake.reports == {}


def test_it_runs_as_a_process() -> None:
    with FakeProcess("uploadguard.testing.fakes.ncmec", "--chaos", "1", "--seed", "7") as process:
        api = Api(base_url=process.url, auth=("esp", "made-up"), trust_env=False)
        with api:
            process.calm()
            reference = str(uuid.uuid4())
            _, values = api.xml("/submit", MINIMAL.replace(REFERENCE, reference))
            assert api.end("/finish", values["reportId"] or "") == 0
        assert process.snapshot() == {
            "requests": 2, "reports": 1, "retracted": 0, "finished": {reference: 1}, "files": {reference: 0},
        }  # fmt: skip


def test_a_process_that_cannot_start_says_so() -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        FakeProcess("uploadguard.testing.fakes.ncmec", "--help-me-not")
