#include "ops/cli/text/top_text.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <algorithm>
#include <cstdlib>

#include "ops/cli/client/fields.h"
#include "protocol/base/counted.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// More rows than this push the rest off the screen.
constexpr std::size_t kRowsMax = 40;

// Of a count or size as Prometheus' text has it; 0 where it is none (NaN, less than nothing).
std::int64_t whole_number(double value) {
  constexpr double kMost = 1e18;
  return value > 0 ? static_cast<std::int64_t>(std::min(value, kMost)) : 0;
}

double sample_of(const TopInput& input, const std::string& name) {
  const auto found = input.metrics.find(name);
  return found == input.metrics.end() ? 0 : found->second;
}

// How much a counter has grown each second; 0 if that is not known.
double rate_of(const TopInput& now, const TopInput* before, const std::string& name) {
  if (before == nullptr) return 0;
  const double seconds = to_seconds(now.at - before->at);
  const double grown = sample_of(now, name) - sample_of(*before, name);
  return seconds > 0 && grown > 0 && before->metrics.contains(name) ? grown / seconds : 0;
}

json::object job_row(const json::value& job, const TopInput& now, const TopInput* before) {
  const auto named = [&](std::string_view metric) {
    return fmt::format("{}{{job=\"{}\"}}", metric, whole_of(job, "id"));
  };
  const double step_seconds = sample_of(now, named("tutti_job_step_duration_seconds"));
  json::object row;
  for (const char* key : {"id", "name", "kind", "owner", "state", "step", "steps", "ranks",
                          "restarts", "started_unix_ms", "submitted_unix_ms"}) {
    row[key] = member_of(job, key);
  }
  row["loss"] = nullptr;
  if (now.metrics.contains(named("tutti_job_loss")))
    row["loss"] = sample_of(now, named("tutti_job_loss"));
  row["steps_per_s"] = step_seconds > 0 ? 1 / step_seconds : 0.0;
  row["tokens_per_s"] = rate_of(now, before, named("tutti_job_tokens_total"));
  return row;
}

std::string rate_text(double value) { return value > 0 ? print_count(value) : "-"; }

std::string loss_text(const json::value& job) {
  return has(job, "loss") ? fmt::format("{:.4f}", number_of(job, "loss")) : "-";
}

std::string step_text(const json::value& job) {
  const std::int64_t steps = whole_of(job, "steps");
  return steps > 0 ? fmt::format("{}/{}", whole_of(job, "step"), steps) : "-";
}

std::string since_text(const json::value& job, WallTime now) {
  const std::int64_t began = whole_of(job, "started_unix_ms", whole_of(job, "submitted_unix_ms"));
  return began == 0 ? "-" : print_duration(static_cast<double>(now.unix_ms - began) / 1000);
}

// How many jobs are in each state, ended ones too: `tutti_jobs{kind="run",state="done"}` by state.
json::object count_states(const TopInput& input) {
  constexpr std::string_view kFamily = "tutti_jobs{";
  constexpr std::string_view kLabel = "state=\"";
  std::map<std::string, std::int64_t> counts;
  for (auto at = input.metrics.lower_bound(std::string(kFamily));
       at != input.metrics.end() && at->first.starts_with(kFamily); ++at) {
    const std::size_t label = at->first.find(kLabel);
    if (label == std::string::npos) continue;
    const std::size_t begin = label + kLabel.size();
    counts[at->first.substr(begin, at->first.find('"', begin) - begin)] += whole_number(at->second);
  }
  json::object out;
  for (const auto& [state, count] : counts) out[state] = count;
  return out;
}

}  // namespace

std::map<std::string, double> parse_metrics(std::string_view text) {
  std::map<std::string, double> out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t space = line.rfind(' ');
    if (line.empty() || line[0] == '#' || space == std::string_view::npos) continue;
    out[std::string(line.substr(0, space))] =
        std::strtod(std::string(line.substr(space + 1)).c_str(), nullptr);
  }
  return out;
}

