"""The hash set: all active lists compiled for look-up, as immutable segments and numbered generations.
Knows nothing of pictures.
"""

from uploadguard.hashset.generation import Generation
from uploadguard.hashset.metadata import ListInfo
from uploadguard.hashset.segment import Segment
from uploadguard.hashset.segment_writer import build_segment
from uploadguard.hashset.store import HashSet

__all__ = ["Generation", "HashSet", "ListInfo", "Segment", "build_segment"]
