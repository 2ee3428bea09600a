// Which page is shown, when it looks again, and the token.

const kLookEvery = 2000;
const main = document.getElementById("main");
const link = document.getElementById("link");
let leave = null;      // ends what the page that is shown has begun
let looking = null;    // its look
let busy = false;
let again = null;

function tell(state, words) {
  link.className = state;
  if (link.textContent !== words) link.textContent = words;
}

// A token that is good for nothing is asked for anew; all else is shown, and tried again.
function onTrouble(trouble) {
  if (trouble instanceof Refused && trouble.status === 401) return ask(trouble.message);
  if (trouble instanceof Refused && trouble.status === 404 && leave) {
    leave.abort();
    main.replaceChildren(h("p", {class: "lone"}, `${trouble.message}. `, h("a", {href: "#/"}, "All jobs")));
  }
}

async function look() {
  clearTimeout(again);
  if (busy || !looking || document.hidden) return;
  busy = true;
  const mine = leave;
  try {
    await looking();
    if (mine === leave) tell("live", "live");
  } catch (trouble) {
    if (mine === leave && !mine.signal.aborted) {
      if (trouble instanceof Refused) { tell("away", trouble.message); onTrouble(trouble); }
      else tell("away", "the coordinator does not answer");
    }
  }
  busy = false;
  if (mine !== leave) return look();
  again = setTimeout(look, kLookEvery);
}

// Something has happened: not at once for each, where many come together.
function refreshSoon() {
  clearTimeout(again);
  again = setTimeout(look, 250);
}

function ask(wrong) {
  leave?.abort();
  looking = null;
  forget();
  document.getElementById("who").replaceChildren();
  tell("", "");
  const field = h("input", {type: "password", autocomplete: "off", spellcheck: "false", "aria-label": "token", required: true});
  const begin = (event) => {
    event.preventDefault();
    sessionStorage.setItem(kTokenName, field.value.trim());
    enter();
  };
  main.replaceChildren(h("div", {class: "card ask"}, h("h1", null, "Token"),
      h("form", {onsubmit: begin}, h("p", {class: "sub"},
          "The first admin's lies in the file ", h("code", null, "token"), " of the state folder. ",
          h("code", null, "tutti token create NAME --role viewer"), " makes one that only reads. This tab keeps it until it is closed."),
          field, wrong ? h("p", {class: "wrong", role: "alert"}, wrong) : null, h("button", null, "Show the cluster"))));
  field.focus();
}

async function enter() {
  if (!token()) return ask();
  try {
    const who = await get("/api/v1/whoami");
    skewMs = who.now_unix_ms - Date.now();
    document.getElementById("who").replaceChildren(`${who.user} (${who.role})`,
        h("button", {class: "quiet", type: "button", onclick: () => ask()}, "leave"));
    document.getElementById("where").textContent = location.host;
    show();
  } catch (trouble) {
    if (trouble instanceof Refused) return ask(trouble.message);
    tell("away", "the coordinator does not answer");
    setTimeout(enter, kLookEvery);
  }
}

function show() {
  leave?.abort();
  leave = new AbortController();
  const at = location.hash.match(/^#\/jobs\/(\d+)$/);
  const shown = at ? jobPage(Number(at[1]), leave.signal) : overview(leave.signal);
  document.title = shown.title;
  main.replaceChildren(...shown.page);
  scrollTo(0, 0);
  looking = shown.look;
  look();
}

addEventListener("hashchange", () => { if (token()) show(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
enter();
