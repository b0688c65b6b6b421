"""Suites that a plugin's signal types, list readers, actions and matchers must pass; the built-in ones pass them too.

Subclass one in a test module, name the class ``Test...``, and let ``make`` give a fresh object::

    class TestBlockMean(PixelSignalConformance):
        def make(self) -> BlockMean:
            return BlockMean()

This needs pytest, numpy and Pillow.
"""

from uploadguard.testing.conformance.actions import ActionConformance
from uploadguard.testing.conformance.digests import DigestSignalConformance
from uploadguard.testing.conformance.matchers import MatcherConformance, RemoteMatcherConformance
from uploadguard.testing.conformance.pixels import PixelSignalConformance
from uploadguard.testing.conformance.readers import ListReaderConformance, SampleEntry
from uploadguard.testing.conformance.signals import SignalTypeConformance

__all__ = [
    "ActionConformance",
    "DigestSignalConformance",
    "ListReaderConformance",
    "MatcherConformance",
    "PixelSignalConformance",
    "RemoteMatcherConformance",
    "SampleEntry",
    "SignalTypeConformance",
]