json::value top_frame(const TopInput& now, const TopInput* before) {
  json::array jobs;
  for (const json::value& job : list_of(now.jobs, "jobs")) {
    jobs.push_back(job_row(job, now, before));
  }
  std::int64_t slots = 0;
  std::int64_t free_slots = 0;
  json::array nodes;
  for (const json::value& node : list_of(now.nodes, "nodes")) {
    slots += whole_of(node, "slots");
    free_slots += whole_of(node, "free_slots");
    json::object row;
    for (const char* key : {"name", "state", "slots", "free_slots", "cores", "memory_bytes"})
      row[key] = member_of(node, key);
    nodes.push_back(std::move(row));
  }
  json::object out;
  out["slots"] = slots;
  out["free_slots"] = free_slots;
  out["states"] = count_states(now);
  out["submits_per_s"] = rate_of(now, before, "tutti_jobs_submitted_total");
  out["decisions_per_s"] = rate_of(now, before, "tutti_decisions_total");
  out["coordinator_memory_bytes"] = sample_of(now, "tutti_process_resident_memory_bytes");
  out["ledger_failing"] = sample_of(now, "tutti_ledger_failing") > 0;
  out["jobs"] = std::move(jobs);
  out["nodes"] = std::move(nodes);
  return out;
}

std::string top_page(const json::value& frame, WallTime now, Paint paint) {
  const std::int64_t slots = whole_of(frame, "slots");
  std::string states;
  if (const json::object* counts = member_of(frame, "states").if_object()) {
    for (const auto& [state, count] : *counts) {
      states += fmt::format("{}{} {}", states.empty() ? "" : ", ", count.to_number<std::int64_t>(),
                            paint_word(std::string(state), paint));
    }
  }
  std::string page = fmt::format(
      "slots    {} of {} in use, {}\njobs     {}\nrates    {} submits/s, {} decisions/s; "
      "coordinator {}{}\n",
      slots - whole_of(frame, "free_slots"), slots, counted(list_of(frame, "nodes").size(), "node"),
      states.empty() ? "none" : states, print_count(number_of(frame, "submits_per_s")),
      print_count(number_of(frame, "decisions_per_s")),
      print_bytes_short(
          static_cast<std::uint64_t>(whole_number(number_of(frame, "coordinator_memory_bytes")))),
      flag_of(frame, "ledger_failing") ? "; its disk is full" : "");
  Table jobs({{"JOB", Align::right},
              {"NAME"},
              {"KIND"},
              {"STATE"},
              {"STEP", Align::right},
              {"LOSS", Align::right},
              {"STEPS/S", Align::right},
              {"TOKENS/S", Align::right},
              {"RANKS", Align::right},
              {"TIME", Align::right}});
  std::size_t rows = 0;
  for (const json::value& job : list_of(frame, "jobs")) {
    if (rows++ == kRowsMax) break;
    jobs.add({std::to_string(whole_of(job, "id")), shortened(text_of(job, "name"), 24),
              text_of(job, "kind"), text_of(job, "state"), step_text(job), loss_text(job),
              rate_text(number_of(job, "steps_per_s")), rate_text(number_of(job, "tokens_per_s")),
              std::to_string(whole_of(job, "ranks")), since_text(job, now)});
  }
  if (!jobs.empty()) page += '\n' + jobs.print(paint);
  const std::size_t all = list_of(frame, "jobs").size();
  if (all > kRowsMax) page += fmt::format("and {} more\n", all - kRowsMax);
  Table nodes({{"NODE"}, {"STATE"}, {"SLOTS", Align::right}, {"FREE", Align::right}});
  for (const json::value& node : list_of(frame, "nodes")) {
    nodes.add({text_of(node, "name"), text_of(node, "state"),
               std::to_string(whole_of(node, "slots")),
               std::to_string(whole_of(node, "free_slots"))});
  }
  if (!nodes.empty()) page += '\n' + nodes.print(paint);
  return page;
}

}  // namespace tutti::cli
