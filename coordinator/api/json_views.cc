#include "coordinator/api/json_views.h"

#include <boost/describe/enum_to_string.hpp>

namespace tutti::api {

namespace json = boost::json;

namespace {

template <class Enum>
std::string_view name_of(Enum value) {
  return boost::describe::enum_to_string(value, "unknown");
}

json::value number_or_null(std::int64_t unix_ms) {
  return unix_ms == 0 ? json::value(nullptr) : json::value(unix_ms);
}

// A phase of a recovery: null until it is reached.
json::value phase(std::int64_t ms) { return ms < 0 ? json::value(nullptr) : json::value(ms); }

json::object json_of(const coordinator::ProcessView& process) {
  return {{"process", process.process.value},
          {"job", process.job.value},
          {"generation", process.generation.value},
          {"rank", process.rank},
          {"worker", process.worker},
          {"slot", process.slot},
          {"pid", process.pid},
          {"phase", process.phase},
          {"step", process.step},
          {"collective", process.collective},
          {"straggler", process.straggler},
          {"limits", process.limits}};
}

json::array json_of_texts(const std::vector<std::string>& texts) {
  json::array out;
  for (const std::string& text : texts) out.emplace_back(text);
  return out;
}

json::array json_of(const std::vector<coordinator::ProcessView>& processes) {
  json::array out;
  for (const auto& process : processes) out.push_back(json_of(process));
  return out;
}

// Programs and servers make no step that would end it.
json::object json_of(const coordinator::Recovery& recovery, const std::string& kind) {
  const bool over = (kind == "train" ? recovery.first_step_ms : recovery.copied_ms) >= 0;
  return {{"over", over},
          {"generation", recovery.generation.value},
          {"cause", recovery.cause},
          {"seen_unix_ms", recovery.seen_unix_ms},
          {"seen_ms", 0},
          {"aborted_ms", phase(recovery.aborted_ms)},
          {"regrouped_ms", phase(recovery.regrouped_ms)},
          {"copied_ms", phase(recovery.copied_ms)},
          {"first_step_ms", phase(recovery.first_step_ms)},
          {"from_step", recovery.from_step},
          {"lost_steps", recovery.lost_steps},
          {"decided_ms", phase(recovery.decided_ms)},
          {"planned", recovery.planned}};
}

// Bytes of the character that begins with `first`; 0: none does.
std::size_t character_bytes(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  if (first >= 0xf0 && first < 0xf5) return 4;
  return 0;
}

// Whether the second byte rules out overlong forms, surrogates and what lies beyond U+10FFFF.
bool second_fits(unsigned char first, unsigned char second) {
  switch (first) {
    case 0xe0: return second >= 0xa0;
    case 0xed: return second < 0xa0;
    case 0xf0: return second >= 0x90;
    case 0xf4: return second < 0x90;
    default: return true;
  }
}

}  // namespace

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  std::size_t at = 0;
  while (at < bytes.size()) {
    const auto first = static_cast<unsigned char>(bytes[at]);
    const std::size_t size = character_bytes(first);
    bool sound = size > 0 && at + size <= bytes.size();
    for (std::size_t i = 1; sound && i < size; ++i) {
      const auto next = static_cast<unsigned char>(bytes[at + i]);
      sound = (next & 0xc0) == 0x80 && (i > 1 || second_fits(first, next));
    }
    if (sound) {
      out.append(bytes.substr(at, size));
      at += size;
    } else {
      out.append("\xef\xbf\xbd");
      ++at;
    }
  }
  return out;
}

namespace {

// Null for a job that is not an array.
json::value tasks_of(const coordinator::TaskCounts& tasks) {
  if (tasks.total() == 0) return nullptr;
  return json::object{{"total", tasks.total()}, {"waiting", tasks.waiting},
                      {"active", tasks.active}, {"done", tasks.done},
                      {"failed", tasks.failed}, {"cancelled", tasks.cancelled}};
}

json::value number_or_null(const std::optional<std::int32_t>& number) {
  return number ? json::value(*number) : json::value(nullptr);
}

json::object budget(std::uint32_t used, std::uint32_t of) { return {{"used", used}, {"of", of}}; }

json::object json_of(const coordinator::Budgets& budgets) {
  json::object out{{"user", budget(budgets.user, budgets.user_max)},
                   {"infrastructure", budget(budgets.infrastructure, budgets.infrastructure_max)},
                   {"own", budget(budgets.own, budgets.own_max)},
                   {"preempted", budget(budgets.preempted, budgets.preempted_max)},
                   {"drained", budgets.drained},
                   {"resized", budgets.resized}};
  if (budgets.preempted_max == 0) out["preempted"].as_object()["of"] = nullptr;
  return out;
}

}  // namespace

