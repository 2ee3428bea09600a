#include "ops/cli/text/job_text.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/cli/client/fields.h"
#include "ops/cli/text/progress.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

std::string or_dash(std::string text) { return text.empty() ? "-" : text; }

std::string labels_of(const json::value& node) {
  std::string labels;
  for (const json::value& label : list_of(node, "labels")) {
    if (label.is_string()) labels += (labels.empty() ? "" : ", ") + std::string(label.as_string());
  }
  return labels;
}

std::string step_of(const json::value& job) {
  const json::value* tasks = job.as_object().if_contains("tasks");
  if (tasks != nullptr && tasks->is_object()) {
    const std::int64_t failed = whole_of(*tasks, "failed");
    return fmt::format("{}/{} tasks{}", whole_of(*tasks, "done"), whole_of(*tasks, "total"),
                       failed > 0 ? fmt::format(", {} failed", failed) : std::string());
  }
  const std::int64_t steps = whole_of(job, "steps");
  return steps > 0 ? fmt::format("{}/{}", whole_of(job, "step"), steps) : "-";
}

double seconds_between(std::int64_t from_ms, std::int64_t to_ms) {
  return static_cast<double>(std::max<std::int64_t>(to_ms - from_ms, 0)) / 1000;
}

// How long it ran, or has been running; a dash before that.
std::string time_of(const json::value& job, WallTime now) {
  const std::int64_t started = whole_of(job, "started_unix_ms");
  if (started == 0) return "-";
  const std::int64_t ended = whole_of(job, "ended_unix_ms");
  return print_duration(seconds_between(started, ended > 0 ? ended : now.unix_ms));
}

std::string ago(std::int64_t unix_ms, WallTime now) {
  return print_duration(seconds_between(unix_ms, now.unix_ms)) + " ago";
}

std::string failure_of(const json::value& job) {
  const json::value& failure = member_of(job, "failure");
  if (failure.is_string()) return text_of(job, "failure");
  const std::string kind = text_of(failure, "class");
  const std::string message = text_of(failure, "message");
  return kind.empty() || kind == "none" ? message : fmt::format("{} ({})", message, kind);
}

void add_row(std::string& page, std::string_view name, std::string_view value) {
  if (!value.empty()) page += fmt::format("{:<12} {}\n", name, value);
}

std::string indented(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    shown += "  " + std::string(text.substr(0, end));
    text.remove_prefix(end);
  }
  return shown;
}

// A checkpoint may be a number or an object with `step`.
std::string checkpoints_of(const json::value& job) {
  std::string steps;
  for (const json::value& checkpoint : list_of(job, "checkpoints")) {
    const std::int64_t step = checkpoint.is_number() ? checkpoint.to_number<std::int64_t>()
                                                     : whole_of(checkpoint, "step");
    steps += fmt::format("{}step-{}", steps.empty() ? "" : " ", step);
  }
  return steps;
}

// "1.0x": the rank's time for a shard of a step over the median rank's.
std::string straggler_of(const json::value& process) {
  const double score = number_of(process, "straggler");
  return score > 0 ? fmt::format("{:.1f}x", score) : "";
}

std::string count_of(const json::value& owner, std::string_view name) {
  const std::int64_t count = whole_of(owner, name);
  return count > 0 ? std::to_string(count) : "";
}

struct ProcessColumn {
  Table::Column column;
  std::string (*cell)(const json::value& process);
  bool always = true;  // also where no process has anything to show in it
};

const ProcessColumn kProcessColumns[] = {
    {{"JOB", Align::right}, [](const json::value& it) { return count_of(it, "job"); }},
    {{"RANK", Align::right},
     [](const json::value& it) { return std::to_string(whole_of(it, "rank")); }},
    {{"NODE"},
     [](const json::value& it) {
       const std::string node = text_of(it, "worker");
       return node.empty() ? text_of(it, "node") : node;
     }},
    {{"SLOT", Align::right},
     [](const json::value& it) { return std::to_string(whole_of(it, "slot")); }},
    {{"PID", Align::right},
     [](const json::value& it) { return std::to_string(whole_of(it, "pid")); }},
    {{"PHASE"}, [](const json::value& it) { return text_of(it, "phase"); }},
    {{"STEP", Align::right}, [](const json::value& it) { return count_of(it, "step"); }, false},
    {{"COLLECTIVE", Align::right},
     [](const json::value& it) { return count_of(it, "collective"); },
     false},
    {{"SLOWER", Align::right}, straggler_of, false},
    {{"LIMITS"}, [](const json::value& it) { return text_of(it, "limits"); }, false},
};

