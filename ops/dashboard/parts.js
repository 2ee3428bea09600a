// Parts that both pages show: progress, budgets, events.

function progressOf(job) {
  if (job.tasks) {
    const {done, total, failed, active} = job.tasks;
    return h("div", {class: "progress"},
        `${count(done)}/${count(total)} tasks`,
        h("span", {class: "dim"}, active ? `, ${active} active` : "", failed ? `, ${failed} failed` : ""),
        meter(done + failed, total, failed ? "bad" : ""));
  }
  if (!(job.steps > 0)) return h("span", {class: "faint"}, "–");
  return h("div", {class: "progress"}, `${job.step}`, h("span", {class: "dim"}, `/${job.steps}`), meter(job.step, job.steps));
}

function timeOf(job) {
  if (!job.started_unix_ms) return "–";
  return duration((job.ended_unix_ms ?? now()) - job.started_unix_ms);
}

const kBudgets = [
  ["user", "the user's failures"], ["infrastructure", "infrastructure's failures"],
  ["own", "Tutti's own, in a row"], ["preempted", "preempted"],
];

// "user 1/3, infrastructure 2/20": what was used of anything.
function budgetWords(job) {
  const said = kBudgets.filter(([name]) => job.budgets?.[name]?.used > 0).map(([name]) => {
    const {used, of} = job.budgets[name];
    return `${name} ${used}${of === null ? "" : `/${of}`}`;
  });
  if (job.budgets?.drained > 0) said.push(`drained ${job.budgets.drained}`);
  return said.join(", ");
}

function budgetRows(budgets) {
  const rows = kBudgets.map(([name, words]) => {
    const {used, of} = budgets[name];
    const tone = of !== null && used > of ? "bad" : of !== null && used > of / 2 ? "warn" : "";
    return h("div", {class: "row"}, h("span", null, words), h("span", {class: "dim"}, of === null ? used : `${used} of ${of}`),
        of === null ? null : meter(used, Math.max(of, 1), tone));
  });
  return h("div", {class: "budgets"}, rows,
      h("div", {class: "row"}, h("span", null, "drained"), h("span", {class: "dim"}, budgets.drained)),
      h("div", {class: "row"}, h("span", null, "resized"), h("span", {class: "dim"}, budgets.resized)));
}

const kEventTone = {
  rank_lost: "bad", worker_lost: "bad", failed: "bad", checkpoint_failed: "bad", hang: "bad", quarantined: "bad",
  aborted: "warn", restarted: "warn", gap: "warn", straggler: "warn", cancelled: "warn", preempted: "warn", draining: "warn",
  finished: "good", recovered: "good", checkpoint: "good", worker_joined: "good",
};
const kEventsShown = 200;

// The newest events, newest first, each once however often a stream begins anew.
class EventList {
  constructor(attributes, ofJob) {
    this.list = h("ol", {class: "events", ...attributes});
    this.empty = h("p", {class: "empty"}, "none in the last hour");
    this.ofJob = ofJob;
    this.newest = 0;
    this.node = h("div", null, this.empty, this.list);
  }
  take(event) {
    if (event.seq <= this.newest) return false;
    this.newest = event.seq;
    this.empty.remove();
    const day = new Date(event.unix_ms).toDateString() === new Date().toDateString();
    const where = this.ofJob || !event.job ? null : h("a", {class: "of", href: `#/jobs/${event.job}`}, ` job ${event.job}`);
    this.list.prepend(h("li", null,
        h("time", {datetime: new Date(event.unix_ms).toISOString()}, day ? clock(event.unix_ms) : new Date(event.unix_ms).toLocaleDateString()),
        h("span", {class: `what ${kEventTone[event.kind] ?? ""}`}, event.kind.replaceAll("_", " "), where),
        h("span", {class: "message"}, event.message)));
    while (this.list.childElementCount > kEventsShown) this.list.lastElementChild.remove();
    return true;
  }
}
