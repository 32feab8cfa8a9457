// Camera, microphone and screen: opening them, and saying in plain words why one could not be opened.

const CAMERA: MediaTrackConstraints = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  frameRate: { ideal: 30 },
};
const MICROPHONE: MediaTrackConstraints = {
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
};

export interface OpenedDevices {
  camera?: MediaStreamTrack;
  microphone?: MediaStreamTrack;
  /** What went wrong, for the person in front of it; empty where all went well. */
  problem: string;
}

/** Ask for both at once (one question from the browser); where one is missing, take the other. Never rejects. */
export async function openBoth(): Promise<OpenedDevices> {
  try {
    const stream = await userMedia({ video: CAMERA, audio: MICROPHONE });
    return opened(stream, "");
  } catch (both) {
    if (errorName(both) === "NotAllowedError" || !navigator.mediaDevices) {
      return { problem: `${describe(both, "camera and microphone")} You can join without them, to watch and listen.` };
    }
    // A missing or busy device fails the pair: see what there is of it.
    const camera = await userMedia({ video: CAMERA }).catch((error: unknown) => asError(error));
    const microphone = await userMedia({ audio: MICROPHONE }).catch((error: unknown) => asError(error));
    if (camera instanceof Error && microphone instanceof Error) {
      const problem =
        errorName(camera) === errorName(microphone)
          ? describe(camera, "camera and microphone")
          : `${describe(camera, "camera")} ${describe(microphone, "microphone")}`;
      return { problem: `${problem} You can join without them, to watch and listen.` };
    }
    const found: OpenedDevices = { problem: "" };
    if (camera instanceof Error) found.problem = describe(camera, "camera");
    else found.camera = camera.getVideoTracks()[0];
    if (microphone instanceof Error) found.problem = describe(microphone, "microphone");
    else found.microphone = microphone.getAudioTracks()[0];
    return found;
  }
}

/** Rejects with an Error whose message can be shown. */
export async function openCamera(): Promise<MediaStreamTrack> {
  return first(await spoken(userMedia({ video: CAMERA }), "camera"), "camera");
}

/** Rejects with an Error whose message can be shown. */
export async function openMicrophone(): Promise<MediaStreamTrack> {
  return first(await spoken(userMedia({ audio: MICROPHONE }), "microphone"), "microphone");
}

export function canShareScreen(): boolean {
  return typeof navigator.mediaDevices?.getDisplayMedia === "function";
}

/** Undefined where the person thought better of it; rejects with an Error whose message can be shown. */
export async function openScreen(): Promise<MediaStreamTrack | undefined> {
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15, max: 30 } }, audio: false });
  } catch (error) {
    if (errorName(error) === "NotAllowedError") return undefined; // closing the browser's chooser looks the same
    throw new Error(describe(error, "screen"));
  }
  const track = first(stream, "screen");
  track.contentHint = "detail"; // text stays sharp, at the price of frames
  return track;
}

async function userMedia(constraints: MediaStreamConstraints): Promise<MediaStream> {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give camera and microphone only to pages that come by HTTPS or from localhost.");
  }
  return navigator.mediaDevices.getUserMedia(constraints);
}

async function spoken(stream: Promise<MediaStream>, what: string): Promise<MediaStream> {
  try {
    return await stream;
  } catch (error) {
    throw new Error(describe(error, what));
  }
}

function first(stream: MediaStream, what: string): MediaStreamTrack {
  const track = stream.getTracks()[0];
  if (!track) throw new Error(`The ${what} gave nothing to send.`);
  return track;
}

function opened(stream: MediaStream, problem: string): OpenedDevices {
  return { camera: stream.getVideoTracks()[0], microphone: stream.getAudioTracks()[0], problem };
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function errorName(error: unknown): string {
  // A DOMException is an Error in today's browsers, and was not in yesterday's.
  return typeof error === "object" && error !== null && "name" in error ? String(error.name) : "";
}

/** One or two sentences about what getUserMedia's error means for the person, and what to do about it. */
function describe(error: unknown, what: string): string {
  const plural = what.includes(" and ");
  switch (errorName(error)) {
    case "NotAllowedError":
    case "SecurityError":
      return `The browser was not allowed to use your ${what}. Allow it in the address bar or the browser's settings.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${what.replace(" and ", " or ")} was found on this device.`;
    case "NotReadableError":
    case "AbortError":
      return `Your ${what} ${plural ? "are" : "is"} in use by another program, or could not be started.`;
    default:
      return error instanceof Error && error.message ? error.message : `Your ${what} could not be opened.`;
  }
}
