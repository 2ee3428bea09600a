#include "coordinator/scheduler/explain/lines.h"

#include <fmt/core.h>

#include <algorithm>

#include "protocol/base/counted.h"

namespace tutti::coordinator {

std::string span(std::int64_t ms) {
  constexpr std::int64_t kMinute = 60'000;
  constexpr std::int64_t kHour = 60 * kMinute;
  if (ms < 2 * kMinute) return fmt::format("{} s", std::max<std::int64_t>(0, (ms + 999) / 1000));
  if (ms < 2 * kHour) return fmt::format("{} min", ms / kMinute);
  return fmt::format("{:.1f} h", static_cast<double>(ms) / static_cast<double>(kHour));
}

std::string in_time(std::int64_t ms) { return "in " + span(ms); }

namespace {

std::string list_of(const std::vector<JobId>& jobs, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < std::min(jobs.size(), kListedInLines); ++i) {
    out += (out.empty() ? (jobs.size() == 1 ? "job " : "jobs ") : ", ") + to_string(jobs[i]);
  }
  if (count > std::min(jobs.size(), kListedInLines)) {
    out += fmt::format(" and {} more", count - std::min(jobs.size(), kListedInLines));
  }
  return out;
}

std::string line_of(const Desk& desk, const ExplainHolder& holder) {
  std::string end = "no limit says when it ends";
  if (holder.endless) end = "a server, it does not end";
  if (holder.ends_unix_ms) {
    end = fmt::format("ends {} at the latest", in_time(*holder.ends_unix_ms - desk.wall.unix_ms));
  }
  return fmt::format("  held by job {} ({}, {}, priority {}): {}, {}", holder.job.value,
                     holder.name, holder.owner, holder.priority, counted(holder.slots, "slot"),
                     end);
}

void write_start(const Desk& desk, Explanation& out) {
  // These say it themselves.
  if (out.reason == ExplainReason::begin || out.reason == ExplainReason::backoff) return;
  if (out.reason == ExplainReason::room && out.ranks_free >= out.ranks_min &&
      out.must_end.empty()) {
    return;
  }
  if (!out.earliest_unix_ms) {
    if (out.must_end.empty()) return;
    out.lines.push_back(
        fmt::format("when is not known: not all {} have a limit.time",
                    out.reason == ExplainReason::behind ? "that run or are before it" : "of them"));
    return;
  }
  const std::string when = in_time(*out.earliest_unix_ms - desk.wall.unix_ms);
  if (out.reason == ExplainReason::behind) {
    out.lines.push_back(fmt::format("starts about {}, if all use up their limits", when));
  } else if (out.reason == ExplainReason::dependency) {
    out.lines.push_back(fmt::format("what it waits for has ended {} at the latest", when));
  } else if (out.reason == ExplainReason::quota_running ||
             out.reason == ExplainReason::quota_slots) {
    out.lines.push_back(fmt::format("its owner's quota has room {} at the latest", when));
  } else {
    out.lines.push_back(fmt::format("there is room {} at the latest", when));
  }
}

void write_turn(const Desk& desk, Explanation& out) {
  const ExplainTurn& turn = out.turn;
  const auto when = [&](std::int64_t unix_ms) { return in_time(unix_ms - desk.wall.unix_ms); };
  if (turn.overdue) {
    out.lines.push_back(
        fmt::format("it has waited for {}, more than a day: whatever their priority, only jobs "
                    "that were submitted before it and have waited as long, and those that lost "
                    "ranks, go before it",
                    span(turn.waited_ms)));
  } else if (turn.overdue_unix_ms && out.position > 1) {
    out.lines.push_back(fmt::format(
        "it has waited for {}; {} that is a day, and {}", span(turn.waited_ms),
        when(*turn.overdue_unix_ms),
        turn.passes == 0
            ? std::string("those before it stay there, as they are older")
            : fmt::format("it passes {} of the {}{} before it, whatever their priority",
                          turn.passes, turn.passes_of + 1 < out.position ? "first " : "",
                          turn.passes_of)));
  }
  if (turn.fair_delay_ms > 0) {
    out.lines.push_back(fmt::format(
        "its user has had much of the cluster: among jobs of its priority its turn comes as if it "
        "had been submitted {} later",
        span(turn.fair_delay_ms)));
  }
  if (turn.passed_unix_ms) {
    out.lines.push_back(
        fmt::format("job {}, which is behind it, passes it {}: it will have "
                    "waited for a day",
                    turn.passed_by.value, when(*turn.passed_unix_ms)));
  }
}

}  // namespace

void write_lines(const Desk& desk, Explanation& out) {
  out.lines.push_back(out.job ? fmt::format("job {}: {}", out.job.value, out.summary)
                              : out.summary);
  if (out.position != 0) {
    std::string line = fmt::format("position {} in the queue", out.position);
    if (!out.ahead.empty()) line += "; before it: " + list_of(out.ahead, out.position - 1);
    out.lines.push_back(std::move(line));
    write_turn(desk, out);
  }
  if (out.state != JobState::queued && out.position == 0 && out.reason != ExplainReason::room) {
    return;
  }
  out.lines.push_back(fmt::format("needs {}; {} fit now, {} if nothing else ran",
                                  out.ranks_max > out.ranks_min
                                      ? fmt::format("{} to {} ranks", out.ranks_min, out.ranks_max)
                                      : counted(out.ranks_min, "rank"),
                                  out.ranks_free, out.ranks_possible));
  for (const std::string& missing : out.missing) out.lines.push_back("  missing: " + missing);
  for (std::size_t i = 0; i < std::min(out.holders.size(), kListedInLines); ++i) {
    out.lines.push_back(line_of(desk, out.holders[i]));
  }
  if (!out.preempts.empty()) {
    out.lines.push_back("asked to make room: " + list_of(out.preempts, out.preempts.size()));
  } else if (!out.must_end.empty()) {
    out.lines.push_back("has to wait for the end of: " +
                        list_of(out.must_end, out.must_end.size()));
  }
  write_start(desk, out);
  for (const ExplainWorker& worker : out.workers) {
    out.lines.push_back(fmt::format("  {}: {}", worker.worker, worker.why));
  }
  if (out.workers_left_out != 0) {
    out.lines.push_back(fmt::format("  and {} more workers", out.workers_left_out));
  }
}

}  // namespace tutti::coordinator
