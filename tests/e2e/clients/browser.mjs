// A browser's window out of jsdom, whose XMLHttpRequest asks with real preflights.
import { JSDOM, VirtualConsole } from "jsdom";

export function openWindow(url) {
  const dom = new JSDOM("<!doctype html><title>Shop</title><script></script>", {
    url,
    pretendToBeVisual: true,
    referrer: "http://search.example/",
    virtualConsole: new VirtualConsole(),
  });
  const { window } = dom;
  const names = [
    "document", "navigator", "location", "history", "screen", "localStorage", "sessionStorage",
    "Event", "CustomEvent", "EventTarget", "XMLHttpRequest", "HTMLElement", "HTMLScriptElement",
    "Element", "Node", "ErrorEvent", "PromiseRejectionEvent", "addEventListener",
    "removeEventListener", "dispatchEvent",
  ];
  for (const name of names) {
    const value = typeof window[name] === "function" && /^[a-z]/.test(name)
      ? window[name].bind(window)
      : window[name];
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  Object.defineProperty(globalThis, "window", { value: window, configurable: true });
  Object.defineProperty(globalThis, "self", { value: window, configurable: true });
  // jsdom has no fetch; Node's knows no origin and would ask for no preflight.
  window.fetch = globalThis.fetch = (to, options = {}) => fetchByXhr(window, to, options);
  return window;
}

function fetchByXhr(window, to, { method = "GET", headers = {}, body }) {
  return new Promise((resolve, reject) => {
    const request = new window.XMLHttpRequest();
    request.open(method, String(to));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.onload = () => {
      const content = { status: request.status, headers: readHeaders(request) };
      resolve(new Response(request.responseText || null, content));
    };
    request.onerror = () => reject(new TypeError("Failed to fetch"));
    request.send(body);
  });
}

function readHeaders(request) {
  const lines = request.getAllResponseHeaders().trim().split(/[\r\n]+/).filter(Boolean);
  return lines.map((line) => line.split(/:\s*(.*)/s).slice(0, 2));
}