enum class Subject { job, node };

std::string processes_table(const json::value& owner, Subject subject, Paint paint) {
  const json::array& processes = list_of(owner, "processes");
  if (processes.empty()) return "";
  std::vector<Table::Column> titles;
  std::vector<std::vector<std::string>> rows(processes.size());
  for (const ProcessColumn& each : kProcessColumns) {
    if (subject == Subject::job && each.column.title == "JOB") continue;
    std::vector<std::string> cells;
    for (const json::value& process : processes) cells.push_back(each.cell(process));
    const bool says = std::any_of(cells.begin(), cells.end(),
                                  [](const std::string& cell) { return !cell.empty(); });
    if (!says && !each.always) continue;
    titles.push_back(each.column);
    for (std::size_t row = 0; row < rows.size(); ++row) rows[row].push_back(std::move(cells[row]));
  }
  Table table(std::move(titles));
  for (std::vector<std::string>& row : rows) table.add(std::move(row));
  return "processes\n" + indented(table.print(paint));
}

// "user 1/3, infrastructure 2/20, own 0/3, preempted 0, drained 1".
std::string budgets_of(const json::value& job) {
  const json::value& budgets = member_of(job, "budgets");
  if (!budgets.is_object()) return "";
  std::string shown;
  for (const std::string_view name : {"user", "infrastructure", "own", "preempted"}) {
    const json::value& budget = member_of(budgets, name);
    shown += fmt::format("{} {}", name, whole_of(budget, "used"));
    if (has(budget, "of")) shown += fmt::format("/{}", whole_of(budget, "of"));
    shown += ", ";
  }
  return shown + fmt::format("drained {}", whole_of(budgets, "drained"));
}

// Of an array: those that are active or did not end well.
std::string tasks_table(const json::value& job, Paint paint) {
  const json::array& tasks = list_of(job, "telling_tasks");
  if (tasks.empty()) return "";
  Table table({{"TASK", Align::right}, {"JOB", Align::right}, {"STATE"}, {"MESSAGE"}});
  for (const json::value& task : tasks) {
    const std::string phase = text_of(task, "phase");
    table.add({std::to_string(whole_of(task, "index")), std::to_string(whole_of(task, "job")),
               phase.empty() ? text_of(task, "state") : phase, text_of(task, "message")});
  }
  return "tasks\n" + indented(table.print(paint));
}

}  // namespace

std::string jobs_table(const json::array& jobs, WallTime now, Paint paint) {
  if (jobs.empty()) return "no jobs\n";
  Table table({{"JOB", Align::right},
               {"NAME"},
               {"KIND"},
               {"OWNER"},
               {"STATE"},
               {"STEP", Align::right},
               {"RANKS", Align::right},
               {"RESTARTS", Align::right},
               {"TIME", Align::right},
               {"SUBMITTED", Align::right}});
  for (const json::value& job : jobs) {
    table.add({std::to_string(whole_of(job, "id")), text_of(job, "name"), text_of(job, "kind"),
               or_dash(text_of(job, "owner")), text_of(job, "state"), step_of(job),
               std::to_string(whole_of(job, "ranks")), std::to_string(whole_of(job, "restarts")),
               time_of(job, now), ago(whole_of(job, "submitted_unix_ms"), now)});
  }
  return table.print(paint);
}

