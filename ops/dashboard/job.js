// One job: where it stands, its curves, its last recovery, its ranks, its log and events.

const kStepsShown = 3000;
const kLogLines = 500;

const kPhases = [
  ["seen_ms", "loss seen"], ["decided_ms", "decided"], ["aborted_ms", "survivors out"],
  ["regrouped_ms", "regrouped"], ["copied_ms", "state copied"], ["first_step_ms", "next step done"],
];

function drawRecovery(recovery) {
  const reached = kPhases.filter(([name]) => recovery[name] !== null).map(([name, words]) => ({words, at: recovery[name]}));
  const whole = Math.max(1, ...reached.map((phase) => phase.at));
  const rows = reached.slice(1).map((phase, i) => {
    const from = reached[i].at;
    return [
      h("span", null, phase.words),
      h("div", {class: "track"}, h("i", {left: `${from / whole * 100}%`, width: `${Math.max(phase.at - from, 0) / whole * 100}%`})),
      h("span", {class: "n dim"}, duration(phase.at)),
    ];
  });
  const open = !recovery.over;
  return [
    h("p", null, h("b", null, `Generation ${recovery.generation}`), `: ${recovery.cause}`),
    h("p", {class: "sub"}, recovery.over && recovery.first_step_ms === null ? "runs again"
        : `from step ${recovery.from_step}, ${plural(recovery.lost_steps, "step")} lost`,
        recovery.planned ? ", a planned change" : "", open ? ", still going on" : ""),
    h("div", {class: `phases ${open ? "open" : ""}`}, rows),
  ];
}

function drawRecoveries(recoveries) {
  if (recoveries.length === 0) return h("p", {class: "empty"}, "it has lost nothing");
  const before = recoveries.slice(0, -1).reverse();
  return [
    drawRecovery(recoveries[recoveries.length - 1]),
    before.length === 0 ? null : h("details", {"data-fold": "before"}, h("summary", null, `${before.length} before it`),
        before.map((each) => h("div", null, drawRecovery(each)))),
  ];
}

function drawRanks({processes, standstill}) {
  if (processes.length === 0) return h("p", {class: "empty"}, "no process now");
  const some = (name) => processes.some((process) => process[name]);
  // Slower than the others by half, or whom they all wait for.
  const least = Math.min(...processes.map((process) => process.collective));
  const behind = (process) => process.straggler >= 1.5 || (standstill !== "" && process.collective === least);
  const columns = [
    [["Rank", "n"], (it) => h("td", {class: "n"}, it.rank)],
    [["Node"], (it) => h("td", null, it.worker)],
    [["Slot", "n wide"], (it) => h("td", {class: "n wide"}, it.slot)],
    [["Pid", "n wide"], (it) => h("td", {class: "n wide"}, it.pid || "–")],
    [["Phase"], (it) => h("td", null, it.phase)],
    some("step") && [["Step", "n"], (it) => h("td", {class: "n"}, it.step)],
    some("collective") && [["Collective", "n wide"], (it) => h("td", {class: "n wide"}, it.collective)],
    some("straggler") && [["Slower", "n"], (it) => h("td", {class: "n"}, it.straggler ? `${it.straggler.toFixed(2)}×` : "–")],
    some("limits") && [["Limits", "wide"], (it) => h("td", {class: "wide sub"}, it.limits)],
  ].filter(Boolean);
  return table(columns.map(([title]) => title),
      processes.map((process) => h("tr", {class: behind(process) ? "laggard" : null}, columns.map(([, cell]) => cell(process)))));
}

