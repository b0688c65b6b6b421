"""What a report says: true, complete, and in the form that the other side takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ncmec_stubs import made_up_decision, made_up_task, table

from uploadguard.actions import Task
from uploadguard.models import Context, Match, Media, Verdict
from uploadguard.testing.fakes import ncmec_schema
from uploadguard_ncmec import NcmecOptions
from uploadguard_ncmec.documents import file_document, file_name, report_document
from uploadguard_ncmec.schema import REPORT, Attributed, DocumentError, build


def options(**changes: Any) -> NcmecOptions:
    return NcmecOptions.model_validate(table("http://127.0.0.1:9", **changes))


def report(task: Task, *, attached: bool = True, **changes: Any) -> ET.Element:
    root = ncmec_schema.parse(report_document(task, options(**changes), attached=attached))
    assert ncmec_schema.problem_in(root, "report") is None
    return root


def details(task: Task, **changes: Any) -> ET.Element:
    document = file_document(task, options(**changes), report_id="7", file_id="f", name=file_name(task, "image/png"))
    root = ncmec_schema.parse(document)
    assert ncmec_schema.problem_in(root, "fileDetails") is None
    return root


def names(element: ET.Element | None) -> list[str]:
    assert element is not None
    return [child.tag for child in element]


FULL = Context(
    filename="C:\\Users\\x\\my picture.png",
    uploader="user-7",
    ip="2001:db8::7",
    port=50123,
    object_id="objects/1",
    url="https://img.host.example/1.png",
    uploaded_at=datetime(2026, 3, 4, 6, 0, 0, 999, tzinfo=timezone(timedelta(hours=2))),
    extra={"email": "u@mail.example", "screen_name": "Sevén", "profile_url": "https://host.example/u/7", "age": 7},
)


def test_a_full_report() -> None:
    root = report(
        made_up_task(context=FULL),
        reporter={"first_name": "A", "last_name": "B", "email": "desk@host.example", "phone": "+31 20 1234567"},
        contact={"email": "legal@host.example"},
        company_template="Serve legal process\nby mail.",
        terms_of_service="No.",
        legal_url="https://host.example/legal",
        platform="Pictures",
        service="Uploads",
        additional_info="More on request.",
    )
    assert names(root) == ["incidentSummary", "internetDetails", "reporter", "personOrUserReported", "additionalInfo"]
    assert root.findtext("incidentSummary/incidentDateTime") == "2026-03-04T04:00:00Z"
    assert root.findtext("incidentSummary/platform") == "Pictures"
    assert root.findtext("internetDetails/webPageIncident/url") == FULL.url
    assert names(root.find("reporter/reportingPerson")) == ["firstName", "lastName", "phone", "email"]
    assert root.findtext("reporter/companyTemplate") == "Serve legal process\nby mail."
    person = root.find("personOrUserReported")
    assert names(person) == [
        *("personOrUserReportedPerson", "espIdentifier", "espService", "screenName", "profileUrl", "ipCaptureEvent"),
    ]
    assert root.findtext("personOrUserReported/screenName") == "Sevén"
    capture = root.find("personOrUserReported/ipCaptureEvent")
    assert capture is not None
    assert [item.text for item in capture] == ["2001:db8::7", "Upload", "2026-03-04T04:00:00Z", "50123"]
    text = root.findtext("additionalInfo") or ""
    assert text.startswith("Reference of the reporter: ")
    assert "More on request." in text
    assert "objects/1" in text


def test_the_least_report() -> None:
    root = report(made_up_task(context=Context()))
    assert names(root) == ["incidentSummary", "reporter", "additionalInfo"]
    assert root.findtext("incidentSummary/incidentDateTime") == "2026-03-04T05:06:07Z"
    assert (
        root.findtext("incidentSummary/incidentType") == "Child Pornography (possession, manufacture, and distribution)"
    )


def test_hashes_are_told_where_no_file_follows() -> None:
    task = made_up_task()
    attached, alone = (report(task, attached=value).findtext("additionalInfo") or "" for value in (True, False))
    md5 = task.decision.hashes[0].value.hex()
    assert md5 not in attached
    for line in ("The file is not attached. Its hashes:", f"MD5: {md5}", f"PDQ: {'00' * 32}"):
        assert line in alone.splitlines()


def test_file_details() -> None:
    root = details(made_up_task(context=FULL))
    assert names(root) == [
        *("reportId", "fileId", "fileName", "originalFileName", "uploadedToEspTimestamp", "fileViewedByEsp"),
        *("originalFileHash", "originalFileHash", "originalFileHash", "ipCaptureEvent", "additionalInfo"),
    ]
    assert root.findtext("originalFileName") == "my picture.png"
    assert [item.get("hashType") for item in root.findall("originalFileHash")] == ["MD5", "SHA1", "SHA256"]


@pytest.mark.parametrize("viewed", [True, False])
def test_whether_a_person_viewed_the_file_is_told_as_it_is(viewed: bool) -> None:
    task = made_up_task(viewed=viewed, confirmed_at=datetime(2026, 3, 5, tzinfo=UTC))
    assert details(task).findtext("fileViewedByEsp") == str(viewed).lower()
    text = report(task).findtext("additionalInfo") or ""
    assert ("has not viewed the file" in text) is not viewed
    assert "confirmed it: 2026-03-05T00:00:00Z" in text


def test_an_automatic_block_says_that_nobody_decided() -> None:
    text = report(made_up_task()).findtext("additionalInfo") or ""
    assert "was blocked" in text
    assert "No person at the reporter has decided" in text
    held = made_up_task(decision=made_up_decision(verdict=Verdict.QUEUE))
    assert "was held for review" in (report(held).findtext("additionalInfo") or "")


def test_what_is_not_known_is_not_said() -> None:
    root = details(made_up_task(context=Context(ip="192.0.2.7", url="https://host.example/1")))
    assert root.find("ipCaptureEvent/port") is None
    for name in ("exifViewedByEsp", "publiclyAvailable", "locationOfFile", "industryClassification"):
        assert root.find(name) is None
    root = details(made_up_task(context=FULL), exif_viewed=False, publicly_available=True)
    assert root.findtext("exifViewedByEsp") == "false"
    assert root.findtext("publiclyAvailable") == "true"
    assert root.findtext("locationOfFile") == FULL.url


def match(category: str | None, distance_bits: int = 0, *, allow: bool = False) -> Match:
    return Match("secret-list", "e-9", category, "pdq", distance_bits, exact=distance_bits == 0, allow=allow)


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ((match("A1"),), "A1"),
        ((match("b2", 10),), "B2"),
        ((match("A1", 10), match("B1")), "B1"),
        ((match("A1"), match("B1")), None),
        ((match("A1", 3), match("A1", 9)), "A1"),
        ((match("A1", allow=True),), None),
        ((match("C"), match(None)), None),
        ((), None),
    ],
)
def test_the_classification_is_that_of_the_entries_if_asked_for(matches: tuple[Match, ...], expected: str) -> None:
    task = made_up_task(decision=made_up_decision(matches=matches))
    assert details(task, classify=True).findtext("industryClassification") == expected
    assert details(task).find("industryClassification") is None


def test_lists_are_named_only_if_asked_for() -> None:
    task = made_up_task(decision=made_up_decision(matches=tuple(match("A1", n) for n in range(30))))
    quiet, telling = (report(task, name_lists=value).findtext("additionalInfo") or "" for value in (False, True))
    assert "secret-list" not in quiet
    assert "list secret-list, entry e-9" in telling
    assert "pdq, exact, category A1" in quiet
    assert "19 bits apart" in quiet
    assert "20 bits apart" not in quiet
    assert "Further matches: 10" in quiet


def test_a_fast_clock_puts_no_upload_after_its_check() -> None:
    ahead = Context(uploaded_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert report(made_up_task(context=ahead)).findtext("incidentSummary/incidentDateTime") == "2026-03-04T05:06:07Z"
    early, late = timezone(timedelta(hours=14)), timezone(timedelta(hours=-14))
    for end in (datetime(1, 1, 1, tzinfo=early), datetime(9999, 12, 31, 23, tzinfo=late)):
        root = report(made_up_task(context=Context(uploaded_at=end)))
        assert root.findtext("incidentSummary/incidentDateTime") == "2026-03-04T05:06:07Z"


def test_what_has_no_valid_form_is_told_in_words() -> None:
    root = report(made_up_task(context=Context(ip="10.0.0.300", port=70000, extra={"email": "no address"})))
    text = root.findtext("personOrUserReported/additionalInfo") or ""
    assert text.splitlines() == ["Email address, as recorded: no address", "IP address, as recorded: 10.0.0.300"]
    root = report(made_up_task(context=Context(ip="fe80::1%eth0", port=70000)))
    assert root.findtext("personOrUserReported/ipCaptureEvent/ipAddress") == "fe80::1"
    assert root.find("personOrUserReported/ipCaptureEvent/port") is None


def test_file_names_have_the_media_types_extension() -> None:
    task = made_up_task()
    assert file_name(task, "image/jpeg") == f"{task.key}.jpg"
    assert file_name(task, "image/../../x") == file_name(task, None) == f"{task.key}.bin"


STRANGE = st.text(max_size=60) | st.sampled_from(
    [
        "\x00",
        "\x1b[31m",
        "]]>",
        "<![CDATA[",
        "&#0;",
        "<!DOCTYPE a>",
        "\ud800",
        "\ufffe",
        "\r\n\r",
        " ",
        "\u202e",
        "a" * 9000,
    ]
)
TIMES = st.none() | st.datetimes() | st.datetimes(timezones=st.just(timezone(timedelta(hours=-11))))
CONTEXTS = st.builds(
    Context,
    filename=st.none() | STRANGE,
    uploader=st.none() | STRANGE,
    ip=st.none() | STRANGE | st.ip_addresses().map(str),
    port=st.none() | st.integers(),
    object_id=st.none() | STRANGE,
    url=st.none() | STRANGE,
    uploaded_at=TIMES,
    extra=st.dictionaries(
        st.sampled_from(["email", "screen_name", "profile_url", "other"]),
        STRANGE | st.none() | st.integers() | st.emails(),
    ),
)
MATCHES = st.lists(
    st.builds(
        Match,
        list_name=STRANGE,
        entry_id=STRANGE,
        category=st.none() | STRANGE,
        signal_type=STRANGE,
        distance_bits=st.integers(0, 64),
    ),
    max_size=3,
)


@settings(deadline=None)
@given(CONTEXTS, MATCHES, st.none() | STRANGE, st.booleans())
def test_any_upload_makes_valid_documents(
    context: Context, matches: list[Match], media_type: str | None, flag: bool
) -> None:
    decision = made_up_decision(matches=tuple(matches), media=Media(1, media_type))
    task = made_up_task(context=context, decision=decision, viewed=flag)
    root = report(task, attached=flag, name_lists=True)
    assert task.key in (root.findtext("additionalInfo") or "").splitlines()[0]
    details(task, name_lists=True, classify=True, publicly_available=flag)


def last_name(text: str) -> str | None:
    """A text after a journey through a document."""
    values = {"incidentSummary": SUMMARY, "reporter": {"reportingPerson": {"email": ["a@b.example"], "lastName": text}}}
    return ncmec_schema.parse(build(REPORT, values)).findtext("reporter/reportingPerson/lastName")


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp", "Cn"]), min_size=1))
def test_text_arrives_as_it_is(text: str) -> None:
    assert last_name(text) == text


def test_of_text_only_what_xml_cannot_hold_is_replaced() -> None:
    assert last_name(" a\x00b\x1bc\ud800d\ufffee\r\n\tf ") == "a\ufffdb\ufffdc\ufffdd\ufffde f"
    assert last_name("\x85\u2028 ") is None
    assert last_name("x" * 4001) == "x" * 3999 + "…"


SUMMARY = {"incidentType": "Child Sex Tourism", "incidentDateTime": datetime(2026, 1, 1, tzinfo=UTC)}
REPORTER = {"reportingPerson": {"email": ["desk@host.example"]}}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "report: is empty"),
        ({"reporter": REPORTER}, "report/incidentSummary: is missing"),
        ({"incidentSummary": SUMMARY}, "report/reporter: is missing"),
        ({"incidentSummary": SUMMARY, "reporter": {"reportingPerson": {}}}, "report/reporter: is missing"),
        ({"incidentSummary": {**SUMMARY, "incidentType": "x"}, "reporter": REPORTER}, "incidentType: its value"),
        ({"incidentSummary": {**SUMMARY, "incidentType": None}, "reporter": REPORTER}, "incidentType: is missing"),
        ({"incidentSummary": {**SUMMARY, "incidentDateTime": "now"}, "reporter": REPORTER}, "DateTime: its value"),
        ({"incidentSummary": {**SUMMARY, "platform": 1.5}, "reporter": REPORTER}, "platform: cannot hold a float"),
        ({"incidentSummary": "x", "reporter": REPORTER}, "incidentSummary: holds elements"),
        ({"incidentSummary": SUMMARY, "reporter": REPORTER, "victim": {}}, "report: has no place for victim"),
        ({"incidentSummary": {**SUMMARY, "platform": Attributed("a", "b")}}, "platform: has no attribute"),
        (MappingProxyType({"incidentSummary": SUMMARY, "additionalInfo": {}}), "additionalInfo: cannot hold a dict"),
    ],
)
def test_what_the_schema_does_not_take_is_refused_without_its_value(values: Any, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem):
        build(REPORT, values)
