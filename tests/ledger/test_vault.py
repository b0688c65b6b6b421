"""The vault: what goes in comes out, nothing else does, and it outlives whatever happens to it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uploadguard import hookimpl
from uploadguard.config import Settings
from uploadguard.errors import ConfigError, EvidenceError, PluginError
from uploadguard.ledger import vault as module
from uploadguard.ledger.vault import Vault, open_vault
from uploadguard.plugins import Plugins
from uploadguard.storage.encryption import CHUNK_BYTES, DecryptionError, Decryptor
from uploadguard.storage.keys import Key, Keys, write_key_file

KEY, OTHER = Key(bytes(32)), Key(bytes([7]) * 32)
DATA = b"the upload's very bytes, " * 10_000


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    path = tmp_path / "vault"
    path.mkdir(mode=0o700)
    return Vault(path, Keys([KEY]), keep=timedelta(days=365))


def place(vault: Vault, stored: dict[str, Any]) -> Path:
    return vault.path / stored["file"][:2] / stored["file"]


def read(vault: Vault, stored: dict[str, Any], **options: str) -> bytes:
    return vault.read(stored["file"], bytes.fromhex(stored["sha256"]), **options)


@given(
    size=st.sampled_from([0, 1, CHUNK_BYTES - 150, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]),
    media_type=st.sampled_from([None, "image/jpeg"]),
)
@settings(max_examples=12)
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, size: int, media_type: str | None) -> None:
    vault = Vault(tmp_path_factory.mktemp("vault"), Keys([KEY]), keep=None)
    data = os.urandom(size)
    stored = vault.store("reference", memoryview(data), media_type)
    assert read(vault, json.loads(json.dumps(stored)), reference="reference") == data
    assert stored["sha256"] == hashlib.sha256(data).hexdigest()
    assert (stored["size_bytes"], stored["media_type"], stored["keep_until"]) == (size, media_type, None)


def test_files_are_private_encrypted_and_say_nothing_by_their_names(vault: Vault) -> None:
    stored = [vault.store("the-reference", DATA, "image/jpeg") for _ in range(3)]
    assert len({one["file"] for one in stored}) == 3
    for one in stored:
        path = place(vault, one)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        written = path.read_bytes()
        for secret in (b"very bytes", b"the-reference", b"image/jpeg", bytes.fromhex(one["sha256"])):
            assert secret not in written
    kept = datetime.fromisoformat(stored[0]["keep_until"]) - datetime.fromisoformat(stored[0]["stored_at"])
    assert kept == timedelta(days=365)


def test_it_is_on_the_disk_when_it_is_acknowledged(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    vault.store("reference", DATA, None)
    assert steps == ["directory", "file", "rename", "directory"]


def test_a_large_upload_takes_little_memory_beside_it(vault: Vault) -> None:
    data = bytes(100 << 20)
    tracemalloc.start()
    try:
        vault.store("reference", data, None)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_many_threads_at_once(vault: Vault) -> None:
    uploads = [os.urandom(1000 + number) for number in range(64)]
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda data: vault.store("reference", data, None), uploads))
    assert [read(vault, one) for one in stored] == uploads
    assert {one.name for one in vault.files()} == {one["file"] for one in stored}


@pytest.mark.parametrize("at", [0, 9, 20, 60, 90, 96, 5000, CHUNK_BYTES + 100, -20, -1])
def test_an_altered_file_is_refused(vault: Vault, at: int) -> None:
    stored = vault.store("reference", DATA, None)
    path = place(vault, stored)
    written = bytearray(path.read_bytes())
    written[at] ^= 1
    path.write_bytes(written)
    with pytest.raises(EvidenceError, match="altered"):
        read(vault, stored)


@pytest.mark.parametrize("left", [0, 10, 96, 97, 112, CHUNK_BYTES, 96 + CHUNK_BYTES + 16, -16, -1])
def test_a_file_that_was_cut_short_is_refused(vault: Vault, left: int) -> None:
    stored = vault.store("reference", DATA, None)
    path = place(vault, stored)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(EvidenceError, match="cut short"):
        read(vault, stored)


def test_one_file_does_not_stand_in_for_another(vault: Vault) -> None:
    first, second = vault.store("one", DATA, None), vault.store("two", DATA, None)
    place(vault, second).write_bytes(place(vault, first).read_bytes())
    with pytest.raises(EvidenceError, match="altered"):
        read(vault, second)
    # Nor does a row of the ledger lead to another decision's file.
    with pytest.raises(EvidenceError, match="not the one that was recorded"):
        read(vault, first, reference="two")
    with pytest.raises(EvidenceError, match="not the one that was recorded"):
        vault.read(first["file"], bytes(32))


def test_without_its_key_a_file_cannot_be_read(vault: Vault) -> None:
    stored = vault.store("reference", DATA, None)
    with pytest.raises(EvidenceError, match=rf"key of id {KEY.short_id}.*evidence.key_file or evidence.key_env"):
        read(Vault(vault.path, Keys([OTHER]), keep=None), stored)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "0" * 31, "G" * 32, "0" * 32 + "\n"])
def test_a_name_that_is_none_leads_nowhere(vault: Vault, name: str) -> None:
    for act in (lambda: vault.read(name, bytes(32)), lambda: vault.remove(name), lambda: vault.renew(name)):
        with pytest.raises(EvidenceError, match="names no file"):
            act()


def test_a_file_that_is_gone(vault: Vault) -> None:
    stored = vault.store("reference", DATA, None)
    assert vault.holds(stored["file"])
    assert vault.remove(stored["file"])
    assert not vault.remove(stored["file"])
    assert not vault.holds(stored["file"])
    with pytest.raises(EvidenceError, match="is gone"):
        read(vault, stored)


def test_what_is_left_of_a_destroyed_file_opens_with_no_key(vault: Vault, tmp_path: Path) -> None:
    stored = vault.store("reference", DATA, None)
    blocks = tmp_path / "the disk's blocks"
    blocks.hardlink_to(place(vault, stored))
    vault.remove(stored["file"])
    with pytest.raises(DecryptionError):
        Decryptor(memoryview(blocks.read_bytes()), Keys([KEY]), "evidence", context=stored["file"].encode())


def test_keys_change(vault: Vault) -> None:
    old = vault.store("old", DATA, None)
    both = Vault(vault.path, Keys([OTHER, KEY]), keep=None)
    new = both.store("new", DATA, None)
    only_new = Vault(vault.path, Keys([OTHER]), keep=None)
    assert read(both, old) == read(both, new) == read(only_new, new) == DATA
    assert [both.renew(old["file"]), both.renew(old["file"]), both.renew(new["file"])] == [True, False, False]
    assert read(only_new, old, reference="old") == DATA
    assert stat.S_IMODE(place(vault, old).stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("step", ["fsync", "sync_directory", "replace", "open", "mkdir"])
def test_a_disk_that_refuses_leaves_nothing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    vault.store("reference", DATA, None)  # so that not only the making of the first folder is tried
    before = {one.name for one in vault.files()}

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    if step == "sync_directory":
        synced: list[Path] = []
        sync = module.sync_directory

        def second_fails(directory: Path) -> None:
            synced.append(directory)
            if directory != vault.path:
                refuse()
            sync(directory)

        monkeypatch.setattr(module, "sync_directory", second_fails)
    else:
        monkeypatch.setattr(Path if step in ("replace", "mkdir") else os, step, refuse)
        if step == "mkdir":
            monkeypatch.setattr(module.secrets, "token_hex", lambda size: "ff" * size)
    with pytest.raises(EvidenceError, match="cannot be preserved"):
        vault.store("reference", DATA, None)
    monkeypatch.undo()
    assert {one.name for one in vault.files()} == before
    assert not [path for path in vault.path.rglob("*") if path.name.endswith(".tmp")]


def test_whatever_kills_a_writer_nothing_acknowledged_is_lost() -> None:
    command = [sys.executable, "-m", "tests.ledger.soak_vault"]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2], timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    outcomes = json.loads(done.stdout)
    assert outcomes["killed"] > 30
    assert outcomes["refused"] > 60


def settings_of(tmp_path: Path, **evidence: object) -> Settings:
    return Settings.load(
        ledger={"path": tmp_path / "ledger"}, hashset={"path": tmp_path / "hashset"}, evidence=evidence
    )


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert open_vault(settings_of(tmp_path)) is None
    assert open_vault(settings_of(tmp_path), bytes(32)) is None


def test_it_is_made_private_and_opened_with_the_keys_of_a_file(tmp_path: Path) -> None:
    key = write_key_file(tmp_path / "key")
    vault = open_vault(settings_of(tmp_path, path=tmp_path / "a" / "vault", key_file=tmp_path / "key", keep_days=1))
    assert vault is not None
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o700
    stored = vault.store("reference", DATA, None)
    kept = datetime.fromisoformat(stored["keep_until"]) - datetime.now(UTC)
    assert timedelta(hours=23) < kept <= timedelta(days=1)
    assert read(Vault(vault.path, Keys([key]), keep=None), stored) == DATA
    assert str(vault.path) in repr(vault)


def test_a_key_of_the_environment_and_one_of_a_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", bytes(32).hex())
    settings = settings_of(tmp_path, path=tmp_path / "vault", key_env="THE_KEY", keep_days=0)
    by_env = open_vault(settings)
    assert by_env is not None
    stored = by_env.store("reference", DATA, None)
    assert stored["keep_until"] is None
    hooked = open_vault(settings, bytes([7]) * 32)
    assert hooked is not None
    assert read(hooked, stored) == DATA
    assert read(Vault(hooked.path, Keys([OTHER]), keep=None), hooked.store("reference", DATA, None)) == DATA


@pytest.mark.parametrize(
    ("evidence", "key", "problem"),
    [
        ({}, None, "evidence.key_file: is missing"),
        ({"key_file": "nowhere"}, None, "evidence.key_file: cannot be read: No such file"),
        ({"key_file": "empty"}, None, "evidence.key_file: holds no key"),
        ({"key_file": "nowhere", "key_env": "X"}, None, "stands beside evidence.key_env"),
        ({"key_env": "SURELY_NOT_SET"}, None, "evidence.key_env: the environment variable that it names is not set"),
        ({}, b"short", "the plugin's key cannot be used"),
    ],
)
def test_no_vault_without_a_good_key(tmp_path: Path, evidence: dict[str, str], key: bytes | None, problem: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    values = {name: str(tmp_path / value) if name == "key_file" else value for name, value in evidence.items()}
    with pytest.raises(ConfigError, match=problem) as caught:
        open_vault(settings_of(tmp_path, path=tmp_path / "vault", **values), key)
    assert "SURELY" not in str(caught.value)
    assert not (tmp_path / "vault").exists()


def test_no_vault_without_a_ledger(tmp_path: Path) -> None:
    settings = Settings.load(hashset={"path": tmp_path / "hashset"}, evidence={"path": tmp_path / "vault"})
    with pytest.raises(ConfigError, match=r"evidence.path: needs a ledger"):
        open_vault(settings, bytes(32))


def test_a_vault_that_others_can_look_into_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of(tmp_path, path=tmp_path / "vault")
    open_vault(settings, bytes(32))
    assert not caplog.records
    (tmp_path / "vault").chmod(0o755)
    open_vault(settings, bytes(32))
    assert "chmod 700" in caplog.text


def test_a_vault_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("")
    with pytest.raises(EvidenceError, match="cannot be made"):
        open_vault(settings_of(tmp_path, path=tmp_path / "vault"), bytes(32))


# The hook


class Gives:
    """A plugin that gives a key."""

    def __init__(self, key: object) -> None:
        self._key = key

    @hookimpl
    def uploadguard_evidence_key(self) -> object:
        if isinstance(self._key, Exception):
            raise self._key
        return self._key


def plugins(tmp_path: Path, *keys: object) -> Plugins:
    return Plugins(settings_of(tmp_path), [(f"plugin{number}", Gives(key)) for number, key in enumerate(keys)])


def test_a_plugin_gives_the_key(tmp_path: Path) -> None:
    assert plugins(tmp_path).evidence_key() is None
    assert plugins(tmp_path, None, bytes(32), None).evidence_key() == bytes(32)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ((bytes(31),), "must give 32 bytes"),
        (("0" * 32,), "must give 32 bytes"),
        ((bytes(32), bytes(32)), "another plugin gave one before"),
        ((RuntimeError("no"),), "raised RuntimeError"),
    ],
)
def test_a_plugin_that_gives_no_good_key_is_named(tmp_path: Path, keys: tuple[object, ...], problem: str) -> None:
    with pytest.raises(PluginError, match=f"plugin.*{problem}"):
        plugins(tmp_path, *keys).evidence_key()
