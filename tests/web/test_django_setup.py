"""The Django adapter's storage, its system checks, and how the Guard is opened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, storages
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.template import Context, Engine
from django.test import Client, override_settings

from tests.web.apps import django_app
from tests.web.apps.hold import hold
from tests.web.wsgi import FORM, ROOT, form, quick_start, write_config
from uploadguard import UploadRefused
from uploadguard.testing import picture
from uploadguard.web.django import GuardedStorage, HeldFileError, close_guard, get_guard

FINE = picture.unrelated_picture()
LISTED = picture.picture_bytes()
MIRRORED = picture.variant_bytes("mirrored")
FILES = "django.core.files.storage.FileSystemStorage"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module", autouse=True)
def guard(config: Path) -> Iterator[None]:
    with override_settings(UPLOADGUARD={"CONFIG": config}):
        yield
    close_guard()


@pytest.fixture
def storage(tmp_path: Path) -> GuardedStorage:
    return GuardedStorage(
        {"BACKEND": FILES, "OPTIONS": {"location": tmp_path / "public", "base_url": "/media/"}},
        {"BACKEND": FILES, "OPTIONS": {"location": tmp_path / "held"}},
    )


def files_below(directory: Path) -> list[str]:
    return sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())


class TestStorage:
    def test_what_may_go_on_is_stored_as_ever(self, storage: GuardedStorage, tmp_path: Path) -> None:
        name = storage.save("cats/a.jpg", ContentFile(FINE))
        assert (name, storage.url(name), storage.size(name)) == ("cats/a.jpg", "/media/cats/a.jpg", len(FINE))
        assert (tmp_path / "public" / name).read_bytes() == FINE
        assert storage.exists(name)
        assert storage.path(name) == str(tmp_path / "public" / name)
        assert storage.listdir("cats") == ([], ["a.jpg"])
        assert storage.get_modified_time(name)
        with storage.open(name) as file:
            assert file.read() == FINE
        assert storage.save("cats/a.jpg", ContentFile(FINE)) != name
        storage.delete(name)
        assert not storage.exists(name)
        assert storage.location == str(tmp_path / "public")

    def test_what_is_blocked_is_not_stored(self, storage: GuardedStorage, tmp_path: Path) -> None:
        with pytest.raises(UploadRefused):
            storage.save("a.jpg", ContentFile(LISTED))
        assert files_below(tmp_path) == []

    def test_what_is_queued_is_held_apart_until_it_is_released(self, storage: GuardedStorage, tmp_path: Path) -> None:
        name = storage.save("cats/a.jpg", ContentFile(MIRRORED))
        assert files_below(tmp_path) == ["held/cats/a.jpg"]
        assert storage.is_held(name)
        assert storage.exists(name)
        assert storage.size(name) == len(MIRRORED)
        with storage.open(name) as file:
            assert file.read() == MIRRORED
        with pytest.raises(HeldFileError):
            storage.url(name)
        template = Engine(builtins=[]).from_string("[{{ picture.url }}]")
        shown = type("Picture", (), {"url": property(lambda self: storage.url(name))})()
        assert template.render(Context({"picture": shown})) == "[]"
        assert GuardedStorage(storage.wrapped, storage.held, held_url="/held.png").url(name) == "/held.png"
        released = storage.release(name)
        assert files_below(tmp_path) == ["public/cats/a.jpg"]
        assert storage.url(released) == "/media/cats/a.jpg"
        assert not storage.exists(name)
        with pytest.raises(ValueError, match="not held"):
            storage.release(released)

    @pytest.mark.parametrize("detour", ["./{}", "x/../{}", "{}/", "{}\\"])
    def test_no_detour_leads_around_the_hold(self, storage: GuardedStorage, detour: str) -> None:
        name = storage.save("a.jpg", ContentFile(MIRRORED))
        folder, file = name.split("/")
        assert storage.is_held(detour.format(folder) + "/" + file)
        with pytest.raises(SuspiciousFileOperation):
            storage.save(name, ContentFile(FINE))

    def test_without_a_place_for_it_the_host_is_asked_to_hold(self, tmp_path: Path, config: Path) -> None:
        held: list[bytes] = []
        storage = GuardedStorage(FileSystemStorage(tmp_path))
        table = {"CONFIG": config, "HOLD": lambda decision, file: held.append(file.read())}
        content = ContentFile(MIRRORED, "a.jpg")
        with override_settings(UPLOADGUARD=table):
            for _ in range(2):
                with pytest.raises(UploadRefused):
                    storage.save(None, content)
        assert held == [MIRRORED]
        assert files_below(tmp_path) == []

    def test_a_checked_upload_is_not_checked_again_and_is_moved_into_place(
        self, storage: GuardedStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = TemporaryUploadedFile("a.jpg", "image/jpeg", len(FINE), None)
        upload.write(FINE)
        upload.flush()
        upload.uploadguard = get_guard().check(FINE)
        monkeypatch.setattr(get_guard(), "check", None)
        storage.save("a.jpg", upload)
        assert not Path(upload.temporary_file_path()).exists()
        assert (tmp_path / "public" / "a.jpg").read_bytes() == FINE
        upload.close()

    def test_whatever_can_be_stored_can_be_checked(self, storage: GuardedStorage) -> None:
        class Once:
            name = "once.jpg"

            def __init__(self, data: bytes) -> None:
                self.left = [data[:1000], data[1000:]]

            def chunks(self) -> Iterator[bytes]:
                while self.left:
                    yield self.left.pop(0)

            def seekable(self) -> bool:
                return False

        assert storage.size(storage.save(None, Once(FINE))) == len(FINE)
        with pytest.raises(UploadRefused):
            storage.save(None, Once(LISTED))
        assert storage.size(storage.save("words.txt", ContentFile("text"))) == 4
        with Path(__file__).open("rb") as file:
            assert storage.save("code.py", File(file)) == "code.py"
        with Path(__file__).open("rb") as file:
            assert storage.save("again.py", file) == "again.py"

    def test_nothing_is_written_past_the_check(self, storage: GuardedStorage) -> None:
        for mode in ("wb", "r+b", "a", "x"):
            with pytest.raises(ValueError, match="save"):
                storage.open("a.jpg", mode)

    def test_the_longest_name_counts_the_prefix(self, storage: GuardedStorage) -> None:
        name = storage.save("a" * 40 + ".jpg", ContentFile(MIRRORED), max_length=40)
        assert len(name) <= 40

    def test_it_stands_in_storages_and_in_migrations(self, tmp_path: Path) -> None:
        options = {"storage": "plain", "held": {"BACKEND": FILES, "OPTIONS": {"location": str(tmp_path / "held")}}}
        table = {
            "default": {"BACKEND": "uploadguard.web.django.GuardedStorage", "OPTIONS": options},
            "plain": {"BACKEND": FILES, "OPTIONS": {"location": str(tmp_path / "public")}},
        }
        with override_settings(STORAGES=table):
            guarded = storages["default"]
            guarded.save("a.jpg", ContentFile(FINE))
            guarded.save("b.jpg", ContentFile(MIRRORED))
        assert files_below(tmp_path) == ["held/b.jpg", "public/a.jpg"]
        field = models.FileField(storage=GuardedStorage("plain"))
        assert "uploadguard.web.django.GuardedStorage('plain')" in MigrationWriter.serialize(field)[0]

    def test_a_view_that_stores_what_is_queued(self, storage: GuardedStorage, config: Path, tmp_path: Path) -> None:
        with override_settings(
            UPLOADGUARD={"CONFIG": config, "QUEUE": "pass"},
            STORAGES={"default": {"BACKEND": f"{__name__}.made", "OPTIONS": {"path": tmp_path}}},
            ROOT_URLCONF=__name__,
        ):
            answer = Client().post("/store", form(("p", "a.jpg", MIRRORED)), content_type=FORM["Content-Type"])
        assert answer.json() == {"name": "uploadguard-held/a.jpg"}


def made(path: Path) -> GuardedStorage:
    return GuardedStorage(FileSystemStorage(path / "public"), FileSystemStorage(path / "held"))


def store(request: Any) -> Any:
    from django.http import JsonResponse

    return JsonResponse({"name": storages["default"].save("a.jpg", request.FILES["p"])})


def urls() -> list[Any]:
    from django.urls import path

    return [path("store", store)]


urlpatterns = urls()


def found(*, deploy: bool = False) -> set[str]:
    """The ids of what the system checks tell."""
    messages = run_checks(include_deployment_checks=deploy)
    return {message.id.removeprefix("uploadguard.") for message in messages if message.id.startswith("uploadguard")}


class TestSystemChecks:
    def test_a_whole_installation_has_nothing_to_tell(self, config: Path, tmp_path: Path) -> None:
        guarded = {"default": {"BACKEND": "uploadguard.web.django.GuardedStorage", "OPTIONS": {"storage": "plain"}}}
        table = {"CONFIG": config, "HOLD": hold, "OVERRIDES": {"sandbox": {"isolation": "process"}}}
        with override_settings(UPLOADGUARD=table, STORAGES=guarded):
            assert found(deploy=True) == set()

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            (None, "E001"),
            ({"CONFG": "x"}, "E001"),
            ({"HOLD": "no.such.place"}, "E001"),
            ({"SHAPE": 5}, "E001"),
            ({"QUEUE": "drop"}, "E001"),
            ({"OVERRIDES": []}, "W002"),
            ({"CONFIG": "no-such-file.toml"}, "E002"),
            ({"OVERRIDES": {"hashset": {"path": "no-such-set"}}}, "E003"),
            ({"OVERRIDES": {"media": {"max_pixel": 5}}}, "E002"),
        ],
    )
    def test_settings(self, table: Any, problem: str, config: Path) -> None:
        whole = {"CONFIG": config, **table} if table is not None else None
        with override_settings(UPLOADGUARD=whole):
            assert problem in found()
            if problem != "W002":
                with pytest.raises(ImproperlyConfigured):
                    get_guard()

    def test_an_empty_hash_set(self, config: Path, tmp_path: Path) -> None:
        from uploadguard.hashset import HashSet

        HashSet.create(tmp_path / "empty")
        table = {"CONFIG": config, "OVERRIDES": {"hashset": {"path": tmp_path / "empty"}}}
        with override_settings(UPLOADGUARD=table):
            assert "W001" in found()

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"FILE_UPLOAD_HANDLERS": django_app.HANDLERS[1:]}, "W003"),
            ({"FILE_UPLOAD_HANDLERS": django_app.HANDLERS[::-1]}, "E004"),
            ({"FILE_UPLOAD_HANDLERS": django_app.HANDLERS[:1]}, "E005"),
            ({"MIDDLEWARE": django_app.MIDDLEWARE[:2]}, "W004"),
            ({"MIDDLEWARE": django_app.MIDDLEWARE[::-1]}, "W005"),
        ],
    )
    def test_installation(self, settings: dict[str, Any], problem: str) -> None:
        with override_settings(**settings):
            assert found() == {"W002", problem}

    def test_deployment(self, config: Path) -> None:
        table = {"CONFIG": config, "OVERRIDES": {"hashset": {"test_list": True}, "web": {"max_files": 500}}}
        with override_settings(UPLOADGUARD=table, DATA_UPLOAD_MAX_MEMORY_SIZE=None):
            assert found(deploy=True) == {"W002", "W006", "W007", "W008", "W009", "W010"}
            assert found() == {"W002"}


def test_the_guard_is_opened_once_and_survives_a_fork(config: Path) -> None:
    code = (
        "import os\n"
        "from tests.web.apps import django_app\n"
        "from uploadguard.testing import picture\n"
        "from uploadguard.web.django import get_guard\n"
        "guard = get_guard()\n"
        "child = os.fork()\n"
        "assert get_guard() is guard\n"
        "assert guard.check(picture.picture_bytes()).verdict.label == 'block'\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    environment = {"UPLOADGUARD_CONFIG": str(config), "PYTHONPATH": str(ROOT), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_an_upload_object_without_a_decision_of_ours_is_checked() -> None:
    forged = SimpleUploadedFile("a.jpg", LISTED)
    forged.uploadguard = "allow"
    with pytest.raises(UploadRefused):
        GuardedStorage(FileSystemStorage()).save("a.jpg", forged)


def test_the_quick_start_does_what_it_says(config: Path, tmp_path: Path) -> None:
    (tmp_path / "uploadguard.toml").write_bytes(config.read_bytes())
    asks = (
        "\nimport io, sys\n"
        "from django.core.checks import run_checks\n"
        "from django.test import Client\n"
        "from uploadguard.testing import picture\n"
        "for data in (picture.unrelated_picture(), picture.picture_bytes()):\n"
        "    file = io.BytesIO(data)\n"
        "    file.name = 'a.jpg'\n"
        "    answer = Client().post('/pictures', {'picture': file})\n"
        "    print(answer.status_code, answer.content[:16])\n"
        "print([message.id for message in run_checks()])\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", quick_start("Django") + asks],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == ["200 b'a.jpg: allow\\n'", '422 b\'{"detail": "This\'']
    assert "uploadguard.E" not in result.stdout
