"""One who watches a room's live stream: what its tiles show, and whether it ever stops."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from playwright.sync_api import Page, expect

from trio_sfu.hls.layout import tiles

__all__ = ["SCALE", "Look", "Point", "Viewer", "centres"]

#: A colour that differs by less than this, of 255 each, may be the encoder's doing.
_NOISE: Final = 6
#: Points are pixels of a picture of this size.
SCALE: Final = (160, 90)

# Of each picture that is shown: when, in milliseconds of Unix time, and the colours at some points.
_RECORD = """([width, height]) => {
  const video = document.querySelector("video");
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  window.seen = { pictures: [], points: [] };
  const look = () => {
    video.requestVideoFrameCallback(look);
    context.drawImage(video, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    const colours = seen.points.map(([x, y]) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)]);
    seen.pictures.push([performance.timeOrigin + performance.now(), colours]);
  };
  video.requestVideoFrameCallback(look);
}"""

_COMES = """([points, wanted, since]) => {
  seen.points = points;
  const last = seen.pictures.at(-1);
  return last && last[0] > since && last[1].length === points.length && wanted.every((hue, index) => {
    const [red, green, blue] = last[1][index];
    const most = Math.max(red, green, blue), range = most - Math.min(red, green, blue);
    if (hue === null) return range < 40; // a card, a bar, a black picture
    if (range < 60) return false;
    const [from, high, low] = { [blue]: [240, red, green], [green]: [120, blue, red], [red]: [0, green, blue] }[most];
    const off = Math.abs(from + (60 * (high - low)) / range - hue + 360) % 360;
    return Math.min(off, 360 - off) < 20;
  });
}"""

# Decibels of a sine at half of full scale are about -12, with the window's loss; next to nothing else is above -40.
_LISTEN = """async ([wanted, milliseconds]) => {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(document.querySelector("video").captureStream()).connect(analyser);
  const spectrum = new Float32Array(analyser.frequencyBinCount);
  const deadline = performance.now() + milliseconds;
  const level = (tone) => spectrum[Math.round((tone * analyser.fftSize) / context.sampleRate)];
  let heard, settled = 0;
  while (settled < 3 && performance.now() < deadline) {
    await new Promise((done) => setTimeout(done, 100));
    analyser.getFloatFrequencyData(spectrum);
    heard = wanted.filter(([tone]) => level(tone) > -40).map(([tone]) => tone);
    settled = wanted.every(([tone, is]) => heard.includes(tone) === is) ? settled + 1 : 0;
  }
  await context.close();
  return heard;
}"""

Colour = tuple[int, int, int]
Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """What was shown at one point: times in seconds since the look began, and colours."""

    seconds: float
    pictures: tuple[tuple[float, Colour], ...]

    @property
    def longest_still(self) -> float:
        """The longest time without a change, in seconds."""
        changes, before = [0.0], None
        for time, colour in self.pictures:
            if before is None or max(abs(one - other) for one, other in zip(colour, before, strict=True)) > _NOISE:
                changes.append(time)
                before = colour
        changes.append(self.seconds)
        return max(after - before for before, after in pairwise(changes))

    @property
    def hues(self) -> set[int | None]:
        """All that were shown, in steps of 60 degrees; None: a grey."""
        return {_hue(colour) for _, colour in self.pictures}


def _hue(colour: Colour) -> int | None:
    if max(colour) - min(colour) < 40:
        return None
    hue, _, _ = colorsys.rgb_to_hsv(*colour)
    return round(hue * 6) % 6 * 60


def centres(count: int) -> list[Point]:
    """The middle of each tile of ``count``."""
    return [(tile.x + tile.width // 2, tile.y + tile.height // 2) for tile in tiles(count, *SCALE)]


class Viewer:
    """A person before ``/watch/<room>``, on a page that is never loaded anew."""

    def __init__(self, page: Page) -> None:
        self.page: Final = page
        page.evaluate("() => { window.loadedOnce = true; }")
        page.evaluate(_RECORD, SCALE)

    @property
    def was_never_reloaded(self) -> bool:
        return bool(self.page.evaluate("() => window.loadedOnce === true"))

    @property
    def first_picture_at(self) -> float:
        """Unix time."""
        return float(self.page.evaluate("() => seen.pictures[0][0]")) / 1000

    def is_in_state(self, state: str, seconds: float = 20) -> None:
        """Wait until the page says so."""
        expect(self.page.get_by_test_id("state")).to_have_attribute("data-state", state, timeout=seconds * 1000)

    def sees(self, *hues: int | None, seconds: float = 20) -> float:
        """Wait until just these tiles are there, with these colours (None: a grey); returns when (Unix time)."""
        wanted: dict[Point, int | None] = {}
        for hue, tile in zip(hues, tiles(len(hues), *SCALE), strict=True):
            # In the middle there could as well be the seam of two others.
            for x in (tile.x + tile.width // 4, tile.x + 3 * tile.width // 4):
                wanted[x, tile.y + tile.height // 2] = hue
        return self.sees_at(wanted, seconds)

    def sees_at(self, hues: Mapping[Point, int | None], seconds: float = 20) -> float:
        """As :meth:`sees`, at any points."""
        since = self.page.evaluate("() => seen.pictures.at(-1)?.[0] ?? 0")
        self.page.wait_for_function(_COMES, arg=[list(hues), list(hues.values()), since], timeout=seconds * 1000)
        return float(self.page.evaluate("() => seen.pictures.at(-1)[0]")) / 1000

    def hears(self, *tones: int, among: Sequence[int], seconds: float = 20) -> None:
        """Wait until of all tones just these are to be heard."""
        wanted = [[tone, tone in tones] for tone in among]
        heard = self.page.evaluate(_LISTEN, [wanted, seconds * 1000])
        assert heard == list(tones)

    def watch(self, seconds: float, *points: Point) -> list[Look]:
        """What is shown at these points for so long."""
        begin, end, pictures = self.page.evaluate(
            """async ([points, milliseconds]) => {
              seen.points = points;
              const clock = () => performance.timeOrigin + performance.now();
              const begin = clock();
              await new Promise((done) => setTimeout(done, milliseconds));
              const fits = ([time, colours]) => time >= begin && colours.length === points.length;
              return [begin, clock(), seen.pictures.filter(fits)];
            }""",
            [points, seconds * 1000],
        )
        return [
            Look(
                (end - begin) / 1000,
                tuple(((time - begin) / 1000, tuple(colours[index])) for time, colours in pictures),
            )
            for index in range(len(points))
        ]

    def watch_tiles(self, count: int, seconds: float) -> list[Look]:
        """What is shown in the middle of each tile of ``count``."""
        return self.watch(seconds, *centres(count))

    @property
    def longest_stall(self) -> float:
        """The longest time between two pictures so far, and from the last one until now, in seconds."""
        times: Sequence[float] = self.page.evaluate(
            "() => [...seen.pictures.map(([time]) => time), performance.timeOrigin + performance.now()]"
        )
        return max(after - before for before, after in pairwise(times)) / 1000