json::object json_of(const coordinator::JobSummary& job) {
  return {{"id", job.job.value},
          {"name", job.name},
          {"kind", job.kind},
          {"owner", job.owner},
          {"state", name_of(job.state)},
          {"generation", job.generation.value},
          {"ranks", job.ranks},
          {"restarts", job.restarts},
          {"step", job.step},
          {"steps", job.steps},
          {"exit_code", number_or_null(job.exit_code)},
          {"submitted_unix_ms", job.submitted_unix_ms},
          {"started_unix_ms", number_or_null(job.started_unix_ms)},
          {"ended_unix_ms", number_or_null(job.ended_unix_ms)},
          {"priority", job.priority},
          {"tasks", tasks_of(job.tasks)},
          {"memory_peak_bytes", job.memory_peak_bytes},
          {"cpu_seconds", static_cast<double>(job.cpu_ms) / 1e3},
          {"budgets", json_of(job.budgets)}};
}

json::object json_of(const coordinator::JobDetail& job) {
  json::object out = json_of(job.summary);
  out["spec"] = job.spec;
  out["folder"] = job.folder;
  out["waiting"] = job.waiting;
  json::array checkpoints;
  for (const auto& checkpoint : job.checkpoints) {
    checkpoints.push_back(json::object{{"step", checkpoint.step}, {"folder", checkpoint.folder}});
  }
  out["checkpoints"] = std::move(checkpoints);
  json::array recoveries;
  for (const auto& recovery : job.recoveries)
    recoveries.push_back(json_of(recovery, job.summary.kind));
  out["recoveries"] = std::move(recoveries);
  out["failure"] = nullptr;
  if (job.outcome.failure != wire::FailureClass::none || !job.outcome.message.empty()) {
    out["failure"] = json::object{{"class", name_of(job.outcome.failure)},
                                  {"message", job.outcome.message},
                                  {"code", number_or_null(job.outcome.code)},
                                  {"signal", number_or_null(job.outcome.signal)}};
  }
  out["processes"] = json_of(job.processes);
  out["standstill"] = job.standstill;
  out["leaving"] = nullptr;
  if (job.release.to != coordinator::ReleaseTo::none) {
    out["leaving"] =
        json::object{{"reason", job.release.reason}, {"due_unix_ms", job.release.due_unix_ms}};
  }
  json::array tasks;
  for (const auto& task : job.tasks) tasks.push_back(json_of(task));
  out["telling_tasks"] = std::move(tasks);
  return out;
}

json::object json_of(const coordinator::TaskView& task) {
  return {{"index", task.index},
          {"job", task.job.value},
          {"state", name_of(task.state)},
          {"phase", task.phase},
          {"exit_code", number_or_null(task.exit_code)},
          {"code", number_or_null(task.code)},
          {"signal", number_or_null(task.signal)},
          {"message", task.message}};
}

json::object json_of(const coordinator::Explanation& explained) {
  const auto ids = [](const std::vector<JobId>& jobs) {
    json::array out;
    for (const JobId job : jobs) out.emplace_back(job.value);
    return out;
  };
  const auto time = [](const std::optional<std::int64_t>& unix_ms) {
    return unix_ms ? json::value(*unix_ms) : json::value(nullptr);
  };
  json::array holders;
  for (const auto& holder : explained.holders) {
    holders.push_back(json::object{{"job", holder.job.value},
                                   {"name", holder.name},
                                   {"owner", holder.owner},
                                   {"priority", holder.priority},
                                   {"slots", holder.slots},
                                   {"ends_unix_ms", time(holder.ends_unix_ms)},
                                   {"endless", holder.endless}});
  }
  json::array workers;
  for (const auto& worker : explained.workers) {
    workers.push_back(
        json::object{{"worker", worker.worker}, {"ranks", worker.ranks}, {"why", worker.why}});
  }
  const auto& turn = explained.turn;
  const json::value passed_by =
      turn.passed_by ? json::value(turn.passed_by.value) : json::value(nullptr);
  json::object waiting{{"waited_ms", turn.waited_ms},
                       {"overdue", turn.overdue},
                       {"overdue_unix_ms", time(turn.overdue_unix_ms)},
                       {"passes", turn.passes},
                       {"passes_of", turn.passes_of},
                       {"fair_delay_ms", turn.fair_delay_ms},
                       {"passed_by", passed_by},
                       {"passed_unix_ms", time(turn.passed_unix_ms)}};
  return {{"job", explained.job.value},
          {"state", name_of(explained.state)},
          {"reason", name_of(explained.reason)},
          {"summary", explained.summary},
          {"position", explained.position},
          {"ahead", ids(explained.ahead)},
          {"turn", explained.position == 0 ? json::value(nullptr) : json::value(waiting)},
          {"ranks_min", explained.ranks_min},
          {"ranks_max", explained.ranks_max},
          {"ranks_free", explained.ranks_free},
          {"ranks_possible", explained.ranks_possible},
          {"missing", json_of_texts(explained.missing)},
          {"holders", std::move(holders)},
          {"must_end", ids(explained.must_end)},
          {"preempts", ids(explained.preempts)},
          {"earliest_unix_ms", time(explained.earliest_unix_ms)},
          {"workers", std::move(workers)},
          {"workers_left_out", explained.workers_left_out},
          {"lines", json_of_texts(explained.lines)}};
}