function drawFacts(job) {
  const facts = [
    ["ranks", job.tasks ? null : job.ranks], ["generation", job.tasks ? null : job.generation], ["restarts", job.tasks ? null : job.restarts],
    ["submitted", new Date(job.submitted_unix_ms).toLocaleString()], ["time", timeOf(job)],
    ["last loss", job.ended_unix_ms ? null : job.failure?.message], ["code", job.failure?.code], ["signal", job.failure?.signal], ["exit code", job.exit_code],
    ["memory", job.memory_peak_bytes ? `${bytes(job.memory_peak_bytes)} at most, a process` : null],
    ["checkpoints", job.checkpoints.length ? job.checkpoints.map((each) => `step ${each.step}`).slice(-6).join(", ") : null],
    ["folder", job.folder],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {class: "facts"}, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

function drawTasks(tasks) {
  return table([["Task", "n"], ["State"], ["Message"]], tasks.map((task) => h("tr", null,
      h("td", {class: "n"}, h("a", {href: `#/jobs/${task.job}`}, task.index)),
      h("td", {class: "tight"}, pill(task.phase || task.state)), h("td", {class: "sub"}, task.message))));
}

function drawHead(job) {
  return [
    h("div", {class: "title"}, h("h1", null, job.name), pill(job.state), progressOf(job).classList?.contains("faint") ? null : progressOf(job),
        h("p", {class: "sub"}, `job ${job.id} · ${job.kind} · ${job.owner}${job.priority ? ` · priority ${job.priority}` : ""}`)),
    job.standstill ? h("p", {class: "banner bad"}, h("b", null, "It stands still: "), job.standstill) : null,
    job.leaving ? h("p", {class: "banner"}, h("b", null, "It is leaving its slots: "), job.leaving.reason) : null,
    job.waiting ? h("p", {class: "banner"}, h("b", null, "Waits for "), job.waiting) : null,
    job.ended_unix_ms && job.failure?.message ? h("p", {class: `banner ${job.state === "failed" ? "bad" : ""}`},
        h("b", null, job.state === "failed" ? `Failed${job.failure.class === "none" ? "" : ` (${job.failure.class})`}: ` : ""), job.failure.message) : null,
  ];
}

// The steps of a run so far, each once, and where generations began.
class Curves {
  constructor() { this.steps = []; this.marks = []; this.generation = 0; this.version = 0; }
  take(records) {
    for (const record of records) {
      const last = this.steps[this.steps.length - 1];
      if (last && record.step <= last.step) continue;
      if (this.generation && record.generation > this.generation) {
        this.marks.push({x: record.step, text: `generation ${record.generation}, ${plural(record.ranks, "rank")}`});
      }
      this.generation = record.generation;
      this.steps.push(record);
    }
    if (this.steps.length > kStepsShown * 2) this.steps.splice(0, this.steps.length - kStepsShown);
    ++this.version;
  }
  of(value) {
    return this.steps.map((record) => ({x: record.step, y: value(record)})).filter((point) => Number.isFinite(point.y));
  }
}

class LogTail {
  constructor() {
    this.node = h("pre", {class: "log", tabindex: "0", "aria-label": "log"});
    this.empty = h("span", {class: "faint"}, "nothing is written yet");
    this.node.append(this.empty);
    this.open = new Map();  // of each process, the line that it has begun
    this.ranks = new Set();
  }
  take(chunks) {
    const atEnd = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 40;
    for (const chunk of chunks) {
      if (chunk.gap_bytes) { this.put(h("span", {class: "gap"}, `… ${bytes(chunk.gap_bytes)} are not kept any more\n`)); continue; }
      this.ranks.add(chunk.rank);
      const lines = ((this.open.get(chunk.process) ?? "") + chunk.text).split("\n");
      this.open.set(chunk.process, lines.pop());
      for (const line of lines.slice(-kLogLines)) this.line(chunk.rank, line);
    }
    while (this.node.childElementCount > kLogLines) this.node.firstElementChild.remove();
    if (atEnd) this.node.scrollTop = this.node.scrollHeight;
  }
  line(rank, text) {
    this.put(h("span", null, this.ranks.size > 1 ? h("span", {class: "rank"}, `${rank}  `) : null, `${text}\n`));
  }
  put(node) { this.empty.remove(); this.node.append(node); }
}

function jobPage(id, signal) {
  const head = part("div");
  const facts = part("div");
  const budgets = part("div");
  const recoveries = part("div");
  const ranks = part("div");
  const tasks = part("div");
  const spec = part("div");
  const loss = part("div");
  const speed = part("div");
  const curves = new Curves();
  const log = new LogTail();
  const events = new EventList({class: "events short"}, true);
  const charts = h("div", {class: "halves", hidden: true}, card("Loss", null, loss.node), card("Tokens a second", null, speed.node));
  const ranksCard = card("Ranks", null, ranks.node);
  const tasksCard = card("Tasks", "active, or not ended well", tasks.node);
  const recoveryCard = card("Last recovery", null, recoveries.node);
  const page = [
    h("p", {class: "sub"}, h("a", {href: "#/"}, "← all jobs")),
    head.node,
    h("div", {class: "split"},
        h("div", {class: "stack"}, charts, recoveryCard, ranksCard, tasksCard, card("Log", "as it comes", log.node)),
        h("div", {class: "stack"}, card("Job", null, facts.node), card("Charged to", null, budgets.node),
            card("Events", null, events.node),
            h("details", {class: "card"}, h("summary", null, "Spec, as it was resolved"), spec.node))),
  ];
  follow(`/api/v1/jobs/${id}/events`, {signal, take: (event) => { if (events.take(event)) refreshSoon(); }}).catch(onTrouble);
  let stepsAt = -1;
  let logAt = 0;
  const look = async () => {
    const job = await get(`/api/v1/jobs/${id}`, signal);
    if (stepsAt < 0) stepsAt = Math.max(0, job.step - kStepsShown);
    [stepsAt, logAt] = await Promise.all([
      readOn(`/api/v1/jobs/${id}/steps`, stepsAt, "steps", (steps) => curves.take(steps), signal),
      readOn(`/api/v1/jobs/${id}/logs`, logAt, "chunks", (chunks) => log.take(chunks), signal),
    ]);
    const second = job.ended_unix_ms ? 0 : Math.floor(now() / 1000);
    document.title = `${job.name} · Tutti`;
    head.show(job, drawHead);
    facts.show({job, second}, (data) => drawFacts(data.job));
    budgets.show(job.budgets, budgetRows);
    recoveries.show(job.recoveries, drawRecoveries);
    ranks.show({processes: job.processes, standstill: job.standstill}, drawRanks);
    tasks.show(job.telling_tasks, drawTasks);
    spec.show(job.spec, (text) => h("pre", {class: "spec"}, text));
    charts.hidden = curves.steps.length < 2;
    recoveryCard.hidden = job.recoveries.length === 0;
    ranksCard.hidden = job.processes.length === 0;
    tasksCard.hidden = job.telling_tasks.length === 0;
    loss.show(curves.version, () => chart(curves.of((step) => step.loss), curves.marks, (y) => y.toFixed(3), "loss by step"));
    speed.show(curves.version, () => chart(curves.of((step) => step.tokens / step.seconds), curves.marks, count, "tokens a second by step"));
  };
  return {page, look, title: `job ${id} · Tutti`};
}
