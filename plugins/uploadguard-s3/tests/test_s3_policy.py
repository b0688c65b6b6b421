"""The policy of a bucket: by what AWS documents of conditions, and on a real server as far as that goes."""

from __future__ import annotations

import asyncio
import fnmatch
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
import pytest
from botocore.exceptions import ClientError
from s3_server import USERS, S3Server

from uploadguard_s3.policy_json import bucket_policy

CHECKER = "arn:aws:iam::123456789012:role/uploadguard"
ALLOWED = {"TagSet": [{"Key": "uploadguard-verdict", "Value": "allow"}]}


def holds(operator: str, wanted: Any, found: str | None) -> bool:
    """One condition by AWS's rules: those that say "not" hold where the key is missing."""
    values = wanted if isinstance(wanted, list) else [wanted]
    if operator == "Null":
        return (found is None) is (values == ["true"])
    matches = found is not None and any(
        fnmatch.fnmatchcase(found, value) if "Like" in operator else found == value for value in values
    )
    return bool(matches) != ("Not" in operator)


def denied(policy: Mapping[str, Any], action: str, key: str, **facts: str) -> bool:
    """Whether any statement denies the request. ``facts`` are condition keys, with ``_`` for ``:`` and ``/``."""
    known = {name.replace(":", "_").replace("/", "_").replace("-", "_"): name for name in KEYS}
    request = {known[name]: value for name, value in facts.items()}
    return any(
        action in statement["Action"]
        and fnmatch.fnmatchcase(f"arn:aws:s3:::{key}", statement["Resource"])
        and all(
            holds(operator, wanted, request.get(name))
            for operator, keys in statement["Condition"].items()
            for name, wanted in keys.items()
        )
        for statement in policy["Statement"]
    )


KEYS = ("aws:PrincipalArn", "s3:ExistingObjectTag/uploadguard-verdict", "s3:RequestObjectTag/uploadguard-verdict")
SOMEBODY = "arn:aws:iam::123456789012:role/web"


def test_what_is_not_allowed_can_be_read_by_the_checker_alone() -> None:
    policy = bucket_policy("uploads", [CHECKER])
    for action in ("s3:GetObject", "s3:GetObjectVersion"):
        for verdict in ("queue", "block", "not_scanned", "Allow", ""):
            tag = {"s3_ExistingObjectTag_uploadguard_verdict": verdict}
            assert denied(policy, action, "uploads/a", aws_PrincipalArn=SOMEBODY, **tag)
            assert denied(policy, action, "uploads/a", **tag)
            assert not denied(policy, action, "uploads/a", aws_PrincipalArn=CHECKER, **tag)
        assert denied(policy, action, "uploads/a", aws_PrincipalArn=SOMEBODY)
        assert denied(policy, action, "uploads/a")
        assert not denied(policy, action, "uploads/a", aws_PrincipalArn=CHECKER)


def test_what_is_allowed_can_be_read() -> None:
    policy = bucket_policy("uploads", [CHECKER])
    tag = {"s3_ExistingObjectTag_uploadguard_verdict": "allow"}
    assert not denied(policy, "s3:GetObject", "uploads/a", aws_PrincipalArn=SOMEBODY, **tag)
    assert not denied(policy, "s3:GetObject", "uploads/a", **tag)


def test_only_the_checker_tags() -> None:
    policy = bucket_policy("uploads", [CHECKER])
    for action in ("s3:PutObjectTagging", "s3:DeleteObjectTagging", "s3:PutObjectVersionTagging"):
        assert denied(policy, action, "uploads/a", aws_PrincipalArn=SOMEBODY)
        assert not denied(policy, action, "uploads/a", aws_PrincipalArn=CHECKER)
    tag = {"s3_RequestObjectTag_uploadguard_verdict": "allow"}
    assert denied(policy, "s3:PutObject", "uploads/a", aws_PrincipalArn=SOMEBODY, **tag)
    assert not denied(policy, "s3:PutObject", "uploads/a", aws_PrincipalArn=SOMEBODY)
    assert not denied(policy, "s3:PutObject", "uploads/a", aws_PrincipalArn=CHECKER, **tag)


def test_more_verdicts_a_prefix_and_several_checkers() -> None:
    policy = bucket_policy("uploads", [CHECKER, "arn:aws:iam::*:role/again"], prefix="in/", verdicts=("allow", "queue"))
    queued = {"s3_ExistingObjectTag_uploadguard_verdict": "queue"}
    assert not denied(policy, "s3:GetObject", "uploads/in/a", aws_PrincipalArn=SOMEBODY, **queued)
    assert denied(policy, "s3:GetObject", "uploads/in/a", aws_PrincipalArn=SOMEBODY)
    assert not denied(policy, "s3:GetObject", "uploads/out/a", aws_PrincipalArn=SOMEBODY)
    assert not denied(policy, "s3:GetObject", "uploads/in/a", aws_PrincipalArn="arn:aws:iam::1:role/again")


@pytest.mark.parametrize("checkers", [[], ["*"], [CHECKER, "**"], [""], ["*:*"]])
def test_a_policy_without_a_checker_or_with_everybody_as_one_is_refused(checkers: list[str]) -> None:
    with pytest.raises(ValueError, match="checker"):
        bucket_policy("uploads", checkers)


def test_on_a_real_server(s3_server: S3Server, bucket_name: Callable[[str], str]) -> None:
    """SeaweedFS looks at tags only after it judged "not" conditions, so what it keeps closed is more than is asked for:
    whether allowed objects can be read is not tested here."""
    bucket = bucket_name("policy")

    async def is_denied(request: Awaitable[Any]) -> bool:
        try:
            await request
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return True
        return False

    async def scenario() -> None:
        session = aioboto3.Session()
        async with AsyncExitStack() as stack:
            owner = await stack.enter_async_context(session.client("s3", **s3_server.client_options()))
            uploader, reader, checker = [
                await stack.enter_async_context(session.client("s3", **s3_server.client_options(user)))
                for user in USERS
            ]
            at = {"Bucket": bucket, "Key": "a"}
            await owner.create_bucket(Bucket=bucket)
            await uploader.put_object(**at, Body=b"x")
            assert not await is_denied(reader.get_object(**at))
            policy = bucket_policy(bucket, ["checker"], service="seaweedfs")
            await owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

            for somebody in (reader, uploader):
                assert await is_denied(somebody.get_object(**at))
                assert await is_denied(somebody.head_object(**at))
            assert not await is_denied(checker.get_object(**at))

            tagging = "uploadguard-verdict=allow"
            assert await is_denied(uploader.put_object_tagging(**at, Tagging=ALLOWED))
            assert await is_denied(uploader.delete_object_tagging(**at))
            assert await is_denied(uploader.put_object(**at, Body=b"y", Tagging=tagging))
            assert await is_denied(uploader.create_multipart_upload(**at, Tagging=tagging))
            copy = {"CopySource": at, "Tagging": tagging, "TaggingDirective": "REPLACE"}
            assert await is_denied(uploader.copy_object(Bucket=bucket, Key="b", **copy))
            assert not await is_denied(checker.put_object_tagging(**at, Tagging=ALLOWED))
            assert not await is_denied(uploader.put_object(**at, Body=b"y"))
            assert (await checker.get_object_tagging(**at))["TagSet"] == []
            assert await is_denied(reader.get_object(**at))

    asyncio.run(scenario())
