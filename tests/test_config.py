"""The configuration: sources and their precedence, errors that say where, the policy made from it."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from pydantic import ValidationError

from uploadguard.config import HashsetSettings, Settings
from uploadguard.config_policy import FailureVerdict
from uploadguard.errors import ConfigError
from uploadguard.media.base import DecodeOptions
from uploadguard.media.inspect import Limits
from uploadguard.models import FailureCode, Verdict
from uploadguard.policy import Policy, SignalDefaults
from uploadguard.policy_rules import DEFAULT_FAILURE_VERDICTS, Rule, Rules
from uploadguard.signals.pdq import Pdq

TYPES = {
    "md5": SignalDefaults(0, 128, digest=True),
    "sha256": SignalDefaults(0, 256, digest=True),
    "pdq": SignalDefaults(31, 256, digest=False),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("UPLOADGUARD_"):
            monkeypatch.delenv(name)


def write(directory: Path, text: str) -> Path:
    path = directory / "uploadguard.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path | None = None, **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(path, **overrides)
    return caught.value.problems


class TestSources:
    def test_defaults(self) -> None:
        settings = Settings.load()
        assert settings.model_dump() == Settings().model_dump()
        assert settings.path is None
        assert settings.signals.enabled == ("md5", "sha1", "sha256", "pdq")
        assert settings.media.background_rgb == (255, 255, 255)

    def test_the_defaults_are_those_of_the_parts(self) -> None:
        media, limits, options = Settings().media, Limits(), DecodeOptions()
        for name in (field.name for field in dataclasses.fields(limits)):
            assert getattr(media, name) == getattr(limits, name)
        assert (media.background_rgb, Settings().signals.pdq.jpeg_scale) == (options.background, options.jpeg_scale)
        assert Settings().signals.pdq.min_quality == Pdq().min_quality

    def test_precedence_goes_key_by_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path, "[media]\nmax_pixels = 1\nmax_file_bytes = 1\nmax_frames_hashed = 1\n")
        monkeypatch.setenv("UPLOADGUARD_MEDIA__MAX_PIXELS", "2")
        monkeypatch.setenv("UPLOADGUARD_MEDIA__MAX_FILE_BYTES", "2")
        media = Settings.load(path, media={"max_pixels": 3}).media
        assert (media.max_pixels, media.max_file_bytes, media.max_frames_hashed) == (3, 2, 1)
        assert media.max_decoded_pixels == Settings().media.max_decoded_pixels

    def test_the_environment_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_CONFIG", str(write(tmp_path, "[threads]\nworkers = 3")))
        assert Settings.load().threads.workers == 3
        assert Settings.load().path == tmp_path / "uploadguard.toml"

    def test_settings_without_load_look_at_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_THREADS__WORKERS", "3")
        monkeypatch.setenv("THREADS", "3")
        assert Settings().threads.workers == 0

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("HASHSET__ALLOW_EMPTY", "true", True),
            ("HASHSET__REFRESH_S", "2.5", 2.5),
            ("HASHSET__REFRESH_S", "2", 2.0),
            ("HASHSET__PATH", "12", Path("12")),
            ("MEDIA__BACKGROUND", "#00ff00", "#00ff00"),
            ("SIGNALS__ENABLED", '["md5"]', ("md5",)),
            ("SIGNALS__PDQ__MODE", "exact", "exact"),
            ("SIGNALS__PDQ__JPEG_SCALE", "4", 4),
            ("SIGNALS__PDQ__JPEG_SCALE", "auto", "auto"),
            ("THREADS__DIGEST_OVERLAP", "false", False),
            ("POLICY__FAILURES__TRUNCATED", "block", "block"),
            ("POLICY__SIGNALS__PDQ__VERDICT", "block", "block"),
            ("POLICY__LISTS__KNOWN__SIGNALS__PDQ__MAX_DISTANCE_BITS", "9", 9),
            ("TENANTS__ACME__POLICY__FAILURES__TRUNCATED", "block", "block"),
        ],
    )
    def test_the_environment(self, name: str, text: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"UPLOADGUARD_{name}", text)
        value: Any = Settings.load()
        for part in name.lower().split("__"):
            value = value[part] if isinstance(value, dict) or hasattr(value, "keys") else getattr(value, part)
        assert value == expected
        assert type(value) is type(expected)

    def test_an_environment_value_is_one_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_MEDIA__MAX_PIXELS", "1\nother = 2")
        assert problems() == [
            (
                "environment variable UPLOADGUARD_MEDIA__MAX_PIXELS: "
                "media.max_pixels: must be a whole number, 1 or more, not text"
            )
        ]

    def test_paths_in_a_file_are_relative_to_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Settings.load(write(tmp_path, '[hashset]\npath = "sets/a"')).hashset.path == tmp_path / "sets/a"
        assert Settings.load(write(tmp_path, "")).hashset.path == tmp_path / "hashset"
        assert Settings.load(write(tmp_path, '[hashset]\npath = "/a"')).hashset.path == Path("/a")
        assert Settings.load(tmp_path / "uploadguard.toml", hashset={"path": "b"}).hashset.path == Path("b")
        monkeypatch.chdir(tmp_path)
        assert Settings.load("uploadguard.toml").hashset.path == Path("/a")
        write(tmp_path, "")
        assert Settings.load("uploadguard.toml").hashset.path == tmp_path / "hashset"

    def test_files_as_some_editors_save_them(self, tmp_path: Path) -> None:
        path = tmp_path / "uploadguard.toml"
        path.write_bytes(b"\xef\xbb\xbf[threads]\r\nworkers = 2\r\nworker = 3\r\n")
        assert problems(path)[0].startswith("line 3: threads.worker: unknown key; did you mean workers?")

    def test_settings_are_frozen_and_show_no_list(self, tmp_path: Path) -> None:
        settings = Settings.load(write(tmp_path, '[policy.lists.secret]\nverdict = "block"'))
        with pytest.raises(ValidationError, match="frozen"):
            settings.plugins = ("a",)
        with pytest.raises(ValidationError, match="frozen"):
            settings.media.max_pixels = 1
        with pytest.raises(TypeError):
            settings.policy.lists["other"] = settings.policy.lists["secret"]  # type: ignore[index]
        assert "secret" not in repr(settings) + str(settings)


class TestErrors:
    def test_all_problems_of_a_file_come_together_with_their_lines(self, tmp_path: Path) -> None:
        path = write(
            tmp_path,
            """\
            plugins = ["a", 3]
            [media]
            max_pixel = 1
            background = "white"
            max_file_bytes = "1"

            [policy]
            signals = { pdq = { verdict = "blok" } }
            [policy.failures]
            truncatd = "queue"
            truncated = "quarantine"
            [policy.lists."a list".signals]
            pdq.max_distance_bits = 128
            [hashset]
            max_pixels = 3
            refresh_s = -1
            [thread]
            """,
        )
        assert problems(path) == [
            "line 1: plugins[1]: must be text, not 3",
            (
                "line 3: media.max_pixel: unknown key; did you mean max_pixels? "
                "Allowed here: max_file_bytes, max_pixels, max_frames_hashed, max_decoded_pixels, max_side_pixels, "
                "max_bands, max_frames, max_metadata_bytes, max_metadata_parts, max_metadata_depth, allow_codecs, "
                "background"
            ),
            'line 4: media.background: must be a colour as "#rrggbb", not text',
            "line 5: media.max_file_bytes: must be a whole number, 1 or more, not text",
            (
                'line 8: policy.signals.pdq.verdict: must be "allow", "queue" or "block", not "blok"; '
                'did you mean "block"?'
            ),
            "line 10: policy.failures.truncatd: unknown key; did you mean truncated? Allowed here: "
            + ", ".join(FailureCode),
            'line 11: policy.failures.truncated: must be "allow", "not_scanned", "queue" or "block", not "quarantine"',
            'line 13: policy.lists."a list".signals.pdq.max_distance_bits: must be a whole number, 0 to 127, not 128',
            (
                "line 15: hashset.max_pixels: unknown key; did you mean media.max_pixels? "
                f"Allowed here: {', '.join(HashsetSettings.model_fields)}"
            ),
            "line 16: hashset.refresh_s: must be a number, 0 or more, not -1",
            (f"line 17: thread: unknown key; did you mean threads? Allowed here: {', '.join(Settings.model_fields)}"),
        ]

    def test_the_error_names_the_file_in_each_line(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a = 1\nb = 2\n")
        with pytest.raises(ConfigError) as caught:
            Settings.load(path)
        assert caught.value.path == path
        assert re.findall(r"^(.*?): line (\d): ", str(caught.value), re.MULTILINE) == [
            (str(path), "1"),
            (str(path), "2"),
        ]

    def test_problems_of_several_sources_come_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path, "[media]\nmax_pixels = 0\n")
        monkeypatch.setenv("UPLOADGUARD_THREADS__WORKERS", "many")
        monkeypatch.setenv("UPLOADGUARD_THREADS__WORKER", "1")
        with pytest.raises(ConfigError) as caught:
            Settings.load(path, signals={"enabled": []})
        assert str(caught.value).splitlines() == [
            f"{path}: line 2: media.max_pixels: must be a whole number, 1 or more, not 0",
            (
                "environment variable UPLOADGUARD_THREADS__WORKER: no such setting; "
                "did you mean UPLOADGUARD_THREADS__WORKERS?"
            ),
            "keyword argument: signals.enabled: must not be empty",
            (
                "environment variable UPLOADGUARD_THREADS__WORKERS: "
                "threads.workers: must be a whole number, 0 or more, not text"
            ),
        ]
        assert caught.value.path == path

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("media = 3", "line 1: media: must be a table, not 3"),
            ("[[media]]", "line 1: media: must be a table, not a list"),
            ('[tenants]\nacme = "x"', "line 2: tenants.acme: must be a table, not text"),
            ("[policy]\nlists = []", "line 2: policy.lists: must be a table, not a list"),
            ('plugins = "a"', "line 1: plugins: must be a list of names, not text"),
            ('plugins = [\n  "a",\n  "",\n]', "line 3: plugins[1]: must not be empty"),
            ('plugins = ["a", "a"]', "line 1: plugins: the same name stands there twice"),
            ("[hashset]\nverify = 1", "line 2: hashset.verify: must be true or false, not 1"),
            ("[hashset]\nrefresh_s = inf", "line 2: hashset.refresh_s: must be a number, 0 or more, not inf"),
            ("[threads]\nworkers = 1.0", "line 2: threads.workers: must be a whole number, 0 or more, not 1.0"),
            (
                '[signals.pdq]\njpeg_scale = "4"',
                'line 2: signals.pdq.jpeg_scale: must be "auto", 1, 2, 4 or 8, not "4"',
            ),
            (
                '[tenants.acme.policy]\nmay_lower = ["a"]',
                (
                    "line 2: tenants.acme.policy.may_lower: unknown key; did you mean policy.may_lower? "
                    "Allowed here: signals, lists, failures"
                ),
            ),
            (
                'plugins = ["one"]\n[policy]\nmay_lower = ["oen"]',
                "line 3: policy.may_lower[0]: names a plugin that is not in plugins; did you mean one?",
            ),
            ("a = 1\nb = = 2", "line 2, column 5: not valid TOML: Invalid value"),
            ("a = 1\n\nb = [1,\n", "line 3: not valid TOML: Invalid value"),
        ],
    )
    def test_one_problem(self, text: str, problem: str, tmp_path: Path) -> None:
        assert problems(write(tmp_path, text)) == [problem]

    def test_text_that_could_be_a_secret_is_not_repeated(self, tmp_path: Path) -> None:
        (problem,) = problems(write(tmp_path, '[media]\nmax_pixels = "hunter2"'))
        assert "hunter2" not in problem

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path / "uploadguard.toml")
        assert "no such file" in problem
        assert "`uploadguard init DIR`" in problem

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        assert problems(tmp_path) == ["is a directory; name the TOML file in it"]
        path = tmp_path / "latin.toml"
        path.write_bytes(b"a = 1\n# caf\xe9\n")
        assert problems(path) == ["line 2: not valid TOML: not UTF-8 text"]
        assert problems(path / "below") == ["cannot be read: Not a directory"]

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("MEDIA__MAX_PIXEL", "; did you mean UPLOADGUARD_MEDIA__MAX_PIXELS?"),
            ("HASHSETT__PATH", "; did you mean UPLOADGUARD_HASHSET__PATH?"),
            ("POLICY__LISTS__KNOWN__VERDCT", "; did you mean UPLOADGUARD_POLICY__LISTS__KNOWN__VERDICT?"),
            ("HASHSET_PATH", "; did you mean UPLOADGUARD_HASHSET__PATH?"),
            ("MAX_FILE_BYTES", "; did you mean UPLOADGUARD_MEDIA__MAX_FILE_BYTES?"),
            ("PLUGIN", "; did you mean UPLOADGUARD_PLUGINS?"),
            ("CONFIGG", "; did you mean UPLOADGUARD_CONFIG?"),
            ("CONF", "; did you mean UPLOADGUARD_CONFIG?"),
            ("_CONFIG", "; did you mean UPLOADGUARD_CONFIG?"),
            ("CONFIG_FILE", "; did you mean UPLOADGUARD_CONFIG?"),
            ("MEDIA_ROOT", ""),
            ("SOME__THING", ""),
            ("MEDIA__MAX_PIXELS__MORE", ""),
            ("POLICY__LISTS____VERDICT", ""),
        ],
    )
    def test_unknown_variables(self, name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"UPLOADGUARD_{name}", "1")
        assert problems() == [f"environment variable UPLOADGUARD_{name}: no such setting{hint}"]

    def test_a_variable_cannot_hold_a_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_MEDIA", "{}")
        assert problems() == [
            "environment variable UPLOADGUARD_MEDIA: is a table; set its keys, as UPLOADGUARD_MEDIA__KEY"
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "SERVICE_HOST",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8000_TCP_ADDR",
            "MEDIA_SERVICE_HOST",
            "MEDIA_PORT_80_TCP",
            "RELEASE",
        ],
    )
    def test_variables_of_others_are_let_be(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"UPLOADGUARD_{name}", "tcp://192.0.2.1")
        assert Settings.load().model_dump() == Settings().model_dump()

    def test_settings_that_look_like_those_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_SERVE__PORT", "8701")
        monkeypatch.setenv("UPLOADGUARD_CONSOLE__PORT", "8702")
        settings = Settings.load()
        assert (settings.serve.port, settings.console.port) == (8701, 8702)

    def test_a_problem_within_a_list_names_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UPLOADGUARD_PLUGINS", '["one", 2]')
        assert problems()[0].startswith("environment variable UPLOADGUARD_PLUGINS: plugins[1]: ")


class TestPolicy:
    TEXT = """\