std::string job_page(const json::value& job, WallTime now, Paint paint) {
  std::string page;
  add_row(page, "job", fmt::format("{} {}", whole_of(job, "id"), text_of(job, "name")));
  add_row(page, "kind", text_of(job, "kind"));
  add_row(page, "owner", text_of(job, "owner"));
  add_row(page, "state", paint_word(text_of(job, "state"), paint));
  add_row(page, "waits for", text_of(job, "waiting"));
  add_row(page, "stands still", text_of(job, "standstill"));
  add_row(page, is_terminal(job) ? "failure" : "last loss", failure_of(job));
  const json::value& failure = member_of(job, "failure");
  for (const std::string_view name : {"code", "signal"}) {
    if (has(failure, name)) add_row(page, name, std::to_string(whole_of(failure, name)));
  }
  if (has(job, "exit_code")) add_row(page, "exit code", std::to_string(whole_of(job, "exit_code")));
  const bool array = has(job, "tasks");
  if (array) add_row(page, "tasks", step_of(job));
  if (whole_of(job, "steps") > 0) add_row(page, "step", step_of(job));
  if (!array) {  // an array has none of its own
    add_row(page, "ranks", std::to_string(whole_of(job, "ranks")));
    add_row(page, "generation", std::to_string(whole_of(job, "generation")));
    add_row(page, "restarts", std::to_string(whole_of(job, "restarts")));
    add_row(page, "budgets", budgets_of(job));
  }
  add_row(page, "submitted", ago(whole_of(job, "submitted_unix_ms"), now));
  add_row(page, "time", time_of(job, now));
  add_row(page, "folder", text_of(job, "folder"));
  add_row(page, "checkpoints", checkpoints_of(job));
  const json::array& recoveries = list_of(job, "recoveries");
  if (!recoveries.empty()) page += "recoveries\n";
  for (const json::value& recovery : recoveries) page += "  " + print_recovery(recovery) + '\n';
  page += tasks_table(job, paint);
  page += processes_table(job, Subject::job, paint);
  if (const std::string spec = text_of(job, "spec"); !spec.empty()) {
    page += "spec\n" + indented(spec);
    if (page.back() != '\n') page += '\n';
  }
  return page;
}

std::string nodes_table(const json::array& nodes, Paint paint) {
  if (nodes.empty()) return "no nodes\n";
  Table table({{"NODE"},
               {"STATE"},
               {"SLOTS", Align::right},
               {"FREE", Align::right},
               {"CORES", Align::right},
               {"MEMORY", Align::right},
               {"HOST"},
               {"LABELS"},
               {"TAKEN OUT FOR"},
               {"CPU"}});
  for (const json::value& node : nodes) {
    table.add(
        {text_of(node, "name"), text_of(node, "state"), std::to_string(whole_of(node, "slots")),
         std::to_string(whole_of(node, "free_slots")), std::to_string(whole_of(node, "cores")),
         print_bytes_short(static_cast<std::uint64_t>(whole_of(node, "memory_bytes"))),
         text_of(node, "host"), or_dash(labels_of(node)),
         or_dash(text_of(member_of(node, "drain"), "reason")), text_of(node, "cpu")});
  }
  return table.print(paint);
}

