"""Tampers with an audit log at random, thousands of times, and counts what verifying it finds.

``python -m tests.ledger.soak_audit --tampers 10000 [--database sqlite|postgresql] [--seed N]``. Ends with 1 where
something was not found. The log is signed to its end, and that last checkpoint was exported too; the log is verified
with the log's own checkpoints first, and where these do not find it, with the exported one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.ledger.postgres import running_postgres
from uploadguard.config import Settings
from uploadguard.ledger import audit, schema
from uploadguard.ledger.audit_verify import AuditReport, verify
from uploadguard.ledger.checkpoints import (
    Checkpoint,
    Checkpointer,
    PublicKey,
    SigningKey,
    load_checkpoints,
    write_signing_key,
)
from uploadguard.ledger.database import Database, open_database

TABLES = (schema.audit, schema.audit_head, schema.audit_checkpoints)


@dataclass
class Log:
    """The rows of the three tables, for a tamper to change."""

    entries: list[dict[str, Any]]
    head: dict[str, Any]
    checkpoints: list[dict[str, Any]]
    random: random.Random = field(repr=False)

    def entry(self) -> dict[str, Any]:
        return self.random.choice(self.entries)

    def any_checkpoint(self) -> dict[str, Any]:
        return self.random.choice(self.checkpoints)

    def recompute(self, start: int = 0) -> None:
        """What an attacker does who knows how the chain is made: numbers, digests and head, all anew."""
        digest = self.entries[start - 1]["digest"] if start else b""
        for seq, row in enumerate(self.entries[start:], start + 1):
            found = {**as_object(row["entry"]), "seq": seq}
            row["seq"], row["entry"] = seq, audit.canonical(found)
            row["digest"] = digest = audit.chained(digest, row["entry"])
        self.head.update(seq=len(self.entries), digest=digest)


def as_object(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def flipped(data: bytes, chance: random.Random) -> bytes:
    bit = chance.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# Each tamper changes the log; it may come to nothing, and is tried again then.


def edit_character(log: Log) -> None:
    row = log.entry()
    at = log.random.randrange(len(row["entry"]))
    row["entry"] = row["entry"][:at] + chr(log.random.randrange(32, 127)) + row["entry"][at + 1 :]


def edit_bit(log: Log) -> None:
    row = log.entry()
    row["entry"] = flipped(row["entry"].encode("ascii"), log.random).decode("latin-1").replace("\0", " ")


def edit_field(log: Log) -> None:
    row = log.entry()
    found = as_object(row["entry"])
    name = log.random.choice(["actor", "action", "subject", "at", "detail"])
    others = [as_object(one["entry"])[name] for one in log.entries]
    found[name] = log.random.choice([one for one in others if one != found[name]] or ["somebody"])
    row["entry"] = audit.canonical(found)


def edit_length(log: Log) -> None:
    row = log.entry()
    cut = log.random.randrange(len(row["entry"]))
    row["entry"] = log.random.choice([row["entry"][:cut], row["entry"] + " ", ""])


def edit_digest(log: Log) -> None:
    row = log.entry()
    row["digest"] = log.random.choice([flipped(row["digest"], log.random), row["digest"][:-1], b""])


def edit_entry_and_its_digest(log: Log) -> None:
    at = log.random.randrange(len(log.entries))
    row = log.entries[at]
    row["entry"] = audit.canonical({**as_object(row["entry"]), "actor": "nobody"})
    row["digest"] = audit.chained(log.entries[at - 1]["digest"] if at else b"", row["entry"])


def edit_head(log: Log) -> None:
    name = log.random.choice(["seq", "digest"])
    if name == "digest":
        log.head["digest"] = log.random.choice([flipped(log.head["digest"], log.random), b"", log.entry()["digest"]])
    else:
        log.head["seq"] = log.random.choice([0, log.head["seq"] - 1, log.head["seq"] + 1, -5, 2**40])


def delete_one(log: Log) -> None:
    log.entries.remove(log.entry())


def delete_range(log: Log) -> None:
    start = log.random.randrange(len(log.entries))
    del log.entries[start : start + log.random.randrange(2, 50)]


def delete_and_renumber(log: Log) -> None:
    log.entries.remove(log.entry())
    for seq, row in enumerate(log.entries, 1):
        row["seq"] = seq
    log.head["seq"] = len(log.entries)


def cut_end(log: Log) -> None:
    del log.entries[log.random.randrange(len(log.entries)) :]


def cut_end_with_head(log: Log) -> None:
    cut_end(log)
    last = log.entries[-1] if log.entries else {"seq": 0, "digest": b""}
    log.head.update(seq=last["seq"], digest=last["digest"])


def cut_beginning(log: Log) -> None:
    del log.entries[: log.random.randrange(1, len(log.entries))]


def swap(log: Log) -> None:
    one, other = log.random.sample(log.entries, 2)
    one["seq"], other["seq"] = other["seq"], one["seq"]


def swap_texts(log: Log) -> None:
    one, other = log.random.sample(log.entries, 2)
    one["entry"], other["entry"] = other["entry"], one["entry"]


def shuffle(log: Log) -> None:
    start = log.random.randrange(len(log.entries) - 2)
    part = log.entries[start : start + log.random.randrange(3, 20)]
    numbers = [row["seq"] for row in part]
    log.random.shuffle(numbers)
    for row, seq in zip(part, numbers, strict=True):
        row["seq"] = seq


def renumber(log: Log) -> None:
    start, by = log.random.randrange(len(log.entries)), log.random.randrange(1, 100)
    for row in log.entries[start:]:
        row["seq"] += by


def insert(log: Log) -> None:
    new = dict(log.entry())
    new["seq"] = log.random.choice([0, -log.random.randrange(1, 9), len(log.entries) + log.random.randrange(1, 9)])
    log.entries.append(new)


def insert_and_renumber(log: Log) -> None:
    at = log.random.randrange(len(log.entries) + 1)
    log.entries.insert(at, dict(log.entry()))
    for seq, row in enumerate(log.entries, 1):
        row["seq"] = seq
    log.head["seq"] = len(log.entries)


def insert_at_end_with_head(log: Log) -> None:
    log.entries.append(dict(log.entry()))
    log.recompute(len(log.entries) - 1)
    if log.random.random() < 0.5:  # after the last signed entry only the chain tells: so break it
        log.head["digest"] = flipped(log.head["digest"], log.random)
    else:
        log.entries[-1]["digest"] = flipped(log.entries[-1]["digest"], log.random)


def recompute_edited(log: Log) -> None:
    at = log.random.randrange(len(log.entries))
    row = log.entries[at]
    row["entry"] = audit.canonical({**as_object(row["entry"]), "actor": "nobody"})
    log.recompute(at)


def recompute_without_one(log: Log) -> None:
    at = log.random.randrange(len(log.entries))
    del log.entries[at]
    log.recompute(at)


def recompute_with_one_more(log: Log) -> None:
    at = log.random.randrange(len(log.entries))
    log.entries.insert(at, dict(log.entry()))
    log.recompute(at)


def recompute_swapped(log: Log) -> None:
    at, other = sorted(log.random.sample(range(len(log.entries)), 2))
    log.entries[at], log.entries[other] = log.entries[other], log.entries[at]
    log.recompute(at)


def recompute_and_drop_checkpoints(log: Log) -> None:
    """The checkpoints that no longer agree are taken out; their entries stay."""
    at = log.random.randrange(log.checkpoints[-1]["seq"] - 1)
    log.entries[at]["entry"] = audit.canonical({**as_object(log.entries[at]["entry"]), "actor": "nobody"})
    log.recompute(at)
    log.checkpoints = [one for one in log.checkpoints if one["seq"] <= at]


def recompute_and_sign_with_another_key(log: Log) -> None:
    at = log.random.randrange(len(log.entries))
    log.entries[at]["entry"] = audit.canonical({**as_object(log.entries[at]["entry"]), "actor": "nobody"})
    log.recompute(at)
    other, link = SigningKey(Ed25519PrivateKey.generate()), b""
    for one in log.checkpoints:
        key_id = one["key_id"]
        made = other.sign(one["seq"], log.entries[one["seq"] - 1]["digest"], one["at"], link)
        link = made.link
        kept = log.random.random() < 0.5
        one.update(digest=made.digest, previous=made.previous, signature=made.signature)
        one["key_id"] = key_id if kept else made.key_id


def edit_checkpoint(log: Log) -> None:
    row = log.any_checkpoint()
    name = log.random.choice(["seq", "digest", "at", "key_id", "previous", "signature"])
    if name == "at":
        row["at"] += timedelta(microseconds=log.random.choice([1, -1, 10**6, 10**12]))
    elif name == "seq":
        row["seq"] += log.random.choice([-1, 1, 3, 10**6])
    elif name == "key_id":
        row["key_id"] = log.random.choice([row["key_id"][:-1], "0" * 16, ""])
    else:
        row[name] = flipped(row[name], log.random) if row[name] else b"\0"


def delete_checkpoint(log: Log) -> None:
    log.checkpoints.remove(log.any_checkpoint())


def delete_last_checkpoints(log: Log) -> None:
    del log.checkpoints[log.random.randrange(len(log.checkpoints)) :]


def swap_signatures(log: Log) -> None:
    one, other = log.random.sample(log.checkpoints, 2)
    one["signature"], other["signature"] = other["signature"], one["signature"]


def insert_checkpoint(log: Log) -> None:
    at = log.random.choice([one["seq"] for one in log.entries if one["seq"] not in _numbers(log.checkpoints)])
    new = {**log.any_checkpoint(), "seq": at, "digest": log.entries[at - 1]["digest"]}
    log.checkpoints.append(new)


# What only the exported checkpoint finds.


def go_back_to_a_checkpoint(log: Log) -> None:
    """The log as it once was, as a copy of the database had it."""
    seq = log.random.choice([0, *sorted(_numbers(log.checkpoints))[:-1]])
    del log.entries[seq:]
    log.checkpoints = [one for one in log.checkpoints if one["seq"] <= seq]
    log.head.update(seq=seq, digest=log.entries[-1]["digest"] if seq else b"")


def go_back_to_an_entry(log: Log) -> None:
    """As before, to where nothing was signed yet."""
    seq = log.random.randrange(log.checkpoints[-1]["seq"])
    del log.entries[seq:]
    log.checkpoints = [one for one in log.checkpoints if one["seq"] <= seq]
    log.head.update(seq=seq, digest=log.entries[-1]["digest"] if seq else b"")


def rewrite_since_a_checkpoint(log: Log) -> None:
    """Another end, made with care: later checkpoints go, with the entries that tell of them."""
    at = log.random.randrange(log.checkpoints[-1]["seq"] - 1)
    log.entries[at]["entry"] = audit.canonical({**as_object(log.entries[at]["entry"]), "actor": "nobody"})
    log.checkpoints = [one for one in log.checkpoints if one["seq"] <= at]
    signed = _numbers(log.checkpoints)
    log.entries = [
        row
        for row in log.entries
        if row["seq"] in signed or as_object(row["entry"])["action"] != "audit.checkpoint" or row["seq"] == at + 1
    ]
    if as_object(log.entries[at]["entry"])["action"] == "audit.checkpoint":
        log.entries[at]["entry"] = audit.canonical({**as_object(log.entries[at]["entry"]), "action": "case.claim"})
    log.recompute(at)


def replace_all(log: Log) -> None:
    """Another log in place of this one, without any checkpoint."""
    log.checkpoints = []
    log.entries = [row for row in log.entries if as_object(row["entry"])["action"] != "audit.checkpoint"]
    log.random.shuffle(log.entries)
    log.recompute()


def _numbers(rows: list[dict[str, Any]]) -> set[int]:
    return {row["seq"] for row in rows}


TAMPERS: tuple[Callable[[Log], None], ...] = (
    edit_character, edit_bit, edit_field, edit_length, edit_digest, edit_entry_and_its_digest, edit_head,
    delete_one, delete_range, delete_and_renumber, cut_end, cut_end_with_head, cut_beginning,
    swap, swap_texts, shuffle, renumber, insert, insert_and_renumber, insert_at_end_with_head,
    recompute_edited, recompute_without_one, recompute_with_one_more, recompute_swapped,
    recompute_and_drop_checkpoints, recompute_and_sign_with_another_key,
    edit_checkpoint, delete_checkpoint, delete_last_checkpoints, swap_signatures, insert_checkpoint,
)  # fmt: skip
"""What the log by itself shows, with the public key."""

ROLLBACKS: tuple[Callable[[Log], None], ...] = (
    go_back_to_a_checkpoint, go_back_to_an_entry, rewrite_since_a_checkpoint, replace_all,
)  # fmt: skip
"""What nothing in the database can show: only a checkpoint that was kept elsewhere does."""


class Bench:
    """A ledger with a signed log to tamper with, again and again."""

    def __init__(self, database: Database, settings: Settings, key: PublicKey, *, entries: int, seed: int) -> None:
        self.database = database
        self.key = key
        self.random = random.Random(seed)
        make_log(database, settings, entries, self.random)
        with database.reading() as connection:
            self.rows = {
                table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))] for table in TABLES
            }
            checkpoints = [one for one in load_checkpoints(connection) if isinstance(one, Checkpoint)]
        self.exported = checkpoints[-1:]

    def tampered(self, tamper: Callable[[Log], None]) -> Log:
        """Tamper with the log until something is other than before, and put it into the database."""
        while True:
            entries, head, checkpoints = (
                [dict(row) for row in self.rows[table.name]] for table in (TABLES[0], TABLES[1], TABLES[2])
            )
            log = Log(entries, head[0], checkpoints, self.random)
            tamper(log)
            if [log.entries, [log.head], log.checkpoints] != [self.rows[table.name] for table in TABLES]:
                break
        self.put(log)
        return log

    def put(self, log: Log) -> None:
        with self.database.changing() as connection:
            for table, rows in zip(TABLES, (log.entries, [log.head], log.checkpoints), strict=True):
                connection.execute(sa.delete(table))
                if rows:
                    connection.execute(sa.insert(table), rows)

    def verify(self, *, exported: bool) -> AuditReport:
        return verify(self.database, public_keys=[self.key], checkpoints=self.exported if exported else ())


def make_log(database: Database, settings: Settings, entries: int, chance: random.Random) -> None:
    """A log of that many entries or a few more, with a checkpoint after every 10 to 30, and at its end."""
    checkpointer = Checkpointer(database, settings)
    made = 0
    while made < entries:
        with database.writing() as connection:
            for _ in range(chance.randrange(10, 30)):
                actor = chance.choice(["guard", "outbox", "anna", "björn"])
                action = chance.choice(["decision.record", "case.claim", "case.decide", "evidence.preview"])
                audit.append(connection, actor, action, f"case:{chance.randrange(99)}", round=chance.randrange(3))
                made += 1
        checkpointer.run()


@contextmanager
def opened(kind: str) -> Iterator[tuple[Database, Settings, PublicKey]]:
    """An empty ledger of that kind, with a signing key."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        key = write_signing_key(path / "audit.key")
        ledger: dict[str, Any] = {"path": path / "ledger", "signing_key_file": path / "audit.key"}
        with running_postgres() if kind == "postgresql" else nullcontext() as url:
            if url is not None:
                ledger["url"] = url
            settings = Settings.load(ledger=ledger)
            database = open_database(settings, create=True)
            try:
                yield database, settings, key.public
            finally:
                database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tampers", type=int, default=10_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--entries", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    done: Counter[str] = Counter()
    by_itself: Counter[str] = Counter()
    by_export: Counter[str] = Counter()
    with opened(options.database) as (database, settings, key):
        bench = Bench(database, settings, key, entries=options.entries, seed=options.seed)
        assert bench.verify(exported=True).ok
        every = (*TAMPERS, *ROLLBACKS)
        for number in range(options.tampers):
            tamper = every[number % len(every)]
            bench.tampered(tamper)
            name = tamper.__name__
            done[name] += 1
            if not bench.verify(exported=False).ok:
                by_itself[name] += 1
            elif not bench.verify(exported=True).ok:
                by_export[name] += 1
    missed = sum(done.values()) - sum(by_itself.values()) - sum(by_export.values())
    width = max(map(len, done))
    print(f"{'tamper':{width}}  {'done':>6}  {'found by the log':>16}  {'by the export':>13}  {'missed':>6}")
    for name in [*done, "all"]:
        counts = [sum(c.values()) if name == "all" else c[name] for c in (done, by_itself, by_export)]
        print(f"{name:{width}}  {counts[0]:6}  {counts[1]:16}  {counts[2]:13}  {counts[0] - counts[1] - counts[2]:6}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
