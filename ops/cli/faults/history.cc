#include "ops/cli/faults/history.h"

#include <boost/json/array.hpp>

#include <algorithm>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// A worker's clock and this one's are compared by messages that took a while.
constexpr std::int64_t kClockSlackMs = 250;

std::uint64_t count_at(const json::value& object, std::string_view key) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, whole_of(object, key)));
}

RecoverySeen recovery_seen(const json::value& recovery) {
  RecoverySeen out;
  out.generation = count_at(recovery, "generation");
  out.cause = text_of(recovery, "cause");
  out.seen_unix_ms = whole_of(recovery, "seen_unix_ms");
  out.first_step_ms = whole_of(recovery, "first_step_ms", -1);
  if (out.first_step_ms < 0 && flag_of(recovery, "over"))
    out.first_step_ms = whole_of(recovery, "copied_ms", -1);
  out.lost_steps = count_at(recovery, "lost_steps");
  out.planned = flag_of(recovery, "planned");
  return out;
}

// Until when the job may still be losing ranks by it.
std::int64_t over_ms(const InjectedFault& fault, std::int64_t otherwise) {
  if (row_of(fault.plan.kind).lasts == FaultLasts::no) return fault.unix_ms;
  return fault.over_unix_ms != 0 ? fault.over_unix_ms : otherwise;
}

}  // namespace

StepSeen step_seen(const json::value& record) {
  return {.step = count_at(record, "step"),
          .generation = count_at(record, "generation"),
          .ranks = count_at(record, "ranks"),
          .tokens = count_at(record, "tokens"),
          .weights = text_of(record, "weights")};
}

EventSeen event_seen(const json::value& event) {
  return {.seq = count_at(event, "seq"),
          .unix_ms = whole_of(event, "unix_ms"),
          .job = count_at(event, "job"),
          .kind = text_of(event, "kind"),
          .message = text_of(event, "message"),
          .generation = count_at(event, "generation")};
}

JobSeen job_seen(const json::value& job) {
  JobSeen out;
  out.id = count_at(job, "id");
  out.state = text_of(job, "state");
  out.generation = count_at(job, "generation");
  out.step = count_at(job, "step");
  out.exit_code = whole_of(job, "exit_code", -1);
  const json::value& failure = member_of(job, "failure");
  out.failure = text_of(failure, "message");
  out.failure_class = text_of(failure, "class");
  const json::value& budgets = member_of(job, "budgets");
  const auto used = [&](std::string_view whose) {
    return count_at(member_of(budgets, whose), "used");
  };
  out.charges = {used("user"), used("infrastructure"), used("own")};
  for (const json::value& recovery : list_of(job, "recoveries")) {
    out.recoveries.push_back(recovery_seen(recovery));
  }
  for (const json::value& checkpoint : list_of(job, "checkpoints")) {
    out.checkpoints.push_back(count_at(checkpoint, "step"));
  }
  return out;
}

NodeSeen node_seen(const json::value& node) {
  NodeSeen out{text_of(node, "name"), count_at(node, "slots"), count_at(node, "free_slots"), {}};
  for (const json::value& process : list_of(node, "processes")) {
    out.held.emplace_back(count_at(process, "slot"), count_at(process, "process"));
  }
  std::sort(out.held.begin(), out.held.end());
  return out;
}

void add_log(LogSeen& log, const json::value& chunk) {
  log.gap_bytes += count_at(chunk, "gap_bytes");
  if (!has(chunk, "process")) return;
  std::string& text = log.text[count_at(chunk, "process")];
  // A character that is cut between two answers is shown as two that cannot be read: only what is
  // ASCII is compared.
  for (const char c : text_of(chunk, "text")) {
    if (static_cast<unsigned char>(c) < 0x80 && text.size() < kLogBytesCompared) text += c;
  }
}

bool may_lose_ranks(const InjectedFault& fault) {
  return fault.outcome == InjectionOutcome::injected &&
         row_of(fault.plan.kind).loses == FaultLoses::ranks;
}

bool explains(const InjectedFault& fault, const RecoverySeen& recovery, std::int64_t end_unix_ms) {
  // The end of a process is seen at once, silence after a lease or the job's `hang`; on a machine
  // that is busy with something else, either later.
  constexpr std::int64_t kSeenWithinMs = 30'000;
  if (!may_lose_ranks(fault)) return false;
  const std::int64_t began = recovery.seen_unix_ms;
  if (began + kClockSlackMs < fault.unix_ms) return false;
  return began <= over_ms(fault, end_unix_ms) + kSeenWithinMs;
}

std::vector<std::optional<std::size_t>> recoveries_of_faults(const FaultHistory& history) {
  const std::vector<RecoverySeen>& recoveries = history.job.recoveries;
  std::vector<std::optional<std::size_t>> out(history.faults.size());
  // Each recovery is of the newest fault that explains it.
  for (std::size_t r = 0; r < recoveries.size(); ++r) {
    std::optional<std::size_t> newest;
    for (std::size_t i = 0; i < history.faults.size(); ++i) {
      if (recoveries[r].planned || !explains(history.faults[i], recoveries[r], history.end_unix_ms))
        continue;
      if (!newest || history.faults[i].unix_ms > history.faults[*newest].unix_ms) newest = i;
    }
    if (newest && !out[*newest]) out[*newest] = r;
  }
  // Who has none yet may have come while one was under way, or just before it with another.
  for (std::size_t i = 0; i < history.faults.size(); ++i) {
    const InjectedFault& fault = history.faults[i];
    const bool once = row_of(fault.plan.kind).lasts == FaultLasts::no;
    if (!may_lose_ranks(fault)) continue;
    for (std::size_t r = 0; r < recoveries.size() && !out[i]; ++r) {
      const RecoverySeen& recovery = recoveries[r];
      const bool under_way =
          recovery.seen_unix_ms <= fault.unix_ms &&
          (recovery.first_step_ms < 0 ||
           fault.unix_ms <= recovery.seen_unix_ms + recovery.first_step_ms + kClockSlackMs);
      const bool with_another = once && explains(fault, recovery, history.end_unix_ms);
      if (!recovery.planned && (under_way || with_another)) out[i] = r;
    }
  }
  return out;
}

}  // namespace tutti::cli