json::value json_of(const coordinator::Drain& drain) {
  if (drain.cause == coordinator::DrainCause::none) return nullptr;
  return json::object{{"cause", name_of(drain.cause)},
                      {"reason", drain.reason},
                      {"since_unix_ms", drain.since_unix_ms},
                      {"due_unix_ms", drain.due_unix_ms},
                      {"empty_unix_ms", number_or_null(drain.empty_unix_ms)}};
}

json::object json_of(const wire::DeviceReading& reading) {
  json::array links;
  for (const wire::DeviceLink& link : reading.links) {
    links.push_back(json::object{
        {"uuid", link.uuid},
        {"count", link.count},
        {"mb_per_s", link.mb_per_s == 0 ? json::value() : json::value(link.mb_per_s)}});
  }
  return {{"memory_free_bytes", reading.memory_free_bytes},
          {"temperature_celsius", reading.temperature_celsius},
          {"slowdown_celsius", reading.slowdown_celsius},
          {"power_limit_watts", reading.power_limit_watts},
          {"throttle_reasons", json_of_texts(reading.throttle_reasons)},
          {"links", std::move(links)},
          {"socket", reading.socket < 0 ? json::value() : json::value(reading.socket)}};
}

json::array devices_of(const coordinator::NodeView& node) {
  json::array out;
  for (const wire::DeviceState& device : node.devices) {
    json::object one{
        {"uuid", device.uuid}, {"name", device.name}, {"memory_bytes", device.memory_bytes}};
    const auto reading =
        std::find_if(node.readings.begin(), node.readings.end(),
                     [&](const wire::DeviceReading& each) { return each.uuid == device.uuid; });
    one["reading"] = reading == node.readings.end() ? json::value() : json_of(*reading);
    out.push_back(std::move(one));
  }
  return out;
}

json::object json_of(const coordinator::NodeView& node) {
  return {{"name", node.name},
          {"host", node.host},
          {"state", node.state},
          {"slots", node.slots},
          {"free_slots", node.free_slots},
          {"cores", node.cores},
          {"memory_bytes", node.memory_bytes},
          {"cpu", node.cpu},
          {"version", node.version},
          {"labels", json_of_texts(node.labels)},
          {"limits", node.limits},
          {"profiles", json_of_texts(node.profiles)},
          {"devices", devices_of(node)},
          {"device_stack", node.device_stack},
          {"drain", json_of(node.drain)},
          {"score", node.score},
          {"score_users", node.score_users},
          {"score_losses", node.score_losses},
          {"drain_ends", node.drain_ends},
          {"processes", json_of(node.processes)}};
}

json::object json_of(const coordinator::Event& event) {
  json::object out{{"seq", event.seq},
                   {"unix_ms", event.unix_ms},
                   {"job", event.job.value},
                   {"kind", name_of(event.kind)},
                   {"message", event.message}};
  if (event.generation) out["generation"] = event.generation.value;
  if (event.rank >= 0) out["rank"] = event.rank;
  if (event.step != 0) out["step"] = event.step;
  if (!event.worker.empty()) out["worker"] = event.worker;
  return out;
}

json::array json_of(const std::vector<coordinator::LogChunk>& chunks) {
  json::array out;
  for (std::size_t i = 0; i < chunks.size();) {
    const coordinator::LogChunk& first = chunks[i];
    if (first.gap_bytes > 0) {
      out.push_back(json::object{{"gap_bytes", first.gap_bytes}});
      ++i;
      continue;
    }
    // Records of one process in a row are one text, so that a character cut between two of them is
    // whole again.
    std::string bytes;
    for (; i < chunks.size() && chunks[i].process == first.process && chunks[i].gap_bytes == 0; ++i)
      bytes += chunks[i].bytes;
    out.push_back(json::object{{"rank", first.rank},
                               {"generation", first.generation.value},
                               {"process", first.process.value},
                               {"text", valid_utf8(bytes)}});
  }
  return out;
}

}  // namespace tutti::api
