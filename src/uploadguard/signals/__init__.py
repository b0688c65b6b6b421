"""The kinds of hash: digests of the original bytes, PDQ, and adapters for the imagehash package.

A kind of hash is a :class:`~uploadguard.signals.base.SignalType`; plugins bring their own.
"""
