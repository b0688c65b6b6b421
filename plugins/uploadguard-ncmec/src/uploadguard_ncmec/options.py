"""The options in a table ``[actions.NAME]`` of the kind ``ncmec``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from uploadguard.config_types import Flag, Section
from uploadguard.destinations.http import check_base_url
from uploadguard.destinations.options import DestinationOptions, EnvName, SecretFile
from uploadguard_ncmec.schema import IncidentType
from uploadguard_ncmec.values import is_email

__all__ = ["BASE_URLS", "Contact", "NcmecOptions"]

BASE_URLS = {
    "test": "https://exttest.cybertip.org/ispws",
    "production": "https://report.cybertip.org/ispws",
}


def _email(text: str) -> str:
    if not is_email(text):
        raise ValueError("is not an email address")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]


class Contact(Section):
    """A person at the reporting company."""

    email: Annotated[str, AfterValidator(_email)]
    first_name: Text | None = None
    last_name: Text | None = None
    phone: Text | None = None


class NcmecOptions(DestinationOptions):
    """See the plugin's README, which describes each of them."""

    kind: Literal["ncmec"]
    occasions: Annotated[tuple[Literal["report"], ...], Field(min_length=1, max_length=1)] = ("report",)
    environment: Literal["test", "production"] = "test"
    base_url: Annotated[str, AfterValidator(check_base_url)] | None = None
    username: Annotated[Text, Field(pattern="^[^:]+$", repr=False)]
    password_env: EnvName | None = None
    password_file: SecretFile | None = None
    reporter: Contact = Field(repr=False)
    contact: Contact | None = Field(default=None, repr=False)
    company_template: Text | None = None
    terms_of_service: Text | None = None
    legal_url: Text | None = None
    incident_type: IncidentType = "Child Pornography (possession, manufacture, and distribution)"
    platform: Text | None = None
    service: Text | None = None
    additional_info: Text | None = None
    classify: Flag = False
    name_lists: Flag = False
    exif_viewed: Flag | None = None
    publicly_available: Flag | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password_env is None) == (self.password_file is None):
            raise ValueError("needs either password_env or password_file")
        return self

    @property
    def url(self) -> str:
        """Where the API is, without a slash at the end."""
        return self.base_url or BASE_URLS[self.environment]
