"""The life of cases, in any order of events, held against a model that is small enough to be read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.ledger.test_cases import PLAN, new_case
from uploadguard.config import Settings
from uploadguard.errors import CaseStateError, NotPermittedError
from uploadguard.ledger.case_views import Outcome
from uploadguard.ledger.cases import Cases
from uploadguard.ledger.database import open_database
from uploadguard.ledger.people import Person, Role

PEOPLE = {
    name: Person(name, frozenset({Role.REVIEW, Role.LEAD} if name.startswith("lead") else {Role.REVIEW}))
    for name in ("ann", "bob", "lead-1", "lead-2")
}
STATUS = {"confirm": "confirmed", "dismiss": "dismissed"}


@dataclass
class Model:
    """A case as it should be. ``tasks`` counts the live ones by occasion: those that were not taken back."""

    status: str = "open"
    claimed: str | None = None
    proposal: tuple[str, str] | None = None
    escalated: bool = False
    round: int = 1
    uploads: int = 1
    tasks: dict[str, int] = field(default_factory=dict)

    def open(self, *, escalated: bool = False) -> None:
        self.status, self.claimed, self.proposal, self.escalated, self.tasks = "open", None, None, escalated, {}


class CaseMachine(RuleBasedStateMachine):
    """One case, four people; more uploads come while it is open."""

    @initialize(two_person=st.sampled_from(["none", "confirm", "dismiss", "all"]))
    def begin(self, two_person: str) -> None:
        self.directory = tempfile.TemporaryDirectory()
        loaded = Settings.load(ledger={"path": Path(self.directory.name) / "ledger"})
        self.database = open_database(loaded, create=True)
        self.needs_two = {"none": (), "all": ("confirm", "dismiss")}.get(two_person, (two_person,))
        self.cases = Cases(self.database, PLAN, two_person=two_person)
        self.case_id = new_case(self.database)
        self.model = Model()

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.directory.cleanup()

    def attempt(self, allowed: bool, act: Callable[[], object]) -> bool:
        """Whether it was done; it must be so exactly if it is allowed."""
        try:
            act()
        except (CaseStateError, NotPermittedError):
            assert not allowed
        else:
            assert allowed
        return allowed

    def may_touch(self, person: Person) -> bool:
        undecided = self.model.status in ("open", "proposed")
        return undecided and (self.model.claimed in (None, person.name) or person.may(Role.LEAD))

    @rule()
    def upload(self) -> None:
        joined = new_case(self.database) == self.case_id
        assert joined == (self.model.status == "open")
        self.model.uploads += joined

    @rule(name=st.sampled_from([*PEOPLE]))
    def claim(self, name: str) -> None:
        undecided = self.model.status in ("open", "proposed")
        allowed = undecided and self.model.claimed in (None, name)
        if self.attempt(allowed, lambda: self.cases.claim(self.case_id, PEOPLE[name])):
            self.model.claimed = name

    @rule(name=st.sampled_from([*PEOPLE]))
    def unclaim(self, name: str) -> None:
        allowed = self.model.claimed in (None, name) or PEOPLE[name].may(Role.LEAD)
        if self.attempt(allowed, lambda: self.cases.unclaim(self.case_id, PEOPLE[name])):
            self.model.claimed = None

    @rule(name=st.sampled_from([*PEOPLE]), outcome=st.sampled_from(["confirm", "dismiss"]))
    def decide(self, name: str, outcome: Outcome) -> None:
        model, person = self.model, PEOPLE[name]
        proposed = model.proposal[0] if model.proposal else None
        two = outcome in self.needs_two or proposed in self.needs_two
        allowed = self.may_touch(person) and (not model.escalated or person.may(Role.LEAD))
        allowed = allowed and not (two and model.proposal is not None and model.proposal[1] == name)
        if not self.attempt(allowed, lambda: self.cases.decide([self.case_id], outcome, person)):
            return
        if two and model.proposal is None:
            model.open()
            model.status, model.proposal = "proposed", (outcome, name)
        elif two and proposed != outcome:
            model.open(escalated=True)
        else:
            model.open()
            model.status = STATUS[outcome]
            occasions = ("report", "delete") if outcome == "confirm" else ("release",)
            model.tasks = dict.fromkeys(occasions, model.uploads)

    @rule(name=st.sampled_from([*PEOPLE]))
    def escalate(self, name: str) -> None:
        allowed = self.may_touch(PEOPLE[name]) and not self.model.escalated
        if self.attempt(allowed, lambda: self.cases.escalate(self.case_id, PEOPLE[name], "why")):
            self.model.open(escalated=True)

    @rule(name=st.sampled_from([*PEOPLE]))
    def requeue(self, name: str) -> None:
        model, lead = self.model, PEOPLE[name].may(Role.LEAD)
        own = model.proposal is not None and model.proposal[1] == name
        allowed = (own or lead) if model.status == "proposed" else lead and (model.status != "open" or model.escalated)
        if self.attempt(allowed, lambda: self.cases.requeue(self.case_id, PEOPLE[name], "why")):
            model.round += model.status in STATUS.values()
            model.open()

    @invariant()
    def the_case_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        detail, model = self.cases.show(self.case_id), self.model
        case = detail.case
        proposal = (case.proposed, case.proposed_by) if case.proposed is not None else None
        found = (case.status, case.claimed_by, proposal, case.escalated, case.round, case.uploads)
        assert found == (
            *(model.status, model.claimed, model.proposal, model.escalated),
            *(model.round, model.uploads),
        )
        assert (case.decided_by is not None) == (model.status in STATUS.values())
        live = [task.occasion.value for task in detail.tasks if not task.cancelled]
        assert {occasion: live.count(occasion) for occasion in live} == model.tasks


TestCaseMachine = CaseMachine.TestCase
TestCaseMachine.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
