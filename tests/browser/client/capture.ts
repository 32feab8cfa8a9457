// What the tests' client sends: fake devices, or pictures and tones made in the page.

export interface CaptureOptions {
  /**
   * `device`: getUserMedia (Chromium's fake devices). `canvas`: moving noise. `tone`: an oscillator. `screen`: getDisplayMedia.
   * `flash`, for both kinds: at every full second of one clock the dark picture is white, and 1 kHz sounds, for 100 ms.
   * `clock`: the time as a pattern of blocks.
   */
  capture?: "device" | "canvas" | "tone" | "flash" | "clock" | "screen";
  width?: number;
  height?: number;
  frameRate?: number;
  /** Canvas only, 0…1: the share of the picture that is fresh noise in every frame (how much there is to encode). */
  detail?: number;
  /** Tone only, Hz. */
  frequency?: number;
}

const FLASH_S = 0.1;
const CODE_COLUMNS = 24;
const CODE_ROWS = 2;

export async function capture(kind: "audio" | "video", options: CaptureOptions): Promise<MediaStreamTrack> {
  const { width = 1280, height = 720, frameRate = 30, detail = 0.3, frequency = 440 } = options;
  switch (options.capture ?? "device") {
    case "canvas":
      return canvas(width, height, frameRate, detail);
    case "tone":
      return tone(frequency);
    case "flash":
      return kind === "audio" ? beeps() : flashes(width, height, frameRate);
    case "clock":
      return timeCode(width, height, frameRate);
    case "screen":
      return first(await navigator.mediaDevices.getDisplayMedia({ video: { frameRate } }));
    default:
      if (kind === "audio") return first(await navigator.mediaDevices.getUserMedia({ audio: true }));
      return first(await navigator.mediaDevices.getUserMedia({ video: { width, height, frameRate } }));
  }
}

function first(stream: MediaStream): MediaStreamTrack {
  const track = stream.getTracks()[0];
  if (!track) throw new Error("the capture gave no track");
  return track;
}

/** A test picture whose frames all differ; stops drawing when its track is stopped. */
function canvas(width: number, height: number, frameRate: number, detail: number): MediaStreamTrack {
  const element = Object.assign(document.createElement("canvas"), { width, height });
  const context = element.getContext("2d");
  if (!context) throw new Error("no 2d canvas here");
  // Noise drawn once, twice the size, and shown at another offset each frame: cheap to draw, dear to encode.
  const noise = Object.assign(document.createElement("canvas"), { width: width * 2, height: height * 2 });
  const noiseContext = noise.getContext("2d");
  if (!noiseContext) throw new Error("no 2d canvas here");
  const pixels = noiseContext.createImageData(noise.width, noise.height);
  let seed = 1;
  for (let index = 0; index < pixels.data.length; index += 4) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const grey = seed >>> 24;
    pixels.data.set([grey, grey, grey, 255], index);
  }
  noiseContext.putImageData(pixels, 0, 0);
  let frame = 0;
  const draw = (): void => {
    context.fillStyle = `hsl(${(frame * 3) % 360} 60% 40%)`;
    context.fillRect(0, 0, width, height);
    const rows = Math.round(height * detail);
    context.drawImage(noise, (frame * 37) % width, (frame * 53) % height, width, rows, 0, height - rows, width, rows);
    context.fillStyle = "#fff";
    context.fillRect((frame * 8) % width, height / 8, width / 16, height / 4);
    frame++;
  };
  draw();
  const track = first(element.captureStream(frameRate));
  const timer = setInterval(() => (track.readyState === "ended" ? clearInterval(timer) : draw()), 1000 / frameRate);
  return track;
}

function tone(frequency: number): MediaStreamTrack {
  const context = new AudioContext();
  const oscillator = new OscillatorNode(context, { frequency });
  const out = context.createMediaStreamDestination();
  oscillator.connect(new GainNode(context, { gain: 0.5 })).connect(out);
  oscillator.start();
  void context.resume();
  return first(out.stream);
}

let beat: AudioContext | undefined;

/** The clock that flashes and beeps of this page share. */
function sharedClock(): AudioContext {
  beat ??= new AudioContext();
  void beat.resume();
  return beat;
}

/** A loop of one second that begins with the beep, begun at a full second: exact to the sample for ever. */
function beeps(): MediaStreamTrack {
  const context = sharedClock();
  const { sampleRate } = context;
  const buffer = new AudioBuffer({ length: sampleRate, sampleRate });
  const samples = buffer.getChannelData(0);
  for (let index = 0; index < FLASH_S * sampleRate; index++) samples[index] = 0.5 * Math.sin((2 * Math.PI * 1000 * index) / sampleRate);
  const source = new AudioBufferSourceNode(context, { buffer, loop: true });
  const out = context.createMediaStreamDestination();
  source.connect(out);
  source.start(Math.ceil(context.currentTime + 0.05));
  return first(out.stream);
}

/** Each frame is drawn when the clock comes to a multiple of its length: a flash's first one at the full second. */
function flashes(width: number, height: number, frameRate: number): MediaStreamTrack {
  const clock = sharedClock();
  const element = Object.assign(document.createElement("canvas"), { width, height });
  const context = element.getContext("2d");
  if (!context) throw new Error("no 2d canvas here");
  const track = first(element.captureStream());
  let frame = Math.ceil(clock.currentTime * frameRate);
  const draw = (): void => {
    if (track.readyState === "ended") return;
    context.fillStyle = (frame / frameRate) % 1 < FLASH_S - 0.001 ? "#fff" : "#000";
    context.fillRect(0, 0, width, height);
    frame = Math.max(frame + 1, Math.ceil(clock.currentTime * frameRate));
    setTimeout(draw, (frame / frameRate - clock.currentTime) * 1000);
  };
  draw();
  return track;
}

/**
 * Each frame says when it was drawn: `CODE_ROWS` rows of `CODE_COLUMNS` blocks fill it, white for 1. Row by row, the
 * highest bit first: 40 bits of Date.now(), and 8 that are the sum of its bytes times 1, 3, 5, 7 and 9, the first one first.
 */
function timeCode(width: number, height: number, frameRate: number): MediaStreamTrack {
  const element = Object.assign(document.createElement("canvas"), { width, height });
  const context = element.getContext("2d");
  if (!context) throw new Error("no 2d canvas here");
  const draw = (): void => {
    const now = Date.now();
    const bytes = [4, 3, 2, 1, 0].map((place) => Math.floor(now / 256 ** place) % 256);
    bytes.push(bytes.reduce((sum, byte, index) => sum + byte * (2 * index + 1), 0) % 256);
    const code = bytes.map((byte) => byte.toString(2).padStart(8, "0")).join("");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#fff";
    for (let index = 0; index < code.length; index++) {
      const column = index % CODE_COLUMNS;
      const row = Math.floor(index / CODE_COLUMNS);
      const left = Math.round((column * width) / CODE_COLUMNS);
      const top = Math.round((row * height) / CODE_ROWS);
      if (code[index] === "1") context.fillRect(left, top, Math.ceil(width / CODE_COLUMNS), Math.ceil(height / CODE_ROWS));
    }
  };
  draw();
  const track = first(element.captureStream());
  const timer = setInterval(() => (track.readyState === "ended" ? clearInterval(timer) : draw()), 1000 / frameRate);
  return track;
}
