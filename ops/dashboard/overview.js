// The cluster at a glance: nodes and their slots, what runs and waits, what ended, what happens.

const kSlotsShown = 64;
const kNodesShown = 100;
const kJobsShown = 200;
const kExplained = 5;

function figure(title, value, whole, under, bar) {
  return h("section", {class: "card figure"}, h("h2", null, title),
      h("p", {class: "value"}, value, whole === null ? null : h("small", null, ` / ${whole}`)), bar, h("p", {class: "under"}, under));
}

function drawFigures({nodes, active, queued, ended}) {
  const usable = nodes.filter((node) => node.state === "ready");
  const slots = nodes.filter((node) => node.state !== "lost").reduce((sum, node) => sum + node.slots, 0);
  const used = nodes.filter((node) => node.state !== "lost").reduce((sum, node) => sum + node.slots - node.free_slots, 0);
  const others = Object.entries(Object.groupBy(nodes.filter((node) => node.state !== "ready"), (node) => node.state))
      .map(([state, some]) => `${some.length} ${state}`).join(", ");
  const recovering = active.filter((job) => job.state === "recovering").length;
  const failed = ended.filter((job) => job.state === "failed").length;
  return [
    figure("Slots in use", used, slots, slots ? `${slots - used} free` : "no worker yet", meter(used, slots)),
    figure("Nodes ready", usable.length, nodes.length, others || "all of them"),
    figure("Running", active.length, null, recovering ? `${recovering} recovering` : "none in trouble"),
    figure("Queued", queued.length, null, queued.length ? `oldest waits ${duration(now() - Math.min(...queued.map((job) => job.submitted_unix_ms)))}` : "nobody waits"),
    figure("Ended lately", ended.length, null, failed ? `${failed} failed` : "none failed"),
  ];
}

function slotsOf(node, names) {
  const taken = new Map(node.processes.map((process) => [process.slot, process]));
  const shown = Math.min(node.slots, kSlotsShown);
  const cells = Array.from({length: shown}, (_, slot) => {
    const process = taken.get(slot);
    if (!process) return h("span", {title: `slot ${slot}: free`});
    const name = names.get(process.job) ?? `job ${process.job}`;
    return h("a", {href: `#/jobs/${process.job}`, "--hue": hue(process.job),
      title: `slot ${slot}: ${name}, rank ${process.rank}, ${process.phase}`, "aria-label": `slot ${slot}: ${name}, rank ${process.rank}`});
  });
  return h("div", {class: "slots"}, cells, node.slots > shown ? h("span", {class: "more"}, `+${node.slots - shown}`) : null);
}

const kWorstFirst = ["lost", "quarantined", "suspect", "draining", "drained", "expected", "ready"];

function drawNodes({nodes, names}) {
  if (nodes.length === 0) return h("p", {class: "empty"}, "no worker has joined");
  const named = new Map(names);
  const sorted = [...nodes].sort((a, b) =>
      kWorstFirst.indexOf(a.state) - kWorstFirst.indexOf(b.state) || a.name.localeCompare(b.name, "en", {numeric: true}));
  const rows = sorted.slice(0, kNodesShown).map((node) => h("tr", null,
      h("td", null, h("div", {class: "name"}, node.name),
          h("div", {class: "sub"}, node.drain?.reason || node.score || node.labels.filter((label) => label !== "device=cpu").join(", "))),
      h("td", {class: "tight"}, pill(node.state)),
      h("td", null, slotsOf(node, named)),
      h("td", {class: "n wide"}, `${node.slots - node.free_slots}/${node.slots}`),
      h("td", {class: "n wide"}, node.cores),
      h("td", {class: "n wide"}, bytes(node.memory_bytes)),
      h("td", {class: "wide sub"}, node.devices[0]?.name || node.cpu)));
  return [
    table([["Node"], ["State"], ["Slots"], ["Used", "n wide"], ["Cores", "n wide"], ["Memory", "n wide"], ["Device", "wide"]], rows),
    nodes.length > kNodesShown ? h("p", {class: "faint"}, `and ${nodes.length - kNodesShown} more that are well`) : null,
  ];
}

// Where there is no room for a column of its own, the state stands below the name.
function nameCell(job, under) {
  return h("td", null, h("a", {class: "name", href: `#/jobs/${job.id}`}, job.name),
      h("div", {class: "sub"}, `${job.id} · ${job.kind} · ${job.owner}`, under ? h("div", null, under) : null),
      job.state === "queued" ? null : h("div", {class: "narrow"}, pill(job.state)));
}

