"""The hash set as the settings have it: its directory, and the keys that it is encrypted with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploadguard.errors import ManifestError
from uploadguard.hashset import HashSet
from uploadguard.keyring import configured_keys
from uploadguard.storage.keys import Keys

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["create_hashset", "empty_text", "hashset_keys", "open_hashset"]


def open_hashset(settings: Settings) -> HashSet:
    """Open it. Raises :class:`~uploadguard.errors.HashSetError` and :class:`~uploadguard.errors.ConfigError`."""
    hashset = settings.hashset
    try:
        return HashSet.open(hashset.path, keep_previous=hashset.keep_previous, keys=hashset_keys(settings))
    except ManifestError as error:
        if settings.path is None and "path" not in hashset.model_fields_set:
            raise ManifestError(
                f"{error}; no configuration was read: name it by UPLOADGUARD_CONFIG, or start where uploadguard.toml is"
            ) from None
        raise


def create_hashset(settings: Settings) -> HashSet:
    """Create it, empty. Raises :class:`~uploadguard.errors.HashSetError`, :class:`~uploadguard.errors.ConfigError`."""
    return HashSet.create(
        settings.hashset.path, keep_previous=settings.hashset.keep_previous, keys=hashset_keys(settings)
    )


def empty_text(settings: Settings) -> str:
    """What is wrong with a hash set that nothing can be checked against, and what to do."""
    alone = "the test list alone does not count as protection: " if settings.hashset.test_list else ""
    return (
        f"the hash set is empty of hashes that checks use, so nothing could ever match: {alone}import a list with "
        "`uploadguard lists add NAME FILE`, enable its signal types, or set hashset.allow_empty"
    )


def hashset_keys(settings: Settings) -> Keys | None:
    """The keys of ``hashset.encryption``, read anew; None if it names none.

    Raises :class:`~uploadguard.errors.ConfigError`, which names the setting and never what it leads to.
    """
    encryption = settings.hashset.encryption
    found = configured_keys(settings, ("hashset", "encryption"), encryption.key_file, encryption.key_env)
    return Keys(found, write=encryption.write) if found else None
