"""What matchers of services over HTTP are made of: :class:`RemoteMatcher`, with its options, breaker and cache.

A plugin's matcher derives from it, says how a question looks and how an answer is read, and has the rest from here.
"""

from uploadguard.remote.breaker import CircuitBreaker, ServiceFailure
from uploadguard.remote.cache import AnswerCache
from uploadguard.remote.matcher import RemoteMatcher
from uploadguard.remote.options import RemoteOptions, read_remote_options

__all__ = [
    "AnswerCache",
    "CircuitBreaker",
    "RemoteMatcher",
    "RemoteOptions",
    "ServiceFailure",
    "read_remote_options",
]
