"""What the fake CyberTipline takes for a valid document: order, number, required elements, attributes and values.

This is written apart from any client's rules, so that a mistake in one of them shows.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from xml.etree import ElementTree as ET
from xml.parsers import expat

__all__ = ["Malformed", "parse", "problem_in", "xsd"]

_ACCOUNT = "espIdentifier? espService? compromisedAccount? screenName? displayName* profileUrl* profileBio?"
_DISABLED = "accountTemporarilyDisabled? accountPermanentlyDisabled?"
_CONTACT = "firstName? lastName? phone* email* address*"

CHILDREN: Mapping[str, str] = {
    "report": "batchedReport? incidentSummary internetDetails* lawEnforcement? reporter personOrUserReported* "
    "intendedRecipient* victim* additionalInfo?",
    "incidentSummary": "incidentType platform? escalateToHighPriority? reportAnnotations? incidentDateTime "
    "incidentDateTimeDescription?",
    "reportAnnotations": "sextortion? csamSolicitation? minorToMinorInteraction? spam? sadisticOnlineExploitation?",
    "internetDetails": "webPageIncident|emailIncident|newsgroupIncident|chatImIncident|onlineGamingIncident|"
    "cellPhoneIncident|nonInternetIncident|peer2peerIncident",
    "webPageIncident": "url* additionalInfo?",
    "emailIncident": "emailAddress* content? additionalInfo?",
    "newsgroupIncident": "name? emailAddress* content? additionalInfo?",
    "chatImIncident": "chatClient? chatRoomName? content? additionalInfo?",
    "onlineGamingIncident": "gameName? console? content? additionalInfo?",
    "cellPhoneIncident": "phoneNumber? latitude? longitude? additionalInfo?",
    "nonInternetIncident": "locationName? incidentAddress* additionalInfo?",
    "peer2peerIncident": "client? ipCaptureEvent* fileNames? additionalInfo?",
    "lawEnforcement": "agencyName? caseNumber? officerContact? reportedToLe? servedLegalProcessDomestic? "
    "servedLegalProcessInternational?",
    "reporter": "reportingPerson contactPerson? companyTemplate? termsOfService? legalURL?",
    "reportingPerson": f"{_CONTACT} age? dateOfBirth?",
    "contactPerson": _CONTACT,
    "officerContact": _CONTACT,
    "personOrUserReported": f"personOrUserReportedPerson? vehicleDescription? {_ACCOUNT} ipCaptureEvent* deviceId* "
    f"thirdPartyUserReported? priorCTReports* groupIdentifier? {_DISABLED} estimatedLocation? allEmailsReported? "
    "associatedAccount* additionalInfo?",
    "personOrUserReportedPerson": f"{_CONTACT} age? dateOfBirth?",
    "intendedRecipient": f"intendedRecipientPerson? {_ACCOUNT} ipCaptureEvent* deviceId* priorCTReports* "
    f"groupIdentifier? {_DISABLED} estimatedLocation? allEmailsReported? additionalInfo*",
    "intendedRecipientPerson": f"{_CONTACT} age? dateOfBirth?",
    "victim": f"victimPerson? {_ACCOUNT} ipCaptureEvent* deviceId* schoolName? priorCTReports* {_DISABLED} "
    "estimatedLocation? allEmailsReported? associatedAccount* additionalInfo?",
    "victimPerson": f"{_CONTACT} age? dateOfBirth?",
    "address": "address? city? zipCode? state? nonUsaState? country?",
    "estimatedLocation": "city? region? countryCode",
    "deviceId": "idType idValue eventName? dateTime?",
    "ipCaptureEvent": "ipAddress eventName? dateTime? possibleProxy? port?",
    "fileDetails": "reportId fileId fileName? originalFileName? uploadedToEspTimestamp? locationOfFile? "
    "fileViewedByEsp? exifViewedByEsp? publiclyAvailable? fileRelevance? potentialMeme|fileAnnotations? "
    "industryClassification? originalFileHash* ipCaptureEvent? deviceId* details* additionalInfo*",
    "fileAnnotations": "animeDrawingVirtualHentai? potentialMeme? viral? possibleSelfProduction? physicalHarm? "
    "violenceGore? bestiality? liveStreaming? infant? generativeAi?",
    "details": "nameValuePair*",
    "nameValuePair": "name value",
}
"""By element, its children in order: ``?`` at most one, ``*`` any number, ``|`` one of these."""

_CONTACT_ATTRIBUTES = "type verified verificationDate"
ATTRIBUTES: Mapping[str, str] = {
    "batchedReport": "reason!",
    "email": _CONTACT_ATTRIBUTES,
    "emailAddress": _CONTACT_ATTRIBUTES,
    "phone": f"{_CONTACT_ATTRIBUTES} countryCallingCode extension",
    "phoneNumber": f"{_CONTACT_ATTRIBUTES} countryCallingCode extension",
    "address": "type",
    "incidentAddress": "type",
    "originalFileHash": "hashType!",
    "estimatedLocation": "verified timestamp",
    "accountTemporarilyDisabled": "disabledDate userNotified userNotifiedDate reenabledDate",
    "accountPermanentlyDisabled": "disabledDate userNotified userNotifiedDate",
    "details": "type",
}
"""By element, its attributes; ``!`` marks those required. Elements that are not here have none."""

_INCIDENT_TYPES = frozenset(
    {
        "Child Pornography (possession, manufacture, and distribution)",
        "Child Sex Trafficking",
        "Child Sex Tourism",
        "Child Sexual Molestation",
        "Misleading Domain Name",
        "Misleading Words or Digital Images on the Internet",
        "Online Enticement of Children for Sexual Acts",
        "Unsolicited Obscene Material Sent to a Child",
    }
)


def _is_time(text: str) -> bool:
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", text) is None:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_flag(text: str) -> bool:
    return text in {"true", "false", "1", "0"}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,18}", text) is not None


_FLAGS = (
    "fileViewedByEsp", "exifViewedByEsp", "publiclyAvailable", "possibleProxy", "potentialMeme", "compromisedAccount",
    "thirdPartyUserReported", "allEmailsReported", "reportedToLe",
)  # fmt: skip

VALUES: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys(_FLAGS, _is_flag),
    "incidentType": _INCIDENT_TYPES.__contains__,
    "incidentDateTime": _is_time,
    "dateTime": _is_time,
    "uploadedToEspTimestamp": _is_time,
    "eventName": {"Login", "Registration", "Purchase", "Upload", "Other", "Unknown"}.__contains__,
    "ipAddress": _is_address,
    "port": lambda text: _is_number(text) and 0 < int(text) < 65536,
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text) is not None,
    "reportId": _is_number,
    "priorCTReports": _is_number,
    "fileId": lambda text: bool(text),
    "industryClassification": {"A1", "A2", "B1", "B2"}.__contains__,
    "fileRelevance": {"Reported", "Supplemental Reported"}.__contains__,
    "originalFileHash": lambda text: bool(text.strip()),
}


class Malformed(Exception):
    """It is no well-formed XML, or holds what no honest client sends (a document type, entities)."""


class _Builder(ET.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise Malformed("a document type")


def parse(data: bytes) -> ET.Element:
    """The document's root. Raises :class:`Malformed`."""
    parser = ET.XMLParser(target=_Builder())  # noqa: S314 - document types are refused above
    try:
        parser.feed(data)
        root: ET.Element = parser.close()
    except (ET.ParseError, expat.ExpatError, LookupError, ValueError) as error:
        raise Malformed(str(error)) from error
    return root