function drawActive(jobs) {
  if (jobs.length === 0) return h("p", {class: "empty"}, "nothing runs");
  return table([["Job"], ["State", "wide"], ["Progress"], ["Ranks", "n wide"], ["Restarts", "n wide"], ["Charged", "wide"], ["Time", "n"]],
      jobs.map((job) => h("tr", null, nameCell(job),
          h("td", {class: "tight wide"}, pill(job.state)),
          h("td", null, progressOf(job)),
          h("td", {class: "n wide"}, job.tasks ? "–" : job.ranks),
          h("td", {class: "n wide"}, job.restarts),
          h("td", {class: "wide sub"}, budgetWords(job) || h("span", {class: "faint"}, "–")),
          h("td", {class: "n"}, timeOf(job)))));
}

function drawQueued({jobs, why}) {
  if (jobs.length === 0) return h("p", {class: "empty"}, "nobody waits");
  const reasons = new Map(why);
  return table([["Job"], ["Priority", "n wide"], ["Charged", "wide"], ["Waits", "n"]],
      jobs.map((job) => h("tr", null, nameCell(job, reasons.get(job.id)),
          h("td", {class: "n wide"}, job.priority),
          h("td", {class: "wide sub"}, budgetWords(job) || h("span", {class: "faint"}, "–")),
          h("td", {class: "n"}, duration(now() - job.submitted_unix_ms)))));
}

function drawEnded(jobs) {
  if (jobs.length === 0) return h("p", {class: "empty"}, "nothing has ended yet");
  return table([["Job"], ["End", "wide"], ["Progress", "wide"], ["Restarts", "n wide"], ["Took", "n wide"], ["Ended", "n"]],
      jobs.map((job) => h("tr", null, nameCell(job),
          h("td", {class: "tight wide"}, pill(job.state)),
          h("td", {class: "wide"}, progressOf(job)),
          h("td", {class: "n wide"}, job.restarts),
          h("td", {class: "n wide"}, timeOf(job)),
          h("td", {class: "n"}, `${duration(now() - job.ended_unix_ms)} ago`))));
}

function overview(signal) {
  const figures = part("div", {class: "figures"});
  const nodes = part("div");
  const active = part("div");
  const queued = part("div");
  const ended = part("div");
  const events = new EventList();
  const page = [
    figures.node,
    h("div", {class: "split"},
        h("div", {class: "stack"}, card("Nodes", null, nodes.node), card("At work", null, active.node),
            card("Queue", null, queued.node), card("Ended", "the newest", ended.node)),
        card("Events", "live", events.node)),
  ];
  const look = async () => {
    const [found, open, past] = await Promise.all([
      get("/api/v1/nodes", signal),
      get(`/api/v1/jobs?state=unfinished&limit=${kJobsShown}`, signal),
      get("/api/v1/jobs?state=done,failed,cancelled&last=12", signal),
    ]);
    const waiting = open.jobs.filter((job) => job.state === "queued");
    const working = open.jobs.filter((job) => job.state !== "queued").reverse();
    const why = await Promise.all(waiting.slice(0, kExplained).map(async (job) => {
      const answer = await get(`/api/v1/jobs/${job.id}/explain`, signal).catch(() => null);
      return [job.id, answer?.summary ?? ""];
    }));
    const newest = past.jobs.reverse();
    const names = open.jobs.map((job) => [job.id, job.name]);
    // Its time goes on without news: those that say how long are drawn each time.
    const second = Math.floor(now() / 1000);
    figures.show({nodes: found.nodes, active: working, queued: waiting, ended: newest, second}, drawFigures);
    nodes.show({nodes: found.nodes, names}, drawNodes);
    active.show({jobs: working, second}, ({jobs}) => drawActive(jobs));
    queued.show({jobs: waiting, why, second}, drawQueued);
    ended.show({jobs: newest, minute: Math.floor(second / 10)}, ({jobs}) => drawEnded(jobs));
  };
  const since = now() - 3600 * 1000;
  follow(`/api/v1/events?since_unix_ms=${Math.floor(since)}`, {
    signal, take: (event) => { if (events.take(event)) refreshSoon(); },
  }).catch(onTrouble);
  return {page, look, title: "Tutti"};
}
