"""The hash set: all active lists compiled for look-up, as immutable segments and numbered generations.
Knows nothing of pictures.
"""

from uploadguard.hashset.compaction import Compaction
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.inspection import BucketSkew, HashSetStats, ListStats, SegmentProblem, Verification
from uploadguard.hashset.metadata import ListInfo
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import build_segment
from uploadguard.hashset.store import HashSet, ListUpdate

__all__ = [
    "BucketSkew",
    "Compaction",
    "Generation",
    "HashSet",
    "HashSetStats",
    "ListInfo",
    "ListStats",
    "ListUpdate",
    "Segment",
    "SegmentProblem",
    "Verification",
    "build_segment",
]
