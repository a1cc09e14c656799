"""Streams: sequences that arrive piece by piece, and the memory that goes with them."""

from refrnn.streams.stream import Snapshot, Stream

__all__ = ["Snapshot", "Stream"]
