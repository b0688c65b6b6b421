"""What is sent, what an answer means, and that no half of one passes for clean."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from arachnid_stubs import CONTEXT, ask, jpeg, make_matcher, media_query, pdq_of, pdq_query
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.errors import MatcherError
from uploadguard.matchers import Query
from uploadguard.models import Hash
from uploadguard.testing import fakes
from uploadguard.testing.fakes.arachnid import FakeArachnid
from uploadguard_arachnid.answers import Finding, Scanned, read_media, read_pdq

CONTENT = b"an ordinary picture, as far as anybody here knows"
KNOWN_SHA1 = base64.b32encode(hashlib.sha1(b"a file", usedforsecurity=False).digest()).decode()
SCANNED = Scanned(5, KNOWN_SHA1, "ab" * 32)
NOTHING = {"classification": "no-known-match", "match_type": None, "near_match_details": None}


def sent(fake: FakeArachnid) -> list[list[bytes]]:
    return [[base64.b64decode(text) for text in json.loads(one.body)["hashes"]] for one in fake.requests]


class TestPdq:
    def test_the_eight_forms_of_a_picture_are_one_question(self, fake: FakeArachnid) -> None:
        matcher = make_matcher(fake.url)
        query = pdq_query(CONTENT)
        assert (matcher.signal_types, matcher.takes_content) == (frozenset({"pdq"}), False)
        assert list(ask(matcher, query)) == []
        assert sent(fake) == [[item.value for item in query.hashes]]
        assert b"private" not in fake.requests[0].body

    def test_only_the_upright_one_if_so_wished(self, fake: FakeArachnid) -> None:
        ask(make_matcher(fake.url, variants=False), pdq_query(CONTENT))
        assert sent(fake) == [[pdq_of(CONTENT)]]

    def test_a_near_match(self, fake: FakeArachnid) -> None:
        value = bytearray(pdq_of(CONTENT, "rot90"))
        value[0] ^= 0xFF
        fake.add_pdq(bytes(value), classification="harmful-abusive-material")
        [match] = ask(make_matcher(fake.url), pdq_query(CONTENT))
        assert (match.list_name, match.entry_id, match.signal_type) == ("shield", KNOWN_SHA1, "pdq")
        assert (match.category, match.variant) == ("harmful-abusive-material", "rot90")
        assert not match.exact
        assert match.fields == {"service": "arachnid", "match_type": "near"}

    def test_many_hashes_are_several_questions(self, fake: FakeArachnid) -> None:
        hashes = tuple(Hash("pdq", pdq_of(b"%d" % number), 90, frame=number) for number in range(25))
        fake.add_pdq(pdq_of(b"24"))
        [match] = ask(make_matcher(fake.url, batch=10), Query((*hashes, *hashes), CONTEXT))
        assert match.frame == 24
        assert [len(one) for one in sent(fake)] == [10, 10, 5]

    @pytest.mark.parametrize("kind", [fakes.Garbage(), fakes.Status(500), fakes.Status(400)], ids=repr)
    def test_a_match_counts_even_if_another_question_failed(self, fake: FakeArachnid, kind: fakes.Misbehaviour) -> None:
        query = Query(tuple(Hash("pdq", pdq_of(b"%d" % number), 90) for number in range(20)), CONTEXT)
        matcher = make_matcher(fake.url, batch=10)
        fake.misbehave(kind)
        with pytest.raises(MatcherError):
            ask(matcher, query)
        fake.add_pdq(pdq_of(b"3"))
        assert len(ask(matcher, query)) == 1
        assert [len(one) for one in sent(fake)] == [10, 10, 10]  # what was answered is not asked again

    def test_hashes_of_low_quality_are_not_sent(self, fake: FakeArachnid) -> None:
        good, bad = pdq_query(CONTENT), pdq_query(b"flat", quality=49)
        matcher = make_matcher(fake.url)
        ask(matcher, dataclasses.replace(good, hashes=(*bad.hashes, *good.hashes)))
        assert sent(fake) == [[item.value for item in good.hashes]]
        with pytest.raises(MatcherError, match="too low a quality"):
            ask(matcher, bad)
        assert matcher.known(bad) is None
        assert len(fake.requests) == 1

    def test_answers_are_kept(self, fake: FakeArachnid) -> None:
        fake.add_pdq(pdq_of(CONTENT))
        matcher = make_matcher(fake.url)
        found = list(ask(matcher, pdq_query(CONTENT)))
        ask(matcher, pdq_query(b"unknown"))
        assert list(matcher.known(pdq_query(CONTENT)) or ()) == found
        assert matcher.known(pdq_query(b"unknown")) == ()
        assert matcher.known(pdq_query(b"another")) is None

    def test_an_answer_about_another_hash_is_none(self, fake: FakeArachnid) -> None:
        other = base64.b64encode(pdq_of(b"other")).decode()
        body = json.dumps({"scanned_hashes": {other: NOTHING}}).encode()
        fake.misbehave(fakes.Status(200, body=body))
        with pytest.raises(MatcherError, match="not about the hashes"):
            ask(make_matcher(fake.url), pdq_query(CONTENT))


class TestMedia:
    def test_the_upload_is_sent_as_it_came(self, fake: FakeArachnid) -> None:
        matcher = make_matcher(fake.url, send="media")
        assert (matcher.signal_types, matcher.takes_content) == (frozenset({"sha256"}), True)
        assert list(ask(matcher, media_query(CONTENT))) == []
        [request] = fake.requests
        assert (request.path, request.body, request.media_type) == ("/v1/media/", jpeg(CONTENT), "image/jpeg")
        view = dataclasses.replace(media_query(b"view"), content=memoryview(jpeg(b"view")))
        assert list(ask(matcher, view)) == []

    def test_an_exact_match_is_of_these_very_bytes(self, fake: FakeArachnid) -> None:
        fake.add_media(jpeg(CONTENT))
        [match] = ask(make_matcher(fake.url, send="media"), media_query(CONTENT))
        sha1 = hashlib.sha1(jpeg(CONTENT), usedforsecurity=False).digest()
        assert (match.signal_type, match.exact, match.category) == ("sha1", True, "csam")
        assert match.entry_id == base64.b32encode(sha1).decode()

    def test_only_classifications_to_block_are_exact(self, fake: FakeArachnid) -> None:
        fake.add_media(jpeg(CONTENT), classification="harmful-abusive-material")
        query = media_query(CONTENT)
        [match] = ask(make_matcher(fake.url, send="media"), query)
        assert (match.exact, match.category) == (False, "harmful-abusive-material")
        [match] = ask(make_matcher(fake.url, send="media", block=["csam", "harmful-abusive-material"]), query)
        assert match.exact

    def test_a_near_match_is_not_exact(self, fake: FakeArachnid) -> None:
        fake.add_media(jpeg(CONTENT), match_type="near")
        [match] = ask(make_matcher(fake.url, send="media"), media_query(CONTENT))
        assert (match.signal_type, match.exact, match.category) == ("photodna", False, "csam")

    def test_an_upload_that_is_not_at_hand_is_a_failure(self, fake: FakeArachnid) -> None:
        matcher = make_matcher(fake.url, send="media")
        for query in (dataclasses.replace(media_query(CONTENT), content=None), Query((), CONTEXT, content=b"a")):
            with pytest.raises(MatcherError, match="not at hand"):
                ask(matcher, query)
        assert fake.requests == []

    def test_what_the_service_does_not_take_is_a_failure(self, fake: FakeArachnid) -> None:
        matcher = make_matcher(fake.url, send="media", breaker_failures=1)
        digest = Hash("sha256", hashlib.sha256(b"text").digest())
        for _ in range(2):
            with pytest.raises(MatcherError, match="415"):
                ask(matcher, Query((digest,), CONTEXT, content=b"text"))
        assert list(ask(matcher, media_query(CONTENT))) == []

    def test_answers_are_kept_by_sha256(self, fake: FakeArachnid) -> None:
        matcher = make_matcher(fake.url, send="media")
        ask(matcher, media_query(CONTENT))
        assert matcher.known(media_query(CONTENT)) == []
        assert matcher.known(media_query(b"another")) is None
        assert matcher.known(Query((), CONTEXT)) is None


def about(**changes: Any) -> bytes:
    """An answer about media, with changes; None leaves out."""
    answer = {
        "size_bytes": SCANNED.size_bytes,
        "sha1_base32": SCANNED.sha1_base32,
        "sha256_hex": SCANNED.sha256_hex.upper(),
        **NOTHING,
        **changes,
    }
    return json.dumps(answer).encode()


class TestReading:
    @pytest.mark.parametrize(
        "changes",
        [
            {"size_bytes": 6},
            {"size_bytes": None},
            {"sha1_base32": KNOWN_SHA1[::-1]},
            {"sha256_hex": "cd" * 32},
            {"sha256_hex": None},
            {"classification": None},
            {"classification": ""},
            {"classification": "CSAM"},
            {"classification": "No-Known-Match"},
            {"classification": "no-known-match\n"},
            {"classification": "no known match"},
            {"classification": "a" * 65},
            {"classification": ["csam"]},
            {"match_type": "near"},
            {"match_type": "exact"},
            {"near_match_details": [{"sha1_base32": KNOWN_SHA1}]},
        ],
        ids=repr,
    )
    def test_what_is_not_certainly_an_answer_is_none(self, changes: dict[str, Any]) -> None:
        assert read_media(about(), SCANNED) == ()
        with pytest.raises(ValueError, match=r"^[a-z]"):
            read_media(about(**changes), SCANNED)

    @pytest.mark.parametrize("details", [None, [], {}])
    def test_no_known_match(self, details: object) -> None:
        if details == {}:
            with pytest.raises(ValueError, match="contradicts itself"):
                read_media(about(near_match_details=details), SCANNED)
        else:
            assert read_media(about(near_match_details=details), SCANNED) == ()

    @pytest.mark.parametrize("match_type", ["near", None, "new-technology", 7])
    def test_a_classification_that_is_new_is_a_match_but_not_exact(self, match_type: object) -> None:
        body = about(classification="something-new", match_type=match_type)
        assert read_media(body, SCANNED) == (Finding("near", "something-new", exact=False),)

    def test_near_matches_have_the_names_of_what_they_are_near(self) -> None:
        details = [
            {"sha1_base32": KNOWN_SHA1, "classification": "harmful-abusive-material"},
            {"sha1_base32": "not one", "classification": 7},
            "nonsense",
            {"sha1_base32": KNOWN_SHA1, "classification": "no-known-match"},
        ]
        found = read_media(about(classification="csam", match_type="near", near_match_details=details), SCANNED)
        assert found == (
            Finding(KNOWN_SHA1, "harmful-abusive-material", exact=False),
            Finding("near", "csam", exact=False),
            Finding("near", "csam", exact=False),
            Finding(KNOWN_SHA1, "csam", exact=False),
        )
        many = about(classification="csam", match_type="near", near_match_details=details * 1000)
        assert len(read_media(many, SCANNED)) == 16

    def test_a_hash_may_have_null(self) -> None:
        assert read_pdq(b'{"scanned_hashes": {"a": null}}', {"a"}) == {"a": ()}

    @pytest.mark.parametrize("value", [False, 0, "", [], "no-known-match", {}, {"classification": None}])
    def test_nothing_else_is_no_match(self, value: object) -> None:
        with pytest.raises(ValueError, match=r"^[a-z]"):
            read_pdq(json.dumps({"scanned_hashes": {"a": value}}).encode(), {"a"})

    @pytest.mark.parametrize("texts", [set(), {"a"}, {"a", "b", "c"}, {"b"}])
    def test_each_hash_must_be_answered_and_no_other(self, texts: set[str]) -> None:
        with pytest.raises(ValueError, match="not about"):
            read_pdq(json.dumps({"scanned_hashes": dict.fromkeys(texts, NOTHING)}).encode(), {"a", "b"})

    def test_exact_says_nothing_of_a_hash_alone(self) -> None:
        value = {**NOTHING, "classification": "csam", "match_type": "exact"}
        [finding] = read_pdq(json.dumps({"scanned_hashes": {"a": value}}).encode(), {"a"})["a"]
        assert not finding.exact

    @pytest.mark.parametrize("read", [lambda body: read_pdq(body, {"a"}), lambda body: read_media(body, SCANNED)])
    @given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def test_any_bytes(self, read: Callable[[bytes], object], body: bytes) -> None:
        with pytest.raises(ValueError, match=r"^[a-z]"):
            read(body)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.sampled_from(["no-known-match", "csam", "near", ""]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["classification", "match_type", "near_match_details", "sha1_base32"]), inner
                )
            ),
        )
    )
    def test_any_json_in_place_of_an_answer_is_clean_only_as_documented(self, value: Any) -> None:
        body = json.dumps({"scanned_hashes": {"a": value}}).encode()
        try:
            clean = read_pdq(body, {"a"}) == {"a": ()}
        except ValueError:
            return
        documented = value is None or (
            value.get("classification") == "no-known-match"
            and value.get("match_type") is None
            and value.get("near_match_details") in (None, [])
        )
        assert clean == documented
