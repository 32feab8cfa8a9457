// The player: one video element that plays a live playlist by hls.js, or by the browser itself where hls.js cannot,
// and stays at the live edge unless the person goes elsewhere. Whether there is a stream is for airing.ts to find out.
//
// hls.js 1.6: in 1.7.4 a stream that has just begun stalls for a second and a half in its first second.

import Hls, { ErrorTypes, Events, type ErrorData, type HlsConfig, type LoadPolicy } from "hls.js/light";

/** How far behind the place of a player that follows still counts as following, in seconds. */
export const CLOSE_S = 2;
const RECOVERIES = 3;
const RECOVERIES_WITHIN_MS = 20_000;
const JUMP_AGAIN_AFTER_MS = 5_000;
const STALL_AT_END_MS = 1_000;
const STUCK_MS = 8_000;
const HLS_TYPE = "application/vnd.apple.mpegurl";

/** hls.js gives up at once where there was no answer at all. A blip of the network is more often the cause. */
function patient(longestLoadMs: number): LoadPolicy {
  return {
    default: {
      maxTimeToFirstByteMs: 10_000,
      maxLoadTimeMs: longestLoadMs,
      timeoutRetry: { maxNumRetry: 3, retryDelayMs: 0, maxRetryDelayMs: 0 },
      errorRetry: {
        maxNumRetry: 4,
        retryDelayMs: 250,
        maxRetryDelayMs: 2_000,
        shouldRetry: (config, count, _timeout, response) =>
          count < (config?.maxNumRetry ?? 0) && !isRefusal(response?.code),
      },
    },
  };
}

const CONFIG: Partial<HlsConfig> = {
  // How far behind to play is the playlist's to say (PART-HOLD-BACK): a setting here would override it.
  lowLatencyMode: true,
  maxLiveSyncPlaybackRate: 1.2,
  liveDurationInfinity: true,
  backBufferLength: 60,
  enableWorker: false, // fMP4 is handed on as it comes
  playlistLoadPolicy: patient(20_000),
  fragLoadPolicy: patient(60_000),
};

export type PlayerState = "loading" | "playing" | "stalled" | "paused";

export interface PlayerView {
  stateChanged(state: PlayerState): void;
  /** The browser wants a click before there may be sound; it plays without. */
  soundHeldBack(): void;
}

export class Player {
  readonly #video: HTMLVideoElement;
  readonly #still: HTMLCanvasElement;
  readonly #url: string;
  readonly #view: PlayerView;
  #hls: Hls | undefined;
  #ended: ((outcome: "ended" | "lost") => void) | undefined;
  /** Whether the person wants it to play; what came of that, the element says. */
  #wanted = true;
  /** Whether to stay near the live edge: not where the person paused or went back. */
  #following = true;
  #jumpedAt = -Infinity;
  /** Where it was when it last got on, and when that was. */
  #progress = { time: 0, at: 0 };
  /** When the playlist last came, new or not. */
  #heardAt = 0;
  #recoveries: number[] = [];
  /** Without hls.js: how far behind the newest there is the browser began. */
  #holdBack: number | undefined;