[policy]
may_lower = ["one"]
[policy.signals.pdq]
max_distance_bits = 20
[policy.lists.known]
verdict = "block"
[policy.lists.known.signals.pdq]
report = true
[policy.failures]
truncated = "allow"
[tenants.acme.policy.failures]
too_large = "block"
[tenants.acme.policy.lists.known]
verdict = "allow"
"""
    TEST_LIST: ClassVar = {"uploadguard-test": Rule(report=False)}

    def test_settings_become_a_policy(self, tmp_path: Path) -> None:
        policy = Settings.load(write(tmp_path, 'plugins = ["one"]\n' + self.TEXT)).decision_policy(TYPES)
        assert policy.rules.signals == {"pdq": Rule(max_distance_bits=20)}
        assert policy.rules.lists == {"known": Rule(verdict=Verdict.BLOCK), **self.TEST_LIST}
        assert policy.rules.list_signals == {("known", "pdq"): Rule(report=True)}
        assert policy.rules.failures == {FailureCode.TRUNCATED: Verdict.ALLOW}
        assert policy.tenants["acme"].failures == {FailureCode.TOO_LARGE: Verdict.BLOCK}
        assert policy.tenants["acme"].lists == {"known": Rule(verdict=Verdict.ALLOW)}
        assert policy.may_lower == {"one"}
        assert policy.fail_open() == ("policy.failures.truncated",)

    def test_default_settings_are_the_default_policy(self) -> None:
        assert Settings().decision_policy(TYPES) == Policy(TYPES, Rules(lists=self.TEST_LIST))
        defaults = Settings().policy.failures.model_dump()
        assert defaults == {code.value: verdict.label for code, verdict in DEFAULT_FAILURE_VERDICTS.items()}
        assert [Verdict.from_label(label) for label in get_args(FailureVerdict)] == list(Verdict)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                '[policy.signals.pqd]\nverdict = "block"',
                "line 1: policy.signals.pqd: not a signal type in use; those are md5, pdq, sha256; did you mean pdq?",
            ),
            (
                "[tenants.acme.policy.lists.a.signals.md5]\nmax_distance_bits = 1",
                (
                    "line 2: tenants.acme.policy.lists.a.signals.md5.max_distance_bits: "
                    "a digest only matches exactly; remove this, or set it to 0"
                ),
            ),
            (
                '[policy]\nallow_digests = ["sha256", "pdq"]',
                "line 2: policy.allow_digests: pdq is not a digest; its matches never clear an upload",
            ),
        ],
    )
    def test_rules_that_do_not_fit_the_signal_types(self, text: str, problem: str, tmp_path: Path) -> None:
        settings = Settings.load(write(tmp_path, text))
        with pytest.raises(ConfigError) as caught:
            settings.decision_policy(TYPES)
        assert caught.value.problems == [problem]

    def test_no_limit_reaches_half_the_bits(self) -> None:
        types = {**TYPES, "phash": SignalDefaults(6, 64, digest=False)}

        def rejected(policy: dict[str, Any]) -> bool:
            try:
                Settings.load(policy=policy).decision_policy(types)
            except ConfigError:
                return True
            return False

        assert not rejected({"signals": {"phash": {"max_distance_bits": 31}}})
        assert rejected({"signals": {"phash": {"max_distance_bits": 32}}})
        assert not rejected({"lists": {"a": {"max_distance_bits": 31}}})
        assert rejected({"lists": {"a": {"max_distance_bits": 32}}})
        assert not rejected({"lists": {"a": {"signals": {"pdq": {"max_distance_bits": 32}}}}})
        assert rejected({"lists": {"a": {"signals": {"phash": {"max_distance_bits": 32}}}}})
