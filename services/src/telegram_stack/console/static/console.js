"use strict";
// What pages do by themselves: the list of messages follows the live stream, and a page that is no longer up to date says so.

(() => {
  const byId = (id) => document.getElementById(id);
  let source = null;
  let address = "";
  let paused = false;
  let timer = 0;

  const say = (state, words) => {
    const place = byId("live-state");
    if (place && place.textContent !== words) {
      place.className = `pill ${state}`;
      place.textContent = words;
    }
  };

  // However many messages come, the list is fetched twice a second at most.
  const refresh = () => {
    timer ||= setTimeout(() => {
      timer = 0;
      const list = byId("list");
      if (list && !paused) htmx.trigger(list, "news");
    }, 500);
  };

  const listen = () => {
    const wanted = (!paused && byId("list")?.dataset.stream) || "";
    if (paused) say("absent", "paused");
    if (wanted === address) {
      if (source?.readyState === EventSource.OPEN) say("ok", "live");
      return;
    }
    source?.close();
    source = null;
    address = wanted;
    if (!wanted) return;
    source = new EventSource(wanted);
    source.onopen = () => {
      say("ok", "live");
      refresh(); // what came between the page and the stream
    };
    source.onerror = () => {
      const over = source.readyState === EventSource.CLOSED;
      say("down", over ? "not live: load the page again" : "connecting again");
    };
    for (const kind of ["message", "delete", "reset"]) source.addEventListener(kind, refresh);
  };

  const stale = (why) => {
    const place = byId("stale");
    place.textContent = why && `${why} This page is no longer up to date.`;
    place.hidden = !why;
  };

  document.addEventListener("click", (event) => {
    if (event.target.id !== "pause") return;
    paused = !paused;
    event.target.setAttribute("aria-pressed", String(paused));
    listen();
  });
  document.addEventListener("htmx:afterSettle", listen);
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, requestConfig } = event.detail;
    const failed = xhr.status >= 400;
    const byItself = requestConfig.verb === "get" && !requestConfig.boosted;
    if (failed && byItself) event.detail.shouldSwap = false; // what is there is better than nothing
    stale(failed && byItself ? `The API answers ${xhr.status}.` : "");
  });
  document.addEventListener("htmx:sendError", () => stale("The API does not answer."));
  listen();
})();
