"""A reader of media playlists, as a player has one, for tests. It knows nothing of how they are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)(?:,|$)')


def attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


@dataclass(frozen=True, slots=True)
class ListedPart:
    uri: str
    duration: float
    independent: bool


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """``uri`` and ``duration`` are None for a segment that has parts only so far."""

    msn: int
    discontinuity: int
    map_uri: str
    date: float
    parts: tuple[ListedPart, ...]
    uri: str | None
    duration: float | None


@dataclass(slots=True)
class ReadPlaylist:
    tags: dict[str, str] = field(default_factory=dict)
    media_sequence: int = 0
    skipped: int = 0
    segments: list[ListedSegment] = field(default_factory=list)
    hint: str | None = None
    ended: bool = False

    def uris(self) -> list[str]:
        """Everything that a player may fetch (the hinted part is not there yet)."""
        found = [segment.map_uri for segment in self.segments]
        found += [segment.uri for segment in self.segments if segment.uri is not None]
        return found + [part.uri for segment in self.segments for part in segment.parts]


def read_playlist(text: str, before: ReadPlaylist | None = None) -> ReadPlaylist:
    """``before``: the full playlist that a delta update is one of. Asserts what any playlist must be."""
    lines = text.splitlines()
    assert lines[0] == "#EXTM3U"
    assert text.endswith("\n")
    playlist = ReadPlaylist()
    map_uri, date, duration, parts = "", 0.0, None, list[ListedPart]()
    discontinuity = msn = 0
    for line in lines[1:]:
        name, _, value = line.removeprefix("#").partition(":")
        if not line.startswith("#"):
            assert duration is not None
            segment = ListedSegment(msn, discontinuity, map_uri, date, tuple(parts), line, duration)
            playlist.segments.append(segment)
            msn, duration, parts = msn + 1, None, []
        elif name == "EXT-X-MEDIA-SEQUENCE":
            playlist.media_sequence = msn = int(value)
        elif name == "EXT-X-DISCONTINUITY-SEQUENCE":
            discontinuity = int(value)
        elif name == "EXT-X-SKIP":
            assert before is not None
            playlist.skipped = int(attributes(value)["SKIPPED-SEGMENTS"])
            known = {segment.msn: segment for segment in before.segments if segment.uri is not None}
            playlist.segments = [known[number] for number in range(msn, msn + playlist.skipped)]
            msn += playlist.skipped
            # A discontinuity that is left out, like an init segment, is known from before.
            discontinuity, map_uri = playlist.segments[-1].discontinuity, playlist.segments[-1].map_uri
            playlist.segments = [replace(segment, parts=()) for segment in playlist.segments]
        elif name == "EXT-X-DISCONTINUITY":
            discontinuity += 1
        elif name == "EXT-X-MAP":
            map_uri = attributes(value)["URI"]
        elif name == "EXT-X-PROGRAM-DATE-TIME":
            date = datetime.fromisoformat(value).timestamp()
        elif name == "EXT-X-PART":
            read = attributes(value)
            parts.append(ListedPart(read["URI"], float(read["DURATION"]), read.get("INDEPENDENT") == "YES"))
        elif name == "EXTINF":
            duration = float(value.removesuffix(","))
        elif name == "EXT-X-PRELOAD-HINT":
            assert attributes(value)["TYPE"] == "PART"
            assert playlist.hint is None
            playlist.hint = attributes(value)["URI"]
        elif name == "EXT-X-ENDLIST":
            playlist.ended = True
        else:
            assert name not in playlist.tags
            playlist.tags[name] = value
    if parts:
        playlist.segments.append(ListedSegment(msn, discontinuity, map_uri, date, tuple(parts), None, None))
    return playlist
