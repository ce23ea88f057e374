// Shows the part of the page that changes. Without this script, the page shows the state at which it was loaded.
"use strict";

const live = document.getElementById("live");
const state = document.getElementById("state");

if (live && "EventSource" in window) {
  const source = new EventSource(live.dataset.stream);
  source.onmessage = (event) => {
    // Made by the server, which escapes all texts.
    live.innerHTML = JSON.parse(event.data);
    state.textContent = "live";
  };
  source.onerror = () => {
    state.textContent = "no connection; trying again";
  };
}
