"""Asking whether a hash is in EOKM's database: one hash a request, and ``true`` or ``false`` for an answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from uploadguard.errors import MatcherError
from uploadguard.matchers import Query
from uploadguard.models import Hash, Match
from uploadguard.remote import RemoteMatcher
from uploadguard_eokm.options import EokmOptions

__all__ = ["EokmMatcher"]

_ANSWERS = {b"true": True, b"false": False}
_DIGESTS = frozenset({"md5", "sha1"})
_ORIGINAL = "original"

# Nothing says which type the service wants. This is the one that its known clients send.
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


class EokmMatcher(RemoteMatcher[tuple[str, bytes], bool]):
    """Looks the hashes of its formats up, one after the other, until one is found.

    One that is found is a match, even if another look-up failed. Where none is, all must have been answered.
    """

    def __init__(self, name: str, options: EokmOptions) -> None:
        super().__init__(name, options, signal_types=frozenset(options.formats), max_answer_bytes=64)
        self._formats = options.formats
        self._path = options.path
        self._as_hex = options.photodna_encoding == "hex"
        self._fields = {"service": "eokm", "environment": options.environment}

    @property
    def environment(self) -> str:
        """Which of the service's two it asks: ``test`` or ``live``."""
        return self._fields["environment"]

    def known(self, query: Query) -> Sequence[Match] | None:
        """The answer, as far as it was given a short while ago."""
        answers = []
        for item in self._hashes(query):
            found = self._cache.get((item.signal_type, item.value))
            if found:
                return (self._match(item),)
            answers.append(found)
        return None if None in answers or self._lacks(query) else ()

    def match(self, query: Query, until: float) -> Sequence[Match]:
        """Ask. Raises :class:`~uploadguard.errors.MatcherError` unless a hash was found, or none of all."""
        known = self.known(query)
        if known is not None:
            return known
        failure = self._lacks(query)
        for item in self._hashes(query):
            try:
                found = self._look_up(item, until)
            except MatcherError as error:
                failure = failure or error
                continue
            if found:
                return (self._match(item),)
        if failure is not None:
            raise failure
        return ()

    def _look_up(self, item: Hash, until: float) -> bool:
        key = (item.signal_type, item.value)
        found = self._cache.get(key)  # another thread may have put it there since
        if found is None:
            found = self._ask(self._path + item.signal_type, self._text(item), until, _read, headers=_HEADERS)
            self._cache.put(key, found, found=found)
        return found

    def _hashes(self, query: Query) -> Iterator[Hash]:
        """Each hash to look up, once, in the order of the formats. Of turned and mirrored forms, none."""
        seen = set()
        for name in self._formats:
            for item in query.hashes:
                key = (item.signal_type, item.value)
                if item.signal_type == name and item.variant.rpartition(".")[2] == _ORIGINAL and key not in seen:
                    seen.add(key)
                    yield item

    def _lacks(self, query: Query) -> MatcherError | None:
        """What is wrong with a query that lacks a digest: each upload has one. That it has no picture is another's."""
        missing = _DIGESTS.intersection(self._formats).difference(item.signal_type for item in query.hashes)
        return MatcherError(f"the upload has no {' and no '.join(sorted(missing))}") if missing else None

    def _text(self, item: Hash) -> bytes:
        if item.signal_type in _DIGESTS or self._as_hex:
            return item.value.hex().encode()
        return base64.b64encode(item.value)

    def _match(self, item: Hash) -> Match:
        return Match(
            list_name=self.name,
            entry_id=item.signal_type,
            category=None,
            signal_type=item.signal_type,
            distance_bits=0,
            variant=item.variant,
            frame=item.frame,
            # How alike two pictures must be for PhotoDNA is the service's to say, so a person looks.
            exact=item.signal_type in _DIGESTS,
            fields=self._fields,
        )


def _read(body: bytes) -> bool:
    found = _ANSWERS.get(body)
    if found is None:
        raise ValueError("is neither true nor false")
    return found
