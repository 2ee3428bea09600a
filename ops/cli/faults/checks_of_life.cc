// How the job fared: I1, I2, I5 to I8, I10, I17, I18.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>

#include "ops/cli/faults/checks.h"

namespace tutti::cli {

namespace {

bool is_end(std::string_view state) {
  return state == "done" || state == "failed" || state == "cancelled";
}

std::string counted(std::uint64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

// Orders that may each have cost the job a rank.
std::uint64_t losses_of(const FaultHistory& history) {
  std::uint64_t count = 0;
  for (const InjectedFault& fault : history.faults) {
    if (may_lose_ranks(fault)) count += std::max(1U, fault.orders);
  }
  return count;
}

constexpr std::array<std::string_view, 3> kEndEvents = {"finished", "failed", "cancelled"};

bool is_end_event(std::string_view kind) {
  return std::find(kEndEvents.begin(), kEndEvents.end(), kind) != kEndEvents.end();
}

// Events that only a job has which has not ended.
bool is_event_of_life(std::string_view kind) {
  constexpr std::string_view kKinds[] = {"waiting",   "placed",    "started",      "running",
                                         "regrouped", "recovered", "restarted",    "resized",
                                         "releasing", "preempted", "rank_returned"};
  return std::find(std::begin(kKinds), std::end(kKinds), kind) != std::end(kKinds);
}

}  // namespace

CheckFinding check_accepted(const FaultHistory& history) {
  if (!history.submitted) return not_checked("the job was there before");
  if (history.job.id == 0) return violated("the job is not known any more");
  if (history.kept_spec != history.accepted_spec) {
    return violated(fmt::format("job {} has another spec than was sent", history.job.id));
  }
  return held(fmt::format("job {}", history.job.id));
}

CheckFinding check_key(const FaultHistory& history) {
  if (!history.submitted) return not_checked("the job was there before");
  if (history.repeated == 0) return not_checked("the submit could not be repeated");
  if (history.repeated == history.job.id) return held(fmt::format("job {}", history.job.id));
  return violated(
      fmt::format("the same key gave job {} and job {}", history.job.id, history.repeated));
}

CheckFinding check_room(const FaultHistory& history) {
  for (const NodeSeen& node : history.nodes) {
    std::map<std::uint64_t, int> used;
    for (const auto& [slot, process] : node.held) used[slot] = 1;
    if (node.free + used.size() > node.slots) {
      return violated(fmt::format("node {} has {} free and {} used of {} slots", node.name,
                                  node.free, used.size(), node.slots));
    }
  }
  if (history.node_looks == 0) return not_checked("the nodes were not seen");
  return held(counted(history.node_looks, "look"));
}

CheckFinding check_slots(const FaultHistory& history) {
  for (const NodeSeen& node : history.nodes) {
    for (std::size_t i = 1; i < node.held.size(); ++i) {
      if (node.held[i].first != node.held[i - 1].first) continue;
      return violated(fmt::format("slot {} of node {} is held by the processes {} and {}",
                                  node.held[i].first, node.name, node.held[i - 1].second,
                                  node.held[i].second));
    }
  }
  if (history.node_looks == 0) return not_checked("the nodes were not seen");
  return held(counted(history.node_looks, "look"));
}

CheckFinding check_life(const FaultHistory& history) {
  std::string end;
  for (const StateSeen& seen : history.states) {
    if (!end.empty() && seen.state != end) {
      return violated(fmt::format("it had ended {} and then was {}", end, seen.state));
    }
    if (is_end(seen.state)) end = seen.state;
  }
  for (std::size_t i = 1; i < history.states.size(); ++i) {
    if (history.states[i].generation < history.states[i - 1].generation) {
      return violated(fmt::format("generation {} came after {}", history.states[i].generation,
                                  history.states[i - 1].generation));
    }
  }
  std::uint64_t ends = 0;
  std::uint64_t events = 0;
  for (const EventSeen& event : history.events) {
    if (event.job != history.job.id) continue;
    ++events;
    if (ends > 0 && is_event_of_life(event.kind)) {
      return violated(fmt::format("event {} ({}) follows its end", event.seq, event.kind));
    }
    ends += is_end_event(event.kind) ? 1 : 0;
  }
  const std::uint64_t expected = is_end(history.job.state) ? 1 : 0;
  if (ends != expected) {
    return violated(fmt::format("it is {}, and its events tell of {}", history.job.state,
                                counted(ends, "end")));
  }
  return held(
      fmt::format("{}, {}", counted(history.states.size(), "state"), counted(events, "event")));
}

CheckFinding check_budgets(const FaultHistory& history) {
  const Charges& charges = history.job.charges;
  const std::string text = fmt::format("user {}, infrastructure {}, own {}", charges.user,
                                       charges.infrastructure, charges.own);
  // A program that fails by itself while it is under faults is charged for that.
  const bool failed_itself = history.job.failure_class == "user";
  if (charges.user > 0 && !failed_itself) return violated(text + ": the user did nothing");
  if (charges.own > 0 || history.job.failure_class == "own") {
    return violated(text + ": Tutti's own processes failed; `tutti logs` says how");
  }
  const std::uint64_t losses = losses_of(history);
  if (charges.infrastructure > losses) {
    return violated(fmt::format("{}, of {}", text, counted(losses, "fault")));
  }
  const std::size_t unplanned = static_cast<std::size_t>(
      std::count_if(history.job.recoveries.begin(), history.job.recoveries.end(),
                    [](const RecoverySeen& recovery) { return !recovery.planned; }));
  if (unplanned > 0 && charges.infrastructure == 0 && charges.user == 0) {
    return violated(fmt::format("{}: {} cost nothing", text, counted(unplanned, "interruption")));
  }
  return held(fmt::format("{}, of {}", text, counted(losses, "fault")));
}

CheckFinding check_causes(const FaultHistory& history) {
  std::uint64_t unplanned = 0;
  for (const RecoverySeen& recovery : history.job.recoveries) {
    if (recovery.planned) continue;
    ++unplanned;
    const bool explained = std::any_of(
        history.faults.begin(), history.faults.end(),
        [&](const InjectedFault& fault) { return explains(fault, recovery, history.end_unix_ms); });
    // Those from before this run are another's.
    const bool before = !history.submitted && !history.states.empty() &&
                        recovery.generation <= history.states.front().generation;
    if (explained || before) continue;
    return violated(fmt::format("no fault explains the recovery to generation {}: {}",
                                recovery.generation, recovery.cause));
  }
  return held(unplanned == 1 ? std::string("1 recovery") : fmt::format("{} recoveries", unplanned));
}

CheckFinding check_liveness(const FaultHistory& history) {
  const std::string bound =
      fmt::format("{:.0f} s", static_cast<double>(history.file.bound_ms) / 1e3);
  if (!history.recovered_ms) {
    return violated(fmt::format("{} at step {}, not within {} of the last fault", history.job.state,
                                history.job.step, bound));
  }
  if (*history.recovered_ms > static_cast<std::int64_t>(history.file.bound_ms)) {
    return violated(fmt::format("after {} ms, and the bound is {}", *history.recovered_ms, bound));
  }
  return held(fmt::format("after {} ms (bound {})", *history.recovered_ms, bound));
}

CheckFinding check_answers(const FaultHistory& history) {
  if (!history.unanswered.empty()) return violated(history.unanswered);
  return held(counted(history.answered, "request"));
}

CheckFinding check_left(const FaultHistory& history) {
  if (!history.left_known) return not_checked("the job has not ended");
  if (history.left.empty()) return held("none");
  std::string pids;
  for (const std::int64_t pid : history.left) pids += fmt::format(" {}", pid);
  return violated("still there:" + pids);
}

CheckFinding check_schedule(const FaultHistory& history) {
  std::uint64_t injected = 0;
  std::string first;
  for (const InjectedFault& fault : history.faults) {
    if (fault.outcome == InjectionOutcome::injected) {
      ++injected;
    } else if (first.empty()) {
      first = fmt::format("fault {} ({} at {}): {}", fault.plan.number,
                          row_of(fault.plan.kind).name, print_moment(fault.plan),
                          fault.why.empty() ? "its moment did not come" : fault.why);
    }
  }
  const std::string count = fmt::format("{} of {}", injected, history.faults.size());
  return first.empty() ? held(count) : violated(fmt::format("{}; {}", count, first));
}

CheckFinding check_end(const FaultHistory& history) {
  if (history.job.state == history.file.expect) return held(history.job.state);
  return violated(fmt::format("{}, not {}{}{}", history.job.state, history.file.expect,
                              history.job.failure.empty() ? "" : ": ", history.job.failure));
}

}  // namespace tutti::cli