def problem_in(element: ET.Element, name: str) -> str | None:
    """What is wrong with the document whose root must be ``name``: the first thing found, or None."""
    if element.tag != name:
        return f"expected <{name}>"
    return _problem(element)


def _problem(element: ET.Element) -> str | None:
    name = element.tag
    children = list(element)
    given, known = set(element.keys()), ATTRIBUTES.get(name, "").split()
    if not given <= {attribute.rstrip("!") for attribute in known}:
        return f"<{name}>: unknown attribute"
    if any(attribute.endswith("!") and attribute[:-1] not in given for attribute in known):
        return f"<{name}>: missing attribute"
    # An address holds an element of its own name, with text.
    if name in CHILDREN and not (name == "address" and not children):
        if (element.text or "").strip() or any((child.tail or "").strip() for child in children):
            return f"<{name}>: text between elements"
        if _MODELS[name].fullmatch("".join(f"{child.tag} " for child in children)) is None:
            return f"<{name}>: wrong, missing or misplaced elements"
        return next((found for found in map(_problem, children) if found is not None), None)
    if children:
        return f"<{name}>: unexpected elements"
    check = VALUES.get(name)
    return None if check is None or check(element.text or "") else f"<{name}>: invalid value"


def _model(text: str) -> re.Pattern[str]:
    """A content model as a pattern over the children's names, a blank after each."""
    parts = []
    for part in text.split():
        names = "|".join(map(re.escape, part.rstrip("?*").split("|")))
        parts.append(f"(?:(?:{names}) ){part[-1] if part[-1] in '?*' else ''}")
    return re.compile("".join(parts))


_MODELS = {name: _model(text) for name, text in CHILDREN.items()}


def xsd() -> bytes:
    """The same rules as an XML Schema, in short: elements, order and number."""
    space = "http://www.w3.org/2001/XMLSchema"
    ET.register_namespace("xs", space)
    schema = ET.Element(f"{{{space}}}schema", {"elementFormDefault": "qualified"})
    for name, text in CHILDREN.items():
        element = ET.SubElement(schema, f"{{{space}}}element", {"name": name})
        sequence = ET.SubElement(ET.SubElement(element, f"{{{space}}}complexType"), f"{{{space}}}sequence")
        for part in text.split():
            number = {"?": {"minOccurs": "0"}, "*": {"minOccurs": "0", "maxOccurs": "unbounded"}}.get(part[-1], {})
            choices = part.rstrip("?*").split("|")
            place = ET.SubElement(sequence, f"{{{space}}}choice", number) if len(choices) > 1 else sequence
            for choice in choices:
                kind = {"ref": choice} if choice in CHILDREN else {"name": choice, "type": "xs:string"}
                ET.SubElement(place, f"{{{space}}}element", kind | ({} if len(choices) > 1 else number))
    document: bytes = ET.tostring(schema, encoding="utf-8", xml_declaration=True)
    return document
