"""The hash set: all active lists compiled for look-up, as immutable segments and numbered generations.
Knows nothing of pictures.
"""

from uploadguard.hashset.changes import Compilation, ListUpdate
from uploadguard.hashset.compaction import Compaction
from uploadguard.hashset.generation import Generation
from uploadguard.hashset.inspection import BucketSkew, HashSetStats, ListStats, SegmentProblem, Verification
from uploadguard.hashset.metadata import ListInfo
from uploadguard.hashset.rollback import ListRollback
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import build_segment
from uploadguard.hashset.staging import Candidate, StagedChange
from uploadguard.hashset.store import HashSet

__all__ = [
    "BucketSkew",
    "Candidate",
    "Compaction",
    "Compilation",
    "Generation",
    "HashSet",
    "HashSetStats",
    "ListInfo",
    "ListRollback",
    "ListStats",
    "ListUpdate",
    "Segment",
    "SegmentProblem",
    "StagedChange",
    "Verification",
    "build_segment",
]
