// What the tests' client sends: fake devices, or pictures and tones made in the page.

export interface CaptureOptions {
  /** `device`: getUserMedia (Chromium's fake devices). `canvas`: moving noise. `tone`: an oscillator. `screen`: getDisplayMedia. */
  capture?: "device" | "canvas" | "tone" | "screen";
  width?: number;
  height?: number;
  frameRate?: number;
  /** Canvas only, 0…1: the share of the picture that is fresh noise in every frame (how much there is to encode). */
  detail?: number;
}

export async function capture(kind: "audio" | "video", options: CaptureOptions): Promise<MediaStreamTrack> {
  const { width = 1280, height = 720, frameRate = 30, detail = 0.3 } = options;
  switch (options.capture ?? "device") {
    case "canvas":
      return canvas(width, height, frameRate, detail);
    case "tone":
      return tone();
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

function tone(): MediaStreamTrack {
  const context = new AudioContext();
  const oscillator = new OscillatorNode(context, { frequency: 440 });
  const out = context.createMediaStreamDestination();
  oscillator.connect(new GainNode(context, { gain: 0.5 })).connect(out);
  oscillator.start();
  void context.resume();
  return first(out.stream);
}
