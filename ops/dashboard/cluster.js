// The cluster's HTTP API: the token, questions, and streams of server-sent events.
//
// The token is asked for once, kept for this tab (sessionStorage), and sent as a header; it is in no
// address. EventSource sends no headers, so streams are read from fetch.

const kTokenName = "tutti-token";
let skewMs = 0;  // of the coordinator's clock against this one

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

function token() { return sessionStorage.getItem(kTokenName); }
function forget() { sessionStorage.removeItem(kTokenName); }
function now() { return Date.now() + skewMs; }

async function send(path, headers, signal) {
  const answer = await fetch(path, {
    headers: {Authorization: `Bearer ${token()}`, ...headers},
    signal, cache: "no-store", credentials: "omit", redirect: "error",
  });
  if (answer.ok) return answer;
  let message = `the coordinator answered ${answer.status}`;
  try { message = (await answer.json()).error.message; } catch { /* not JSON: the status says it */ }
  throw new Refused(answer.status, message);
}

async function get(path, signal) { return (await send(path, {}, signal)).json(); }

// What has come behind a cursor, page by page; the cursor that it came to. A browser has six
// connections to a server, for all its tabs: what need not come at once is asked for, not streamed.
const kPagesMax = 40;
async function readOn(path, cursor, items, take, signal) {
  for (let page = 0; page < kPagesMax; ++page) {
    const answer = await get(`${path}?after=${cursor}`, signal);
    if (answer.next === cursor && answer[items].length === 0) break;
    cursor = answer.next;
    take(answer[items]);
  }
  return cursor;
}

function visible(signal) {
  if (!document.hidden) return null;
  return new Promise((wake) => {
    document.addEventListener("visibilitychange", wake, {once: true, signal});
    signal.addEventListener("abort", wake);
  });
}

// A stream's events. Goes on where it was after a break, and lets go while nobody looks; returns
// when the stream has ended, the signal is given, or the token is refused.
async function follow(path, {take, signal: over}) {
  let last;
  for (let pause = 500; !over.aborted; pause = Math.min(pause * 2, 8000)) {
    await visible(over);
    const unseen = new AbortController();
    const hide = () => { if (document.hidden) unseen.abort(); };
    document.addEventListener("visibilitychange", hide, {signal: over});
    const signal = AbortSignal.any([over, unseen.signal]);
    try {
      const answer = await send(path, {
        Accept: "text/event-stream", ...(last === undefined ? {} : {"Last-Event-ID": last}),
      }, signal);
      pause = 250;
      if (await readEvents(answer.body, (event) => {
        if (event.id !== undefined) last = event.id;
        if (event.data !== "" && event.kind === "message") take(JSON.parse(event.data));
      })) return;
    } catch (failure) {
      if (over.aborted) return;
      if (failure instanceof Refused && failure.status < 500 && failure.status !== 429) throw failure;
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    await new Promise((wake) => setTimeout(wake, pause));
  }
}

// Whether the stream said that nothing will follow.
async function readEvents(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {kind: "message", data: ""};
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return false;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.kind === "end") { reader.cancel(); return true; }
        if (event.data !== "" || event.id !== undefined) take(event);
        event = {kind: "message", data: ""};
      } else if (line.startsWith("data: ")) event.data += line.slice(6);
      else if (line.startsWith("id: ")) event.id = line.slice(4);
      else if (line.startsWith("event: ")) event.kind = line.slice(7);
    }
  }
}
