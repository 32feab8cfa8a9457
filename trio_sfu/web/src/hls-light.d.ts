// hls.js's light build (no DRM, subtitles or alternate audio, none of which a room's stream has) comes without types
// of its own; they are those of the whole.
declare module "hls.js/light" {
  export * from "hls.js";
  export { default } from "hls.js";
}