  /** `still` lies over the video and shows the last picture while there is no newer one. */
  constructor(video: HTMLVideoElement, still: HTMLCanvasElement, url: string, view: PlayerView) {
    this.#video = video;
    this.#still = still;
    this.#url = url;
    this.#view = view;
    for (const name of ["playing", "waiting", "pause", "seeked", "ended", "error"]) {
      video.addEventListener(name, (event) => this.#heard(event.type));
    }
  }

  /** Whether this browser can play such a stream at all. */
  static supported(): boolean {
    return Hls.isSupported() || document.createElement("video").canPlayType(HLS_TYPE) !== "";
  }

  /**
   * Play from the live edge. Resolves when the stream has ended and been played out, or is lost: then it is gone, or
   * cannot be gone on with. It can be called again then, and until then the last picture stays.
   */
  play(): Promise<"ended" | "lost"> {
    return new Promise((resolve) => {
      this.#ended = resolve;
      this.#following = true;
      this.#heardAt = performance.now();
      this.#progress = { time: 0, at: this.#heardAt };
      this.#recoveries = [];
      this.#holdBack = undefined;
      this.#view.stateChanged(this.#wanted ? "loading" : "paused");
      if (Hls.isSupported()) this.#attach();
      else this.#video.src = this.#url;
      if (this.#wanted) void this.#start();
    });
  }

  get active(): boolean {
    return this.#ended !== undefined;
  }

  /** Seconds behind the newest there is; undefined where that is not known, as after the end. */
  get latency(): number | undefined {
    const { readyState, seekable, currentTime } = this.#video;
    if (!this.active || readyState === HTMLMediaElement.HAVE_NOTHING) return undefined;
    if (this.#hls) return this.#hls.latestLevelDetails?.live ? Math.max(0, this.#hls.latency) : undefined;
    return seekable.length > 0 ? Math.max(0, seekable.end(seekable.length - 1) - currentTime) : undefined;
  }

  /** Seconds behind the place of a player that follows: about zero for this one, unless paused or gone back. */
  get behind(): number {
    const place = this.#livePlace;
    return place === undefined || !this.active ? 0 : Math.max(0, place - this.#video.currentTime);
  }

  /** From and to where one can go, in seconds of the video. */
  get window(): { start: number; end: number } | undefined {
    const { seekable } = this.#video;
    if (!this.active || seekable.length === 0) return undefined;
    return { start: seekable.start(0), end: Math.max(seekable.start(0), this.#livePlace ?? seekable.end(0)) };
  }

  toggle(): void {
    if (!this.#video.paused) {
      this.#wanted = false;
      return this.#video.pause();
    }
    void this.#start();
  }

  seek(time: number): void {
    this.#video.currentTime = time;
    this.#following = this.behind <= CLOSE_S;
  }

  /** To the live edge, playing. After the end of a stream: to what comes next. */
  goLive(): void {
    const details = this.#hls?.latestLevelDetails;
    if (details && !details.live) return this.#finish("ended");
    this.#following = true;
    this.#jump();
    if (this.#video.paused) void this.#start();
  }

  /** To be called now and then. Small lags hls.js makes up for by playing faster; from larger ones it is to jump. */
  keepUp(): void {
    const details = this.#hls?.latestLevelDetails;
    const now = performance.now();
    const { currentTime, paused } = this.#video;
    if (paused || currentTime !== this.#progress.time) this.#progress = { time: currentTime, at: now };
    if (!details || paused) return;
    const stuckFor = now - this.#progress.at;
    if (!details.live) {
      // Where the end comes while a segment's parts are being loaded, hls.js may leave out the last of them.
      const close = details.edge - currentTime < details.targetduration;
      if (close && stuckFor > STALL_AT_END_MS) this.#finish("ended");
      return;
    }
    // New parts come and nothing is made of them, or the playlist is not even asked for. One that stands still is not
    // the player's fault: there the room's next part is waited for.
    const idle = details.age < details.targetduration || now - this.#heardAt > STUCK_MS;
    if (stuckFor > STUCK_MS && idle) return this.#finish("lost");
    const tooFar = (this.#hls?.targetLatency ?? 0) + details.targetduration;
    if (this.#following && this.behind > tooFar && now - this.#jumpedAt > JUMP_AGAIN_AFTER_MS) this.#jump();
  }

  get #livePlace(): number | undefined {
    if (this.#hls) return this.#hls.liveSyncPosition ?? undefined;
    const { seekable } = this.#video;
    return seekable.length > 0 ? seekable.end(seekable.length - 1) - (this.#holdBack ?? 0) : undefined;
  }

  #jump(): void {
    const place = this.#livePlace;
    if (place === undefined) return;
    this.#jumpedAt = performance.now();
    this.#video.currentTime = place;
  }

  /** Play, without sound where the browser insists on that; where it insists on a click, it stays paused. */
  async #start(): Promise<void> {
    this.#wanted = true;
    try {
      await this.#video.play();
    } catch (error) {
      // AbortError: something newer happened to the element, and will have its own outcome.
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError" || !this.active) return;
      if (this.#video.muted) return this.#view.stateChanged("paused");
      this.#video.muted = true;
      this.#view.soundHeldBack();
      await this.#start();
    }
  }

  #attach(): void {
    const hls = new Hls(CONFIG);
    this.#hls = hls;
    let newest = -1;
    hls.on(Events.LEVEL_LOADED, (_, { details }) => {
      // A server that was started anew counts from zero: that is another stream.
      if (details.endSN < newest) this.#finish("lost");
      newest = details.endSN;
      this.#heardAt = performance.now();
    });
    hls.on(Events.ERROR, (_, data) => this.#failed(hls, data));
    // hls.js does this by itself, too, for as long as there is something that cannot be decoded.
    const recover = hls.recoverMediaError.bind(hls);
    hls.recoverMediaError = () => {
      if (!this.#mayRecover()) return void setTimeout(() => hls === this.#hls && this.#finish("lost"));
      this.#keepPicture();
      const begun = this.#video.currentTime > 0;
      recover();
      if (!begun) hls.startLoad(); // which hls.js leaves out then
      if (!this.#wanted) return;
      this.#view.stateChanged("stalled");
      void this.#start();
    };
    hls.loadSource(this.#url);
    hls.attachMedia(this.#video);
  }

  #failed(hls: Hls, data: ErrorData): void {
    if (!data.fatal || hls !== this.#hls) return;
    if (data.type === ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
    else if (data.type === ErrorTypes.NETWORK_ERROR && data.frag && this.#mayRecover()) hls.startLoad();
    else this.#finish("lost"); // without its playlist there is nothing to go on with
  }

  /** Counts a recovery; false: there were too many of late. */
  #mayRecover(): boolean {
    const now = performance.now();
    this.#recoveries = this.#recoveries.filter((time) => now - time < RECOVERIES_WITHIN_MS);
    this.#recoveries.push(now);
    return this.#recoveries.length <= RECOVERIES;
  }

  #finish(outcome: "ended" | "lost"): void {
    const ended = this.#ended;
    if (!ended) return;
    this.#ended = undefined;
    this.#keepPicture();
    this.#hls?.destroy();
    this.#hls = undefined;
    this.#video.removeAttribute("src");
    this.#video.load();
    ended(outcome);
  }

  #heard(event: string): void {
    if (!this.active) return;
    const { paused, ended, error, readyState } = this.#video;
    // With hls.js errors are told to it, and by it to us.
    if (event === "error") return !this.#hls && error ? this.#finish("lost") : undefined;
    // These are of what was taken from the video: hls.js ends that before it lets go of it.
    if (readyState === HTMLMediaElement.HAVE_NOTHING) return;
    if (ended) return this.#finish("ended");
    switch (event) {
      case "playing":
        this.#wanted = true;
        this.#following ||= this.behind <= CLOSE_S;
        this.#still.hidden = true;
        this.#holdBack ??= this.latency;
        return this.#view.stateChanged("playing");
      case "pause":
        this.#wanted = false;
        this.#following = false;
        return this.#view.stateChanged("paused");
      case "seeked":
        this.#still.hidden = true;
        return;
      case "waiting":
        if (!paused) this.#view.stateChanged("stalled");
    }
  }

  /** Instead of the black that a video turns when what it played is taken from it. */
  #keepPicture(): void {
    const { videoWidth, videoHeight, readyState } = this.#video;
    if (videoWidth === 0 || readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.#still.width = videoWidth;
    this.#still.height = videoHeight;
    this.#still.getContext("2d")?.drawImage(this.#video, 0, 0);
    this.#still.hidden = false;
  }
}

/** Whether the server answered that it has no such thing: to ask again brings nothing. */
function isRefusal(status: number | undefined): boolean {
  return status !== undefined && status >= 400 && status < 500;
}
