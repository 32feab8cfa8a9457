// The browser tests' client: an ordinary mediasoup-client + socket.io-client front end, driven from Python through
// `window.sfu`. All methods take and give JSON-able values; what fails is a rejected promise that says what and why.

import { SfuClient } from "./client";

declare global {
  interface Window {
    sfu: SfuClient;
    SfuClient: typeof SfuClient;
  }
}

window.SfuClient = SfuClient;
window.sfu = new SfuClient();
