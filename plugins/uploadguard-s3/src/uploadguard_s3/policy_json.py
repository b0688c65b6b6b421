"""The bucket policy that makes a forgotten or lost check harmless: what has no verdict ``allow`` cannot be read.

It only denies, so it goes beside whatever allows access. The tags that it looks at are the checker's alone to set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from uploadguard_s3.effects import VERDICT_TAG

__all__ = ["Service", "bucket_policy"]

_PUT = ("s3:PutObject",)
_READ = ("s3:GetObject", "s3:GetObjectVersion")
_TAG = (
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
)


Service: TypeAlias = Literal["aws", "seaweedfs"]
"""Whose policy language: SeaweedFS knows requesters by ``aws:username``, and tags of a request by their header."""


def bucket_policy(
    bucket: str,
    checkers: Sequence[str],
    *,
    prefix: str = "",
    verdicts: Sequence[str] = ("allow",),
    service: Service = "aws",
    partition: str = "aws",
) -> Mapping[str, Any]:
    """The policy as JSON types.

    ``checkers`` are the roles and users that check: ARNs, or names for SeaweedFS; ``*`` is a wildcard in them. Objects
    whose keys begin with ``prefix`` can be read by others if their verdict is one of ``verdicts``. Raises
    ``ValueError`` where there is no checker, so that nothing could be checked, or one that is everybody, or nobody.
    """
    if not checkers:
        raise ValueError("a policy needs at least one checker")
    if any(not checker.strip("*?:") for checker in checkers):
        raise ValueError("a checker of wildcards alone would be everybody")
    if service == "aws" and not all(checker.startswith("arn:") for checker in checkers):
        raise ValueError("a checker on AWS is an ARN; this policy would keep everybody out, the checker too")
    objects = f"arn:{partition}:s3:::{bucket}/{prefix}*"
    if service == "aws":
        others = {"ArnNotLike": {"aws:PrincipalArn": list(checkers)}}
        brings = f"s3:RequestObjectTag/{VERDICT_TAG}"
    else:
        others = {"StringNotLike": {"aws:username": list(checkers)}}
        brings = "s3:x-amz-tagging"
    unchecked = {"StringNotEquals": {f"s3:ExistingObjectTag/{VERDICT_TAG}": list(verdicts)}}
    # Conditions with "Not" hold where their key is missing: for untagged objects, and for requests without a signature.
    return {
        "Version": "2012-10-17",
        "Statement": [
            _deny("UncheckedIsUnreadable", _READ, objects, {**others, **unchecked}),
            _deny("TagsAreTheCheckers", _TAG, objects, others),
            _deny("NoUploadBringsItsVerdict", _PUT, objects, {**others, "Null": {brings: "false"}}),
        ],
    }


def _deny(name: str, actions: Sequence[str], objects: str, conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "Sid": name,
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(actions),
        "Resource": objects,
        "Condition": dict(conditions),
    }
