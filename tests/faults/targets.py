"""Our own parsers of untrusted bytes, each as a function that may raise only what the parser's docstring names.

What fuzzers call (:mod:`tests.faults.fuzz`) and what the tests feed a few thousand mutants.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.mutants import good_files
from uploadguard.errors import ListFormatError, ManifestError, SegmentError
from uploadguard.hashset import HashSet, Segment, build_segment
from uploadguard.hashset.manifest import MANIFEST_NAME, read_manifest
from uploadguard.lists import BUILTIN_READERS
from uploadguard.lists.base import ReadOptions
from uploadguard.lists.lines import HEAD_BYTES
from uploadguard.lists.opening import choose_reader, open_list
from uploadguard.media.base import DecodeError
from uploadguard.media.inspect import Inspection, Limits
from uploadguard.media.intruders import find_intruders
from uploadguard.media.sniff import sniff
from uploadguard.media.structure import read_structure
from uploadguard.media.structure.base import Tally
from uploadguard.models import Failure, FailureCode, Hash, Media
from uploadguard.sandbox.wire import Expected, ProtocolError, answer_of, parse_answer
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist

__all__ = ["TARGETS", "Target", "seeds"]

Target = Callable[[bytes], None]

_SIGNALS = (*DIGESTS, Pdq())
_OPTIONS = ReadOptions({signal.name: signal for signal in _SIGNALS})
_EXPECTED = Expected({"pdq": 32}, frozenset({"pillow"}), 64)


def media(data: bytes) -> None:
    """Sniffing, headers, structure and what does not belong: all that looks at an upload before a decoder does."""
    media_type = sniff(data[:4096])
    if media_type is None:
        return
    tally = Tally(Limits())
    view = memoryview(data)
    with suppress(DecodeError):
        find_intruders(view, media_type, read_structure(view, media_type, tally), tally)


def lists(data: bytes) -> None:
    """Opening (gzip too), choosing a reader and reading to the end."""
    with suppress(ListFormatError), open_list(io.BytesIO(data)) as stream:
        reader = choose_reader(BUILTIN_READERS, stream.peek(HEAD_BYTES), "list")
        for _ in reader.read(stream, _OPTIONS):
            pass


def segment(data: bytes) -> None:
    """A segment whose checksums nobody compared: it opens and answers, or is refused."""
    with suppress(SegmentError):
        opened = Segment.from_buffer(data, verify=False)
        for name, info in opened.metadata.signals.items():
            for value in (bytes(info.length_bytes), b"\xff" * info.length_bytes):
                for _, number, _ in opened.query(name, [value], 31 if info.kind == "hamming" else 0):
                    opened.entry(number)
        for number in range(min(opened.metadata.entries, 10)):
            opened.find_entries(opened.entry(number).entry_id)


def manifest(data: bytes) -> None:
    """The manifest of a hash set."""
    with TemporaryDirectory() as directory:
        (Path(directory) / MANIFEST_NAME).write_bytes(data)
        with suppress(ManifestError):
            read_manifest(Path(directory))


def answer(data: bytes) -> None:
    """What a worker that was taken over may answer."""
    with suppress(ProtocolError):
        parse_answer(data, 1, 1000, _EXPECTED)


TARGETS: Mapping[str, Target] = {
    "media": media,
    "lists": lists,
    "segment": segment,
    "manifest": manifest,
    "answer": answer,
}


def seeds(target: str) -> dict[str, bytes]:
    """Sound inputs to begin with, by name."""
    return _SEEDS[target]()


def _lists() -> dict[str, bytes]:
    entries = list(testlist.entries())
    rows = [{name: value.hex() for name, value in entry.hashes} for entry in entries]
    names = sorted(rows[0])
    vics = [{"MediaID": number, "MD5": row["md5"], "SHA1": row["sha1"]} for number, row in enumerate(rows)]
    return {
        "txt": "\n".join(row["md5"] for row in rows).encode(),
        "csv": "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)]).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "vics": json.dumps({"@odata.context": "http://github.com/VICSDATAMODEL/", "value": vics}).encode(),
        "own": testlist.list_bytes(),
    }


def _segments() -> dict[str, bytes]:
    return {"segment": build_segment(testlist.entries(), lookup_kinds(_SIGNALS), list_name="a")}


def _manifests() -> dict[str, bytes]:
    with TemporaryDirectory() as directory:
        HashSet.create(Path(directory) / "set").add_list("a", testlist.entries(), lookup_kinds(_SIGNALS))
        return {"manifest": (Path(directory) / "set" / MANIFEST_NAME).read_bytes()}


def _answers() -> dict[str, bytes]:
    facts = Media(1000, "image/jpeg", 640, 480, decoder="pillow", frames_total=1, frames_hashed=1)
    hashes = (Hash("pdq", bytes(32), 100), Hash("pdq", bytes(32), 100, "flip_x"))
    failures = (Failure(FailureCode.TRUNCATED, "cut short"),)
    return {"answer": answer_of(1, Inspection(facts, hashes, failures, {"decode": 1.0}), 1.5)[4:]}


_SEEDS: Mapping[str, Callable[[], dict[str, bytes]]] = {
    "media": good_files,
    "lists": _lists,
    "segment": _segments,
    "manifest": _manifests,
    "answer": _answers,
}
