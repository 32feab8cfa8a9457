"""Users whose tile and tone can be told from all others': a colour that breathes, and a sine."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from playwright.sync_api import Error, Page

from tests.browser.users import connect

__all__ = ["COLOURS", "TINY", "TONES", "Performer"]

#: Hues, in degrees, and frequencies, in Hz, of up to five users: none is a harmonic of another.
COLOURS: Final = (0, 120, 240, 60, 300)
TONES: Final = (440, 620, 870, 1230, 1750)
#: A screen's hue; no user has it.
SCREEN_COLOUR: Final = 180

SMALL: Final = {"width": 320, "height": 240, "frameRate": 15}
TINY: Final = {"width": 160, "height": 120, "frameRate": 10}

# Instead of camera and screen: the whole picture in one hue, lighter and darker once a second. The RTP senders are
# kept for tests that change what is sent behind the signalling's back.
_DRESS = """(hues) => {
  const stage = (window.stage = { canvases: {}, senders: [] });
  const perform = (source, { width = 320, height = 240, frameRate = 15 }) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    let frame = 0;
    const draw = () => {
      const phase = (frame++ / frameRate) % 1;
      context.fillStyle = `hsl(${hues[source]} 100% ${30 + 40 * Math.abs(1 - 2 * phase)}%)`;
      context.fillRect(0, 0, canvas.width, canvas.height);
    };
    draw();
    const stream = canvas.captureStream(frameRate);
    const [track] = stream.getTracks();
    const timer = setInterval(() => (track.readyState === "ended" ? clearInterval(timer) : draw()), 1000 / frameRate);
    stage.canvases[source] = canvas;
    return stream;
  };
  navigator.mediaDevices.getUserMedia = async ({ video }) => perform("camera", video);
  navigator.mediaDevices.getDisplayMedia = async () => perform("screen", { width: 480, height: 270 });
  const { addTransceiver } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTransceiver = function (...options) {
    const transceiver = addTransceiver.apply(this, options);
    stage.senders.push(transceiver.sender);
    return transceiver;
  };
}"""


class Performer:
    """One user on ``page``; ``part`` says which colour and tone."""

    def __init__(self, page: Page, part: int = 0) -> None:
        self.page: Final = page
        self.hue: Final = COLOURS[part]
        self.frequency: Final = TONES[part]
        self.user: Final = connect(page)
        self.audio = ""
        self.video = ""
        self.performed_at = 0.0
        """Unix time at which the second of audio and video was asked for."""
        page.evaluate(_DRESS, {"camera": self.hue, "screen": SCREEN_COLOUR})

    def call(self, method: str, *arguments: Any) -> Any:
        """See :meth:`tests.browser.users.User.call`."""
        return self.user.call(method, *arguments)

    def join(self, room: str | None = None) -> str:
        """Join ``room``, or make one, without producing yet; returns the room's id."""
        return self.user.join(room, audio=False, video=None)

    def perform(self, codec: str = "VP8", size: Mapping[str, int] = SMALL, **options: Any) -> None:
        """Produce audio, then video: with that, the user is to be streamed."""
        audio = {"kind": "audio", "capture": "tone", "frequency": self.frequency, **options}
        self.audio = self.call("produce", audio)["id"]
        self.performed_at = time.time()
        self.video = self.call("produce", {"kind": "video", "codec": codec, **size, **options})["id"]

    def share_screen(self) -> str:
        """Produce a screen beside the camera; returns the producer's id."""
        return str(
            self.call("produce", {"kind": "video", "codec": "VP8", "capture": "screen", "source": "screen"})["id"]
        )

    def turn(self, width: int, height: int) -> None:
        """The camera's picture has another size from now on."""
        self.page.evaluate("(size) => Object.assign(stage.canvases.camera, size)", {"width": width, "height": height})

    def scale_down(self, factor: float) -> None:
        """As an encoder does where there is little bandwidth."""
        self.page.evaluate(
            """async (factor) => {
              const sender = stage.senders.find(({ track }) => track?.kind === "video");
              const parameters = sender.getParameters();
              parameters.encodings[0].scaleResolutionDownBy = factor;
              await sender.setParameters(parameters);
            }""",
            factor,
        )

    def enable_tracks(self, enabled: bool) -> None:
        """Mute or unmute as pages do that tell nobody: black pictures and silence are sent."""
        self.page.evaluate(
            "(enabled) => { for (const { track } of stage.senders) if (track) track.enabled = enabled; }", enabled
        )

    def crash(self) -> None:
        """The page's process ends, without a word to anybody."""
        with self.page.expect_event("crash"), suppress(Error):
            self.page.goto("chrome://crash")
