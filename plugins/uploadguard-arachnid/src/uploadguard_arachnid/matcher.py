"""Asking Arachnid Shield: by PDQ hashes, so that no picture leaves the host, or with the upload itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from uploadguard.errors import MatcherError
from uploadguard.matchers import Query
from uploadguard.media.sniff import HEAD_BYTES, sniff
from uploadguard.models import Hash, Match
from uploadguard.remote import RemoteMatcher
from uploadguard_arachnid.answers import Finding, Scanned, read_media, read_pdq
from uploadguard_arachnid.options import ArachnidOptions

__all__ = ["MediaMatcher", "PdqMatcher"]

_MAX_ANSWER_BYTES = 1 << 20
_ORIGINAL = "original"
_PDQ = "pdq"
_KEY = "sha256"
_EXACT = "sha1"
_NEAR = "photodna"


class _ArachnidMatcher(RemoteMatcher[bytes, tuple[Finding, ...]]):
    def __init__(
        self, name: str, options: ArachnidOptions, *, signal_types: frozenset[str], takes_content: bool
    ) -> None:
        super().__init__(
            name,
            options,
            signal_types=signal_types,
            takes_content=takes_content,
            max_answer_bytes=_MAX_ANSWER_BYTES,
        )
        self._block = frozenset(options.block)

    def _matches(
        self, findings: Iterable[Finding], signal_type: str, *, variant: str = _ORIGINAL, frame: int = 0
    ) -> list[Match]:
        return [
            Match(
                list_name=self.name,
                entry_id=finding.entry_id,
                category=finding.classification,
                signal_type=signal_type,
                distance_bits=0,
                variant=variant,
                frame=frame,
                exact=finding.exact and finding.classification in self._block,
                fields={"service": "arachnid", "match_type": "exact" if finding.exact else "near"},
            )
            for finding in findings
        ]


class PdqMatcher(_ArachnidMatcher):
    """Sends the PDQ hashes of an upload, several in one request. What it finds is near, never exact."""

    def __init__(self, name: str, options: ArachnidOptions) -> None:
        super().__init__(name, options, signal_types=frozenset({_PDQ}), takes_content=False)
        self._min_quality = options.min_quality
        self._variants = options.variants
        self._batch = options.batch

    def known(self, query: Query) -> Sequence[Match] | None:
        """The answer, as far as it was given a short while ago."""
        usable = list(self._usable(query))
        answers = self._kept(usable)
        complete = len(answers) == len(usable) and (usable or not query.hashes)
        return self._found(usable, answers) or (() if complete else None)

    def match(self, query: Query, until: float) -> Sequence[Match]:
        """Ask. Raises :class:`~uploadguard.errors.MatcherError` unless a hash was found, or none of all."""
        known = self.known(query)
        if known is not None:
            return known
        usable = list(self._usable(query))
        if not usable:
            raise MatcherError("all hashes of the upload are of too low a quality to ask by")
        answers = self._kept(usable)
        asked = [item.value for item in usable if item.value not in answers]
        failure: MatcherError | None = None
        for start in range(0, len(asked), self._batch):
            try:
                answers.update(self._ask_about(asked[start : start + self._batch], until))
            except MatcherError as error:
                failure = failure or error
        found = self._found(usable, answers)
        if failure is not None and not found:
            raise failure
        return found

    def _kept(self, items: Iterable[Hash]) -> dict[bytes, tuple[Finding, ...]]:
        kept = {item.value: self._cache.get(item.value) for item in items}
        return {value: findings for value, findings in kept.items() if findings is not None}

    def _usable(self, query: Query) -> Iterator[Hash]:
        """Each hash to ask about, once, the upright ones first."""
        seen = set()
        for item in sorted(query.hashes, key=lambda item: not _is_upright(item)):
            good = item.quality is None or item.quality >= self._min_quality
            if item.signal_type == _PDQ and good and item.value not in seen and (self._variants or _is_upright(item)):
                seen.add(item.value)
                yield item

    def _ask_about(self, values: Sequence[bytes], until: float) -> dict[bytes, tuple[Finding, ...]]:
        texts = {base64.b64encode(value).decode(): value for value in values}
        question = json.dumps({"hashes": list(texts)}).encode()
        read = partial(read_pdq, sent=texts.keys())
        answer = self._ask("/v1/pdq/", question, until, read, headers={"Content-Type": "application/json"})
        for text, findings in answer.items():
            self._cache.put(texts[text], findings, found=bool(findings))
        return {texts[text]: findings for text, findings in answer.items()}

    def _found(self, items: Iterable[Hash], answers: Mapping[bytes, tuple[Finding, ...]]) -> list[Match]:
        return [
            match
            for item in items
            for match in self._matches(answers.get(item.value, ()), _PDQ, variant=item.variant, frame=item.frame)
        ]


class MediaMatcher(_ArachnidMatcher):
    """Sends the upload itself. What is known byte by byte is exact, if it is of a classification to block."""

    def __init__(self, name: str, options: ArachnidOptions) -> None:
        super().__init__(name, options, signal_types=frozenset({_KEY}), takes_content=True)

    def known(self, query: Query) -> Sequence[Match] | None:
        """The answer that was given a short while ago."""
        sha256 = _sha256(query)
        # Not by SHA-1: of two files that were made to have the same one, the service knows the harmful one by SHA-256.
        findings = self._cache.get(sha256) if sha256 is not None else None
        return None if findings is None else self._media_matches(findings)

    def match(self, query: Query, until: float) -> Sequence[Match]:
        """Ask. Raises :class:`~uploadguard.errors.MatcherError`."""
        known = self.known(query)
        if known is not None:
            return known
        sha256 = _sha256(query)
        if query.content is None or sha256 is None:
            raise MatcherError("the upload itself is not at hand, or its sha256 is not")
        content = bytes(query.content)
        media_type = sniff(content[:HEAD_BYTES]) or "application/octet-stream"
        sha1 = hashlib.sha1(content, usedforsecurity=False).digest()
        scanned = Scanned(len(content), base64.b32encode(sha1).decode(), sha256.hex())
        read = partial(read_media, scanned=scanned)
        findings = self._ask("/v1/media/", content, until, read, headers={"Content-Type": media_type})
        self._cache.put(sha256, findings, found=bool(findings))
        return self._media_matches(findings)

    def _media_matches(self, findings: Iterable[Finding]) -> list[Match]:
        return [match for finding in findings for match in self._matches([finding], _EXACT if finding.exact else _NEAR)]


def _is_upright(item: Hash) -> bool:
    return item.variant.rpartition(".")[2] == _ORIGINAL


def _sha256(query: Query) -> bytes | None:
    return next((item.value for item in query.hashes if item.signal_type == _KEY), None)
