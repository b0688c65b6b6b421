"""The Guard as a host uses it: real pictures, a real hash set on disk, every way in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import io
import json
import logging
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import photo
from uploadguard import Context, Decision, Guard, NotReadyError, PluginError, UploadRefused, Verdict, hookimpl
from uploadguard.check_order import CheckCancelled
from uploadguard.errors import ConfigError, HashSetError, ManifestError, SegmentError
from uploadguard.hashset import HashSet
from uploadguard.lists.base import ListEntry
from uploadguard.media.base import DecodeOptions, Picture, Pixels, Source
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import testlist
from uploadguard.testing.picture import VARIANTS, picture_bytes, unrelated_picture, variant_bytes

KINDS = lookup_kinds((*DIGESTS, Pdq()))


def add_test_list(directory: Path, name: str = "hotline") -> None:
    HashSet.open(directory).add_list(name, testlist.entries(), KINDS)


@pytest.fixture
def hashset(tmp_path: Path) -> Path:
    directory = tmp_path / "hashset"
    HashSet.create(directory)
    add_test_list(directory)
    return directory


@pytest.fixture
def guard(hashset: Path) -> Iterator[Guard]:
    with Guard.open(hashset=hashset) as opened:
        yield opened


def big_jpeg() -> bytes:
    """A picture large enough that its digests go to the second thread."""
    with Image.open(photo("retina.jpg")) as image:
        out = io.BytesIO()
        image.resize((2400, 2400)).save(out, "JPEG", quality=95)
    assert len(out.getvalue()) > 256 * 1024
    return out.getvalue()


# What the verdicts are


def test_a_known_file_is_blocked_by_its_digests(guard: Guard) -> None:
    decision = guard.check(picture_bytes())
    assert decision.verdict is Verdict.BLOCK
    assert decision.reasons == ("digest_match",)
    assert decision.report_due
    assert {match.signal_type for match in decision.matches} == {"md5", "sha1", "sha256"}
    assert {(m.list_name, m.entry_id, m.category) for m in decision.matches} == {("hotline", "testpicture", "test")}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_an_altered_form_is_queued(guard: Guard, variant: str) -> None:
    decision = guard.check(variant_bytes(variant))
    assert decision.verdict is Verdict.QUEUE
    assert decision.reasons == ("perceptual_match",)
    (match,) = decision.matches
    assert match.signal_type == "pdq"
    assert match.distance_bits <= 31
    assert (match.variant != "original") == (variant in {"mirrored", "rotated"})


def test_other_pictures_are_allowed(guard: Guard) -> None:
    decision = guard.check(unrelated_picture())
    assert (decision.verdict, decision.reasons, decision.matches) == (Verdict.ALLOW, (), ())
    assert decision.allowed
    assert decision.generation == 1
    assert (decision.media.width, decision.media.height) == (1200, 900)


@pytest.mark.parametrize(
    ("data", "verdict", "reason"),
    [
        (b"", Verdict.NOT_SCANNED, "empty_file"),
        (b"just text, named .jpg", Verdict.NOT_SCANNED, "unsupported_format"),
        (picture_bytes()[:30_000], Verdict.QUEUE, "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(500), Verdict.QUEUE, "decode_failed"),
    ],
    ids=["empty", "text", "truncated", "broken"],
)
def test_what_could_not_be_inspected_is_never_clean(guard: Guard, data: bytes, verdict: Verdict, reason: str) -> None:
    decision = guard.check(data, context=Context(filename="picture.jpg"))
    assert decision.verdict is verdict
    assert reason in decision.reasons


def test_a_flat_picture_is_not_scanned(guard: Guard) -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 300), "teal").save(out, "PNG")
    decision = guard.check(out.getvalue())
    assert (decision.verdict, decision.reasons) == (Verdict.NOT_SCANNED, ("low_quality",))


def test_digests_decide_even_where_nothing_can_be_decoded(hashset: Path) -> None:
    junk = b"\x00not a picture" * 100
    entry = ListEntry("junk", (("md5", hashlib.md5(junk).digest()),))
    HashSet.open(hashset).add_list("digests", [entry], KINDS)
    with Guard.open(hashset=hashset, media={"max_file_bytes": 100}) as guard:
        decision = guard.check(junk)
    assert decision.verdict is Verdict.BLOCK


def test_limits_are_inclusive_and_named(hashset: Path) -> None:
    data = unrelated_picture()
    with Guard.open(hashset=hashset, media={"max_file_bytes": len(data), "max_pixels": 1200 * 900}) as guard:
        assert guard.check(data).allowed
    with Guard.open(hashset=hashset, media={"max_file_bytes": len(data) - 1}) as guard:
        assert guard.check(data).reasons == ("too_large",)
        assert guard.check(io.BytesIO(data)).verdict is Verdict.QUEUE
    with Guard.open(hashset=hashset, media={"max_pixels": 1200 * 900 - 1}) as guard:
        assert guard.check(data).reasons == ("too_many_pixels",)


def test_a_tenants_rules_are_its_own(hashset: Path) -> None:
    tenants = {"strict": {"policy": {"signals": {"pdq": {"verdict": "block"}}}}}
    with Guard.open(hashset=hashset, tenants=tenants) as guard:
        data = variant_bytes("resized")
        assert guard.check(data, context=Context(tenant="strict")).verdict is Verdict.BLOCK
        assert guard.check(data, context=Context(tenant="other")).verdict is Verdict.QUEUE
        assert guard.check(data).verdict is Verdict.QUEUE


def test_an_allow_list_clears_by_sha256(hashset: Path) -> None:
    entry = ListEntry("reviewed", (("sha256", testlist.TEST_HASHES["sha256"]),))
    HashSet.open(hashset).add_list("reviewed", [entry], KINDS, role="allow")
    with Guard.open(hashset=hashset) as guard:
        decision = guard.check(picture_bytes())
        assert (decision.verdict, decision.reasons) == (Verdict.ALLOW, ("allow_listed",))
        assert guard.check(variant_bytes("resized")).verdict is Verdict.QUEUE


# Ways in


@pytest.mark.parametrize("overlap", [True, False])
def test_every_way_in_gives_the_same_answer(hashset: Path, tmp_path: Path, overlap: bool) -> None:
    path = tmp_path / "upload.jpg"
    with Guard.open(hashset=hashset, threads={"digest_overlap": overlap}) as guard:
        for data in (picture_bytes(), variant_bytes("mirrored"), big_jpeg(), b"", b"text"):
            path.write_bytes(data)
            decisions = [guard.check(way) for way in (data, path, str(path), io.BytesIO(data), memoryview(data))]
            decisions.append(asyncio.run(guard.acheck(data)))
            with guard.inspect() as inspection:
                for start in range(0, len(data), 5000):
                    inspection.write(data[start : start + 5000])
                decisions.append(inspection.finish())
            with guard.inspect() as inspection:
                inspection.write(data)
                decisions.append(asyncio.run(inspection.afinish()))
            answers = {(d.verdict, d.reasons, d.matches.__len__(), d.hashes, d.media) for d in decisions}
            assert len(answers) == 1
            assert len({d.reference for d in decisions}) == len(decisions)


def test_an_inspection_ends_once(guard: Guard) -> None:
    inspection = guard.inspect()
    inspection.write(b"x")
    inspection.finish()
    with pytest.raises(ValueError, match="finished"):
        inspection.write(b"y")
    with pytest.raises(ValueError, match="finished"):
        inspection.finish()
    with guard.inspect() as left, pytest.raises(RuntimeError):
        raise RuntimeError("the uploader hung up")
    with pytest.raises(ValueError, match="finished"):
        left.finish()


def test_many_threads_share_one_guard(guard: Guard) -> None:
    uploads = [picture_bytes(), variant_bytes("resized"), unrelated_picture(), big_jpeg()] * 6
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        verdicts = [decision.verdict for decision in pool.map(guard.check, uploads)]
    assert verdicts == [Verdict.BLOCK, Verdict.QUEUE, Verdict.ALLOW, Verdict.ALLOW] * 6
    assert guard.status().checks == {"block": 6, "queue": 6, "allow": 12}


def test_a_guard_opened_and_used_before_a_fork_serves_its_children(hashset: Path, tmp_path: Path) -> None:
    (tmp_path / "big.jpg").write_bytes(big_jpeg())
    script = f"""
        import asyncio, os
        from uploadguard import Guard
        guard = Guard.open(hashset={str(hashset)!r}, threads={{"digest_overlap": True}})
        data = open({str(tmp_path / "big.jpg")!r}, "rb").read()
        assert guard.check(data).allowed
        asyncio.run(guard.acheck(data))
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                ok = guard.check(data).allowed and asyncio.run(guard.acheck(data)).allowed
                os._exit(0 if ok else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        guard.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


class WaitingDecoder:
    """Takes JPEGs, and in decoding waits for whatever ``source.check()`` raises."""

    name = "waiting"
    media_types = frozenset({"image/jpeg"})
    width = height = 500
    frames_total = orientation = 1
    sequential = False

    def __init__(self) -> None:
        self.started = threading.Event()
        self.stopped: list[BaseException] = []

    def sniff(self, head: bytes) -> str | None:
        return None

    def open(self, data: Source, media_type: str, options: DecodeOptions) -> Picture:
        self._source = data
        return self

    def frames(self, indices: Sequence[int]) -> Iterator[Pixels]:
        self.started.set()
        for _ in range(10_000):
            try:
                self._source.check()
            except BaseException as error:
                self.stopped.append(error)
                raise
            threading.Event().wait(0.001)
        yield from ()

    def close(self) -> None:
        pass

    @hookimpl
    def uploadguard_decoders(self) -> list[Any]:
        return [self]


def test_a_digest_match_stops_the_decoder_in_the_middle(hashset: Path) -> None:
    data = big_jpeg()
    entry = ListEntry("big", (("sha1", hashlib.sha1(data).digest()),))
    HashSet.open(hashset).add_list("big", [entry], KINDS)
    decoder = WaitingDecoder()
    with Guard.open(hashset=hashset, plugins={"waiting": decoder}, threads={"digest_overlap": True}) as guard:
        decision = guard.check(data)
    assert decision.verdict is Verdict.BLOCK
    assert {h.signal_type for h in decision.hashes} == {"md5", "sha1", "sha256"}
    assert len(decoder.stopped) <= 1  # stopped in the middle, or before it began


def test_an_upload_over_the_limit_that_nobody_read_is_too_large_and_matches_nothing(hashset: Path) -> None:
    with Guard.open(hashset=hashset, media={"max_file_bytes": 1000}) as guard:
        with guard.inspect() as inspection:
            with pytest.raises(ValueError, match="must be read"):
                inspection.leave_unread(1000)
            inspection.write(picture_bytes())  # whatever came before counts for nothing
            inspection.leave_unread(5_000_000)
            decision = inspection.finish()
        with pytest.raises(ValueError, match="finished"):
            inspection.leave_unread(5_000_000)
    assert [failure.code.value for failure in decision.failures] == ["too_large"]
    assert (decision.media.size_bytes, decision.hashes, decision.matches) == (5_000_000, (), ())
    assert decision.verdict is not Verdict.ALLOW


@pytest.mark.parametrize("streamed", [True, False])
def test_a_digest_match_that_is_known_first_needs_no_decoder(hashset: Path, streamed: bool) -> None:
    decoder = WaitingDecoder()
    with Guard.open(hashset=hashset, plugins={"waiting": decoder}, threads={"digest_overlap": False}) as guard:
        if streamed:
            inspection = guard.inspect()
            inspection.write(picture_bytes())
            decision = inspection.finish()
        else:
            decision = guard.check(picture_bytes())
    assert decision.verdict is Verdict.BLOCK
    assert not decoder.started.is_set()


def test_a_new_generation_is_not_loaded_on_the_event_loop(tmp_path: Path) -> None:
    """A process's first check looks for one, and loading it can take seconds."""
    threads = []

    class Listener:
        @hookimpl
        def uploadguard_generation_changed(self) -> None:
            threads.append(threading.current_thread())

    HashSet.create(tmp_path / "hashset")
    with Guard.open(hashset=tmp_path / "hashset", plugins={"listener": Listener()}) as guard:
        add_test_list(tmp_path / "hashset")
        assert asyncio.run(guard.acheck(picture_bytes())).verdict is Verdict.BLOCK
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_the_event_loop_goes_on_while_a_check_works(hashset: Path) -> None:
    decoder = WaitingDecoder()

    async def main() -> int:
        with Guard.open(hashset=hashset, plugins={"waiting": decoder}) as guard:
            task = asyncio.create_task(guard.acheck(unrelated_picture()))
            ticks = 0
            while not decoder.stopped:  # the decoder works until the loop, which must be alive, cancels it
                ticks += 1
                await asyncio.sleep(0.001)
                if decoder.started.is_set():
                    task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return ticks

    assert asyncio.run(asyncio.wait_for(main(), 30)) > 1
    assert isinstance(decoder.stopped[0], CheckCancelled)


# Readiness and generations


def test_an_empty_hash_set_answers_nothing(tmp_path: Path) -> None:
    HashSet.create(tmp_path / "empty")
    with Guard.open(hashset=tmp_path / "empty") as guard:
        assert not guard.ready
        with pytest.raises(NotReadyError, match="lists add"):
            guard.check(unrelated_picture())
        with pytest.raises(NotReadyError):
            guard.inspect()
        with pytest.raises(NotReadyError):
            asyncio.run(guard.acheck(b""))
        add_test_list(tmp_path / "empty")
        assert guard.refresh()
        assert guard.ready
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
    with pytest.raises(NotReadyError, match="closed"):
        guard.check(b"")


def test_an_empty_hash_set_can_be_allowed_by_name(tmp_path: Path) -> None:
    HashSet.create(tmp_path / "empty")
    with Guard.open(hashset={"path": tmp_path / "empty", "allow_empty": True}) as guard:
        assert guard.ready
        assert guard.check(unrelated_picture()).allowed


def test_the_built_in_test_list_blocks_its_picture_and_does_not_count_as_protection(tmp_path: Path) -> None:
    HashSet.create(tmp_path / "set")
    with Guard.open(hashset={"path": tmp_path / "set", "test_list": True}) as guard:
        assert not guard.ready
        entry = ListEntry("other", (("md5", bytes(15) + b"x"),))
        HashSet.open(tmp_path / "set").add_list("other", [entry], KINDS)
        guard.refresh()
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
        assert guard.status().entries == 1


def test_no_hash_set_at_all_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(HashSetError, match=str(tmp_path)):
        Guard.open(hashset=tmp_path / "nowhere")


def test_a_running_guard_takes_up_a_new_generation_by_itself(hashset: Path) -> None:
    changed = threading.Event()

    class Watcher:
        @hookimpl
        def uploadguard_generation_changed(self, generation: int) -> None:
            assert generation == 2
            changed.set()

    with Guard.open(hashset={"path": hashset, "refresh_s": 0.01}, plugins={"watcher": Watcher()}) as guard:
        assert guard.check(picture_bytes()).generation == 1
        HashSet.open(hashset).remove_list("hotline")
        for _ in range(3000):
            if changed.wait(0.01):
                break
            _ = guard.ready
        assert changed.is_set()
        assert guard.status().generation == 2
        assert not guard.ready


def test_a_damaged_generation_is_refused_and_the_old_one_serves(
    hashset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Guard.open(hashset=hashset) as guard:
        add_test_list(hashset, "second")
        newest = max(hashset.glob("segment-*"), key=lambda path: path.stat().st_mtime_ns)
        damaged = bytearray(newest.read_bytes())
        damaged[-1] ^= 1
        newest.chmod(0o600)
        newest.write_bytes(damaged)
        assert not guard.refresh()
        status = guard.status()
        assert (status.ready, status.generation) == (True, 1)
        assert status.refresh_error is not None
        assert str(newest) in status.refresh_error
        assert "old one goes on serving" in caplog.text
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
    with pytest.raises(SegmentError, match="segment-"):
        Guard.open(hashset=hashset)


def test_started_in_the_wrong_directory_it_says_that_no_configuration_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPLOADGUARD_CONFIG", raising=False)
    with pytest.raises(ManifestError, match="no configuration was read: name it by UPLOADGUARD_CONFIG"):
        Guard.open()
    with pytest.raises(ManifestError) as named:
        Guard.open(hashset="elsewhere")
    assert "configuration" not in str(named.value)


def test_a_manifest_that_vanishes_does_not_stop_a_running_guard(hashset: Path) -> None:
    with Guard.open(hashset={"path": hashset, "refresh_s": 0.001}) as guard:
        (hashset / "manifest.json").unlink()
        for _ in range(5):
            assert guard.check(picture_bytes()).verdict is Verdict.BLOCK
        assert guard.status().refresh_error is not None


# Plugins


class Answering:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[Decision] = []
        self.proposed: list[str] = []

    @hookimpl
    def uploadguard_decide(self, decision: Decision) -> Any:
        self.proposed.append(decision.reference)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @hookimpl
    def uploadguard_decision_made(self, decision: Decision) -> None:
        self.seen.append(decision)
        if isinstance(self.answer, Exception):
            raise self.answer


def test_a_plugin_raises_a_verdict_and_lowers_it_only_by_permission(hashset: Path) -> None:
    raising, lowering = Answering(Verdict.QUEUE), Answering(Verdict.ALLOW)
    with Guard.open(hashset=hashset, plugins={"raising": raising}) as guard:
        decision = guard.check(unrelated_picture())
        assert (decision.verdict, decision.reasons) == (Verdict.QUEUE, ("plugin_verdict",))
        assert raising.seen == [decision]
        assert raising.proposed == [decision.reference]
    with Guard.open(hashset=hashset, plugins={"lowering": lowering}) as guard:
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK


@pytest.mark.parametrize("answer", [ValueError("secret payload"), "block"], ids=["raises", "wrong type"])
def test_a_failing_plugin_is_named_counted_and_queues(
    hashset: Path, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Guard.open(hashset=hashset, plugins={"broken": Answering(answer)}) as guard:
        decision = guard.check(unrelated_picture())
        assert (decision.verdict, decision.reasons) == (Verdict.QUEUE, ("plugin_failed",))
        assert "'broken'" in decision.failures[0].detail
        assert guard.status().plugin_errors["broken"] >= 1
    assert "broken" in caplog.text
    assert "secret payload" not in caplog.text


def test_plugins_that_cannot_be_loaded_stop_the_guard_with_their_name(hashset: Path) -> None:
    class BadStart:
        @hookimpl
        def uploadguard_startup(self, guard: Guard) -> None:
            raise RuntimeError

    class BadParts:
        @hookimpl
        def uploadguard_signal_types(self) -> list[object]:
            return [object()]

    class Twice:
        @hookimpl
        def uploadguard_signal_types(self) -> list[object]:
            return [Pdq()]

    class Misspelt:
        @hookimpl
        def uploadguard_decided(self) -> None: ...

    for plugin, reason in [
        (BadStart(), "RuntimeError"),
        (BadParts(), "not a SignalType"),
        (Twice(), "second SignalType named 'pdq'"),
        (Misspelt(), "uploadguard_decided"),
    ]:
        with pytest.raises(PluginError, match=reason) as error:
            Guard.open(hashset=hashset, plugins={"bad": plugin})
        assert error.value.plugin == "bad"
    with pytest.raises(ConfigError, match="no plugin named 'exmaple'"):
        Guard(Guard.open(hashset=hashset).settings.model_copy(update={"plugins": ("exmaple",)}))


def test_an_unknown_signal_type_is_an_error_that_lists_the_known(hashset: Path) -> None:
    with pytest.raises(ConfigError, match=r"photodna.*md5.*pdq"):
        Guard.open(hashset=hashset, signals={"enabled": ["md5", "photodna"]})


# What is said, and to whom


def test_a_decision_hides_hashes_unless_asked(guard: Guard) -> None:
    decision = guard.check(variant_bytes("resized"), context=Context(uploader="somebody"))
    hexes = [h.value.hex() for h in decision.hashes]
    assert len(hexes) == 3 + 8
    texts = [repr(decision), str(decision), repr(decision.hashes), repr(decision.matches), decision.to_json()]
    texts += [guard.explain(decision), repr(Context(uploader="somebody"))]
    assert not any(value in text for value in hexes for text in texts)
    assert "somebody" not in texts[-1]
    assert "hotline" not in repr(decision) + repr(decision.matches)
    record = json.loads(decision.to_json(include_hashes=True))
    assert [h["value"] for h in record["hashes"]] == hexes
    assert record["verdict"] == "queue"
    assert set(record["timings_ms"]) >= {"digests", "decode", "pdq", "match", "decide", "total"}
    with pytest.raises(AttributeError):
        decision.verdict = Verdict.ALLOW  # type: ignore[misc]


def test_the_refusal_says_nothing_of_why(guard: Guard) -> None:
    decision = guard.check(picture_bytes())
    with pytest.raises(UploadRefused) as refusal:
        decision.raise_for_verdict()
    assert str(refusal.value) == f"upload refused (reference {decision.reference})"
    guard.check(unrelated_picture()).raise_for_verdict()


def test_the_explanation_names_what_the_operator_needs(guard: Guard) -> None:
    text = guard.explain(guard.check(variant_bytes("mirrored")))
    for part in ("queue", "perceptual_match", "'hotline'", "'testpicture'", "flip_y", "bits apart", "image/jpeg"):
        assert part in text
    assert "truncated: " in guard.explain(guard.check(picture_bytes()[:20_000]))


def test_nothing_is_logged_of_a_check(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for data in (picture_bytes(), variant_bytes("resized"), b"", b"text"):
        guard.check(data, context=Context(uploader="somebody", filename="private.jpg"))
    assert [record for record in caplog.records if record.name.startswith("uploadguard")] == []


def test_fail_open_settings_are_logged_at_start_and_show_in_the_status(
    hashset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Guard.open(hashset=hashset, policy={"failures": {"truncated": "allow"}}) as guard:
        assert guard.status().fail_open == ("policy.failures.truncated",)
        decision = guard.check(variant_bytes("resized")[:20_000])
        assert "truncated" in decision.reasons
    assert "policy.failures.truncated" in caplog.text


def test_verdicts_print_as_words(guard: Guard) -> None:
    verdict = guard.check(picture_bytes()).verdict
    assert (f"{verdict} {verdict:>6}", str(verdict), "%s" % verdict) == ("block  block", "block", "block")  # noqa: UP031
    assert verdict > Verdict.QUEUE


def test_a_context_of_another_type_is_a_type_error(guard: Guard) -> None:
    with pytest.raises(TypeError, match=r"uploadguard\.Context"):
        guard.check(b"x", context={"uploader": "u1"})  # type: ignore[arg-type]


def test_without_arguments_the_file_in_the_working_directory_counts(
    hashset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hashset.parent)
    (hashset.parent / "uploadguard.toml").write_text("[media]\nmax_pixels = 10\n")
    with Guard.open() as guard:
        assert guard.check(unrelated_picture()).reasons == ("too_many_pixels",)
    with Guard.open(hashset=hashset) as guard:
        assert guard.check(unrelated_picture()).allowed


def test_naming_a_default_is_not_failing_open(hashset: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Guard.open(hashset=hashset, policy={"failures": {"low_quality": "not_scanned"}}) as guard:
        assert guard.status().fail_open == ()
    assert "fail-open" not in caplog.text


def test_an_animation_that_was_sampled_says_so(hashset: Path) -> None:
    with Image.open(photo("chelsea.png")) as image:
        frames = [image.rotate(angle) for angle in range(0, 60, 5)]
        out = io.BytesIO()
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with Guard.open(hashset=hashset, media={"max_frames_hashed": 4}) as guard:
        decision = guard.check(out.getvalue())
        assert (decision.verdict, decision.reasons) == (Verdict.NOT_SCANNED, ("frames_sampled",))
        assert (decision.media.frames_total, decision.media.frames_hashed) == (12, 4)
    policy = {"failures": {"frames_sampled": "queue"}}
    with Guard.open(hashset=hashset, media={"max_frames_hashed": 4}, policy=policy) as guard:
        assert guard.check(out.getvalue()).verdict is Verdict.QUEUE


# What an attacker tried


def test_locks_held_at_a_fork_do_not_hang_the_child(hashset: Path) -> None:
    script = f"""
        import os, signal
        from uploadguard import Guard
        guard = Guard.open(hashset={str(hashset)!r})
        with guard._counting, guard._serving._loading, guard._pools._making:
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                guard.check(b"x" * 300_000)
                guard.refresh()
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


@pytest.mark.parametrize("enabled", [["sha1"], ["pdq"]])
def test_lists_of_which_nothing_can_match_are_no_protection(tmp_path: Path, enabled: list[str]) -> None:
    HashSet.create(tmp_path / "set")
    entry = ListEntry("one", (("md5", bytes(range(16))),))
    HashSet.open(tmp_path / "set").add_list("md5-only", [entry], KINDS)
    with Guard.open(hashset=tmp_path / "set", signals={"enabled": enabled}) as guard:
        assert not guard.ready
        with pytest.raises(NotReadyError, match="enable its signal types"):
            guard.check(b"x")
    with Guard.open(hashset=tmp_path / "set", signals={"enabled": ["md5", *enabled]}) as guard:
        assert guard.ready


class BrokenDigest:
    """A digest that raises where ``at`` says, or is too short."""

    name = "broken"
    length_bytes = 4
    max_distance_bits = 0

    def __init__(self, at: str) -> None:
        self.at = at

    def parse(self, text: str) -> bytes:
        return bytes.fromhex(text)

    def format(self, value: bytes) -> str:
        return value.hex()

    def new(self) -> BrokenDigest:
        return self._do("new", self)

    def update(self, data: bytes | memoryview) -> None:
        self._do("update", None)

    def digest(self) -> bytes:
        return self._do("digest", b"123" if self.at == "length" else b"1234")

    def _do(self, what: str, result: Any) -> Any:
        if self.at == what:
            raise RuntimeError("payload 89504e47")
        return result

    @hookimpl
    def uploadguard_signal_types(self) -> list[Any]:
        return [self]


@pytest.mark.parametrize("at", ["new", "update", "digest", "length"])
def test_a_digest_that_fails_is_a_failure_and_the_others_count(hashset: Path, at: str) -> None:
    enabled = ["broken", "md5", "pdq"]
    with Guard.open(hashset=hashset, plugins={"p": BrokenDigest(at)}, signals={"enabled": enabled}) as guard:
        decision = guard.check(unrelated_picture())
        assert (decision.verdict, decision.reasons) == (Verdict.QUEUE, ("signal_failed",))
        assert decision.failures[0].detail.startswith("broken raised ")
        assert "8950" not in decision.to_json()
        assert guard.check(picture_bytes()).verdict is Verdict.BLOCK


def test_closing_tells_waiting_tasks_that_the_guard_is_closed(hashset: Path) -> None:
    decoder = WaitingDecoder()

    async def main() -> list[Any]:
        guard = Guard.open(hashset=hashset, plugins={"waiting": decoder}, threads={"workers": 1})
        tasks = [asyncio.create_task(guard.acheck(unrelated_picture())) for _ in range(4)]
        await asyncio.to_thread(decoder.started.wait)
        closing = asyncio.create_task(asyncio.to_thread(guard.close))
        while not guard._closed:  # noqa: ASYNC110 - set on another thread
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        await closing
        with pytest.raises(NotReadyError):
            await guard.acheck(b"")
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *rest = asyncio.run(asyncio.wait_for(main(), 60))
    assert isinstance(first, asyncio.CancelledError)
    assert [type(error) for error in rest] == [NotReadyError] * 3


def test_what_crosses_processes_can_be_pickled(guard: Guard) -> None:
    decision = guard.check(variant_bytes("resized"), context=Context(uploader="u1"))
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert pickle.loads(pickle.dumps(Context(uploader="u1"))) == Context(uploader="u1")
    assert pickle.loads(pickle.dumps(UploadRefused(decision))).decision == decision
    assert pickle.loads(pickle.dumps(PluginError("name", "why"))).plugin == "name"


def test_an_explanation_keeps_to_its_lines(hashset: Path) -> None:
    entry = ListEntry("a\nb", (("md5", testlist.TEST_HASHES["md5"]),), category="c\x1b[2J\nforged: allow")
    HashSet.open(hashset).add_list("odd", [entry], KINDS)
    with Guard.open(hashset=hashset) as guard:
        text = guard.explain(guard.check(picture_bytes()))
    assert "\x1b" not in text
    assert not any(line.startswith("forged") for line in text.splitlines())


def test_a_known_file_whose_decoder_cannot_be_stopped_is_not_decoded(hashset: Path) -> None:
    heic = (Path(__file__).parent / "media" / "data" / "drawn.heic").read_bytes() + bytes(400_000)
    entry = ListEntry("heic", (("md5", hashlib.md5(heic).digest()),))
    HashSet.open(hashset).add_list("heic", [entry], KINDS)
    with Guard.open(hashset=hashset, threads={"digest_overlap": True}) as guard:
        decision = guard.check(heic)
    assert decision.verdict is Verdict.BLOCK
    assert "decode" not in decision.timings_ms