namespace {

// How its device reaches others.
void add_links(const json::value& reading, std::vector<std::string>& parts) {
  std::int64_t linked = 0;
  std::vector<std::int64_t> mb_per_s;
  for (const json::value& link : list_of(reading, "links")) {
    linked += whole_of(link, "count") > 0 ? 1 : 0;
    if (has(link, "mb_per_s")) mb_per_s.push_back(whole_of(link, "mb_per_s"));
  }
  if (linked > 0) parts.push_back(fmt::format("linked to {} others", linked));
  if (!mb_per_s.empty()) {
    const auto [least, most] = std::ranges::minmax(mb_per_s);
    const auto gb = [](std::int64_t mb) { return static_cast<double>(mb) / 1000; };
    parts.push_back(fmt::format("copies to others at {:.1f}{} GB/s", gb(least),
                                least == most ? "" : fmt::format(" to {:.1f}", gb(most))));
  }
}

// What its driver tells of a device, in one line; empty: nothing.
std::string reading_of(const json::value& device) {
  const json::value& reading = member_of(device, "reading");
  if (reading.is_null()) return "";
  std::vector<std::string> parts;
  if (const auto bytes = whole_of(device, "memory_bytes"); bytes > 0) {
    parts.push_back(fmt::format(
        "{}, {} free", print_bytes_short(static_cast<std::uint64_t>(bytes)),
        print_bytes_short(static_cast<std::uint64_t>(whole_of(reading, "memory_free_bytes")))));
  }
  if (const auto degrees = whole_of(reading, "temperature_celsius"); degrees > 0) {
    parts.push_back(fmt::format("{} C", degrees));
  }
  if (const auto watts = whole_of(reading, "power_limit_watts"); watts > 0) {
    parts.push_back(fmt::format("{} W at most", watts));
  }
  add_links(reading, parts);
  std::string reasons;
  for (const json::value& reason : list_of(reading, "throttle_reasons")) {
    if (reason.is_string())
      reasons += (reasons.empty() ? "" : "; ") + std::string(reason.as_string());
  }
  if (!reasons.empty()) parts.push_back("slowed down (" + reasons + ")");
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

std::string node_page(const json::value& node, Paint paint) {
  std::string page;
  add_row(page, "node", text_of(node, "name"));
  add_row(page, "state", paint_word(text_of(node, "state"), paint));
  const json::value& drain = member_of(node, "drain");
  if (!drain.is_null()) {
    add_row(page, text_of(drain, "cause") == "quarantine" ? "set aside" : "drained",
            text_of(drain, "reason"));
    if (has(drain, "since_unix_ms"))
      add_row(page, "since", print_date(whole_of(drain, "since_unix_ms")));
    add_row(page, "takes work", text_of(node, "drain_ends"));
    if (has(drain, "due_unix_ms"))
      add_row(page, "empty by", print_date(whole_of(drain, "due_unix_ms")));
  }
  add_row(page, "blamed for", text_of(node, "score"));
  add_row(page, "labels", labels_of(node));
  add_row(page, "limits", text_of(node, "limits"));
  add_row(page, "host", text_of(node, "host"));
  add_row(page, "version", text_of(node, "version"));
  add_row(page, "cpu", text_of(node, "cpu"));
  for (const json::value& device : list_of(node, "devices")) {
    add_row(page, "device", text_of(device, "uuid") + "  " + text_of(device, "name"));
    add_row(page, "", reading_of(device));
  }
  add_row(page, "driven by", text_of(node, "device_stack"));
  add_row(page, "cores", std::to_string(whole_of(node, "cores")));
  add_row(page, "memory",
          print_bytes_short(static_cast<std::uint64_t>(whole_of(node, "memory_bytes"))));
  add_row(page, "slots",
          fmt::format("{}, {} free", whole_of(node, "slots"), whole_of(node, "free_slots")));
  return page + processes_table(node, Subject::node, paint);
}

std::string steps_title() {
  return fmt::format("{:>8}  {:>9}  {:>9}  {:>10}  {:>8}  {:>8}  {:>4}  {:>5}  {}\n", "STEP",
                     "LOSS", "NORM", "RATE", "TOKENS/S", "TIME", "GEN", "RANKS", "WEIGHTS");
}

std::string step_row(const json::value& record) {
  const double seconds = number_of(record, "seconds");
  const double tokens = number_of(record, "tokens");
  // What was not finite is null.
  const auto figure = [&](std::string_view key) {
    return has(record, key) ? fmt::format("{:.5f}", number_of(record, key)) : "-";
  };
  const std::string skipped =
      flag_of(record, "skipped")
          ? fmt::format("  skipped, with losses scaled by {}", number_of(record, "loss_scale"))
          : "";
  return fmt::format("{:>8}  {:>9}  {:>9}  {:>10.3e}  {:>8}  {:>8}  {:>4}  {:>5}  {}{}\n",
                     whole_of(record, "step"), figure("loss"), figure("grad_norm"),
                     number_of(record, "rate"), seconds > 0 ? print_count(tokens / seconds) : "-",
                     print_duration(seconds), whole_of(record, "generation"),
                     whole_of(record, "ranks"), text_of(record, "weights"), skipped);
}

std::string event_row(const json::value& event, Paint paint) {
  const std::string kind = text_of(event, "kind");
  const std::string padding(kind.size() < 17 ? 17 - kind.size() : 0, ' ');
  const std::int64_t job = whole_of(event, "job");
  return fmt::format("{:>6}  {}  {:>7}  {}{}  {}\n", whole_of(event, "seq"),
                     print_clock(whole_of(event, "unix_ms")),
                     job > 0 ? fmt::format("job {}", job) : "", paint_word(kind, paint), padding,
                     text_of(event, "message"));
}

}  // namespace tutti::cli
