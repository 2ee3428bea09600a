#include "tests/simulation/scenario/coverage.h"

#include <fmt/core.h>

#include <boost/describe/enum_to_string.hpp>

#include <algorithm>
#include <string_view>

#include "tests/simulation/faults/faults.h"

namespace tutti::simulation {

namespace {

// Of jobs; and two that any of those who hold slots may be in besides.
constexpr std::string_view kStates[] = {"queued",     "placed",   "starting", "running",
                                        "recovering", "stopping", "leaving",  "resizing"};

constexpr std::string_view kMustReach[] = {
    "a batch was torn by a crash",
    "a batch was durable before the crash and never spoken of",
    "a crash came between the effects of a decision",
    "a spool lost its end",
    "a log said that its end was missing",
    "a snapshot replaced the journal",
    "the ledger failed and recovered",
    "records could not be stored for a while",
    "a frame was lost",
    "a frame was overtaken",
    "a frame arrived twice",
    "a frame met a cut of one direction",
    "a sync was slow",
    "the clock jumped before a deadline",
    "an observer dropped a frame",
    "an observer held a frame back",
    "a worker found what an earlier one left",
    "a worker ended as it was asked to",
    "a worker was replaced under its ranks",
    "a hang was told by a process that stood still",
    "a program was ended because the coordinator was silent",
    "a rank updated before it obeyed an abort",
    "a rank waited for one that it was cut off from",
    "a newcomer copied its state from a peer",
    "a checkpoint was loaded",
    "a checkpoint's part was torn",
    "a checkpoint's part could not be written",
    "a commit was repeated",
    "an old checkpoint was pruned",
    "a key was used again",
    "a key with another spec was refused",
    "a submit was refused for a while",
    "a submit was refused for good",
    "a submit was refused for its owner's quota",
    "a job waited for its owner's quota",
    "a key stood for a job that was forgotten",
    "a job was preempted",
    "a preempted job went on from its checkpoint",
    "a job went on with more ranks",
    "a job went on with fewer ranks",
    "an array waited for its own limit",
    "a task of an array failed",
    "a task was cancelled before its turn",
    "a task came back to the queue",
    "tasks stood in line on a slot",
    "a dependency released its job",
    "a job ended because its dependency did not hold",
    "a rank came back with its state",
    "ranks moved off a drained node",
    "a server's successor took over",
    "a quota was made less than its owner held",
    "a job was placed by its labels",
    "a job was placed by its kind of device",
    "a job was placed by its device's memory",
    "a job was given the smaller of a node's devices",
    "a training job had a GPU's numerics profile",
    "a job waited for its time",
    "a node was drained",
    "a node was set aside for its losses",
    "a node that had stayed took work again",
    "a node was set aside for programs that could not be started",
    "a program could not be started",
    "a program that could not be started was started elsewhere",
    "a budget for the infrastructure's failures was used up",
    "a broken gang went before who had waited",
    "on_loss.wait was over, and the job failed",
    "on_loss.wait was over, and the job queued again",
    "on_loss.wait was over, and the job shrank",
    "on_loss.wait was over, and a broken gang's seats were given up",
    "a head of the queue had a promised start",
    "a job was put before the head of the queue",
    "an overdue job went before a higher priority",
    "a job of who had less went first",
    "limit.time was over",
    "limit.queued was over",
    "retries.on called an exit code the infrastructure's",
    "a wait before the next try was over",
    "a hang was told by its collective",
    "a save for a worker that ends took longer than its notice",
    "a node was set aside for failures of several users",
    "a save that was asked for",
    "a survivor finished the pending step",
    "a worker read a hole of a spool",
    "all ranks stopped after the same step",
    "flags that were agreed in a broken group were honoured",
};

// A queued job has no process, and one that is placed none that runs.
bool possible(const FaultRow& fault, std::string_view state) {
  if (fault.reach == Reach::cluster) return true;
  if (state == "queued") return false;
  return fault.reach == Reach::machine || state != "placed";
}

std::uint64_t count(const Coverage& coverage, const FaultRow& fault, std::string_view state) {
  const auto at = coverage.states.find({std::string(fault.name), std::string(state)});
  return at == coverage.states.end() ? 0 : at->second;
}

std::uint64_t value_of(const std::map<std::string, std::uint64_t>& map, std::string_view key) {
  const auto at = map.find(std::string(key));
  return at == map.end() ? 0 : at->second;
}

}  // namespace

const std::string_view* find_state(std::string_view name) {
  const auto* at = std::find(std::begin(kStates), std::end(kStates), name);
  return at == std::end(kStates) ? nullptr : at;
}

std::vector<std::string_view> states_of(const coordinator::JobRecord& job) {
  if (coordinator::is_terminal(job.state)) return {};
  std::vector<std::string_view> out = {boost::describe::enum_to_string(job.state, "?")};
  if (job.release.to == coordinator::ReleaseTo::none) return out;
  out.emplace_back(job.release.to == coordinator::ReleaseTo::resize ? "resizing" : "leaving");
  return out;
}

void Coverage::add(const Coverage& other) {
  runs += other.runs;
  events += other.events;
  simulated += other.simulated;
  for (const auto& [fault, times] : other.faults) faults[fault] += times;
  for (const auto& [cell, times] : other.states) states[cell] += times;
  for (const auto& [path, times] : other.reached) reached[path] += times;
  for (const auto& [path, count] : other.reached_by) reached_by[path] += count;
}

std::vector<std::string> empty_cells(const Coverage& coverage) {
  std::vector<std::string> out;
  for (const FaultRow& fault : faults()) {
    for (const std::string_view state : kStates) {
      if (!possible(fault, state) || count(coverage, fault, state) != 0) continue;
      out.push_back(fmt::format("{} x {}", fault.name, state));
    }
  }
  return out;
}

std::vector<std::string> unreached(const Coverage& coverage) {
  std::vector<std::string> out;
  for (const std::string_view path : kMustReach) {
    if (!coverage.reached.contains(std::string(path))) out.emplace_back(path);
  }
  return out;
}

std::string rarest_paths(const Coverage& coverage, std::size_t most) {
  std::vector<std::string_view> paths(std::begin(kMustReach), std::end(kMustReach));
  std::stable_sort(paths.begin(), paths.end(), [&](std::string_view one, std::string_view other) {
    return value_of(coverage.reached_by, one) < value_of(coverage.reached_by, other);
  });
  paths.resize(std::min(most, paths.size()));
  std::string out = fmt::format("of {} runs:\n", coverage.runs);
  for (const std::string_view path : paths) {
    out += fmt::format("{:>6} ({} times)  {}\n", value_of(coverage.reached_by, path),
                       value_of(coverage.reached, path), path);
  }
  return out;
}

std::string table(const Coverage& coverage) {
  std::string out = fmt::format("{:<18}{:>9}", "fault", "injected");
  for (const std::string_view state : kStates) out += fmt::format("{:>12}", state);
  out += '\n';
  for (const FaultRow& fault : faults()) {
    const auto injected = coverage.faults.find(std::string(fault.name));
    out += fmt::format("{:<18}{:>9}", fault.name,
                       injected == coverage.faults.end() ? 0 : injected->second);
    for (const std::string_view state : kStates) {
      out += possible(fault, state) ? fmt::format("{:>12}", count(coverage, fault, state))
                                    : fmt::format("{:>12}", ".");
    }
    out += '\n';
  }
  return out;
}

}  // namespace tutti::simulation
