#include "coordinator/life/hang.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "coordinator/cluster/job_life.h"
#include "coordinator/cluster/recovery.h"
#include "coordinator/membership/membership.h"

namespace tutti::coordinator {

namespace {

// A process that runs beats every second; heartbeats and a busy machine add to that.
constexpr Duration kBeatMax = std::chrono::seconds(5);
constexpr std::uint32_t kChangesMin = 8;  // before a rank's pace is known
constexpr double kStragglerScore = 1.5;
constexpr std::uint32_t kStepsMin = 20;  // before a rank is called slow
constexpr double kSmoothing = 0.1;       // of a step's time in the mean of the last ones

const ProcessSoft* soft_of(const Desk& desk, ProcessId process) {
  const auto at = desk.processes.find(process);
  return at == desk.processes.end() ? nullptr : &at->second;
}

// One rank that is still at work.
struct Standing {
  std::uint32_t rank = 0;
  ProcessId process;
  const ProcessSoft* soft = nullptr;
};

std::vector<Standing> standings_of(const Desk& desk, const JobRecord& job) {
  std::vector<Standing> out;
  for (std::uint32_t rank = 0; rank < job.members.size(); ++rank) {
    const ProcessSoft* soft = soft_of(desk, job.members[rank]);
    if (!job.members[rank] || soft == nullptr) continue;
    if (soft->finished && soft->finished->generation == job.generation) continue;
    out.push_back({rank, job.members[rank], soft});
  }
  return out;
}

bool beats(const Desk& desk, const ProcessSoft& soft) {
  // Ranks of earlier versions do not beat at all.
  return soft.progress.beat == 0 || desk.now - soft.beat_at <= kBeatMax;
}

std::string seconds(Duration duration) { return fmt::format("{:.0f} s", to_seconds(duration)); }

bool is_watched(const JobTerms& terms) { return terms.kind == "train" || terms.kind == "serve"; }

// How long the rank may stand still where it is.
Duration patience_with(const Desk& desk, const JobTerms& terms, const ProcessSoft& soft) {
  constexpr int kPauses = 20;
  if (terms.hang_after_ms != 0) return std::chrono::milliseconds(terms.hang_after_ms);
  if (terms.kind == "serve") {
    return beats(desk, soft) ? desk.settings.hang_max : desk.settings.hang_min;
  }
  const std::string& phase = soft.progress.phase;
  const bool stepping = phase == "forward" || phase == "exchange" || phase == "update";
  if (!stepping || soft.changes < kChangesMin) return desk.settings.hang_max;
  return std::clamp<Duration>(kPauses * soft.longest_pause, desk.settings.hang_min,
                              desk.settings.hang_max);
}

// How often is looked for it.
Duration interval_of(const Desk& desk, const JobTerms& terms) {
  const Duration patience = terms.hang_after_ms == 0
                                ? desk.settings.hang_min
                                : Duration(std::chrono::milliseconds(terms.hang_after_ms));
  // One of a group's ranks is always the last, and when its time is over is known; a server's may
  // begin to stand still at any moment.
  return terms.kind == "serve" ? patience / 4 : patience;
}

void act(Desk& desk, JobId id, const Standstill& found) {
  const JobRecord& job = desk.job(id);
  const ProcessRecord process = *desk.durable.process(found.culprit);
  ++desk.counters.hangs;
  desk.note({.job = id,
             .kind = EventKind::hang,
             .message = found.message,
             .generation = job.generation,
             .rank = static_cast<std::int32_t>(process.rank),
             .worker = process.worker});
  if (job.terms.hang_action == "tell") return;
  if (job.terms.hang_action == "fail") {
    return stop_job(desk, id,
                    {.state = JobState::failed,
                     .exit_code = 3,
                     .failure = wire::FailureClass::infrastructure,
                     .message = found.message});
  }
  give_up_rank(desk, id, found.culprit, {wire::FailureClass::infrastructure, found.message});
}

void tell_stragglers(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  const std::vector<double> scores = straggler_scores(desk, job);
  for (std::uint32_t rank = 0; rank < scores.size(); ++rank) {
    if (!job.members[rank]) continue;
    ProcessSoft& soft = desk.processes[job.members[rank]];
    const bool slow = scores[rank] >= kStragglerScore && soft.steps >= kStepsMin;
    if (!slow || std::exchange(soft.straggler_told, true)) continue;
    const ProcessRecord& process = *desk.durable.process(job.members[rank]);
    desk.note({.job = id,
               .kind = EventKind::straggler,
               .message = fmt::format("{} computes {:.1f} times as long as the median rank",
                                      describe(job, process), scores[rank]),
               .generation = job.generation,
               .rank = static_cast<std::int32_t>(rank),
               .worker = process.worker});
  }
}

// Nothing is known of a rank whose node says nothing: that is for the node's lease.
bool is_heard(const Desk& desk, ProcessId process) {
  const ProcessRecord* record = desk.durable.process(process);
  if (record == nullptr) return false;
  const auto link = desk.links.find(record->worker);
  return link != desk.links.end() && !is_suspect(desk, link->second);
}

// Of a server's ranks the one that stands still longest; each answers for itself.
Standstill find_silent_server(const Desk& desk, const JobRecord& job) {
  Standstill out;
  for (const Standing& each : standings_of(desk, job)) {
    const ProcessSoft& soft = *each.soft;
    if (!is_heard(desk, each.process)) continue;
    const bool silent = !beats(desk, soft);
    if (!silent && soft.progress.phase != "answering") continue;
    const Duration stood = desk.now - (silent ? soft.beat_at : soft.progress_at);
    if (stood <= out.stood) continue;
    out = {.culprit = each.process,
           .message = silent
                          ? fmt::format("rank {} stands still since {}: its process does nothing",
                                        each.rank, seconds(stood))
                          : fmt::format("rank {} has requests open and made no pass since {}",
                                        each.rank, seconds(stood)),
           .stood = stood};
  }
  return out;
}

}  // namespace

void watch_for_hang(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  if (!is_watched(job.terms)) return;
  for (const ProcessId member : job.members) {
    if (!member) continue;
    ProcessSoft& soft = desk.processes[member];
    soft.progress_at = desk.now;
    soft.beat_at = desk.now;
    soft.longest_pause = {};
    soft.changes = 0;
    soft.compute_us = 0;
    soft.steps = 0;
    soft.hang_told = false;
    soft.straggler_told = false;
  }
  desk.soft(id).hang_due = desk.now + interval_of(desk, job.terms);
}

void note_progress(Desk& desk, const wire::RankProgress& progress) {
  const auto at = desk.processes.find(progress.process);
  if (at == desk.processes.end() || at->second.progress == progress) return;
  ProcessSoft& soft = at->second;
  if (progress.beat != soft.progress.beat) soft.beat_at = desk.now;
  const bool stepped = progress.step != soft.progress.step;
  const bool moved = stepped || progress.phase != soft.progress.phase ||
                     progress.collective != soft.progress.collective ||
                     progress.generation != soft.progress.generation;
  soft.progress = progress;
  if (!moved) return;
  soft.longest_pause = std::max(soft.longest_pause, desk.now - soft.progress_at);
  soft.progress_at = desk.now;
  soft.beat_at = desk.now;
  soft.hang_told = false;
  ++soft.changes;
  if (!stepped || progress.compute_us == 0) return;
  const auto taken = static_cast<double>(progress.compute_us);
  soft.compute_us =
      soft.steps == 0 ? taken : soft.compute_us + kSmoothing * (taken - soft.compute_us);
  ++soft.steps;
}

Standstill find_standstill(const Desk& desk, const JobRecord& job) {
  if (job.terms.kind == "serve") return find_silent_server(desk, job);
  const std::vector<Standing> standings = standings_of(desk, job);
  if (standings.empty()) return {};
  const auto behind = [](const Standing& left, const Standing& right) {
    return std::pair(left.soft->progress.collective, left.soft->progress_at) <
           std::pair(right.soft->progress.collective, right.soft->progress_at);
  };
  Standing last = *std::min_element(standings.begin(), standings.end(), behind);
  // The first of those that are ahead of it waits the longest.
  const Standing* first_ahead = nullptr;
  for (const Standing& each : standings) {
    if (each.soft->progress.collective <= last.soft->progress.collective) continue;
    if (first_ahead == nullptr || each.soft->progress_at < first_ahead->soft->progress_at) {
      first_ahead = &each;
    }
  }
  if (first_ahead != nullptr) {
    const wire::RankProgress& there = first_ahead->soft->progress;
    return {
        .culprit = last.process,
        .message = fmt::format(
            "rank {} has not entered collective {} of step {}; the others wait there since {}{}",
            last.rank, there.collective, there.step,
            seconds(desk.now - first_ahead->soft->progress_at),
            beats(desk, *last.soft) ? "" : " (its process stands still)"),
        .stood = desk.now - last.soft->progress_at};
  }
  // All in one place: who does not even beat is to blame, else who came there first.
  for (const Standing& each : standings) {
    if (beats(desk, *each.soft)) continue;
    if (beats(desk, *last.soft) || each.soft->beat_at < last.soft->beat_at) last = each;
  }
  const wire::RankProgress& there = last.soft->progress;
  const Duration stood = desk.now - last.soft->progress_at;
  return {.culprit = last.process,
          .message = fmt::format(
              "rank {} made no progress for {} in phase {} of step {}{}{}", last.rank,
              seconds(stood), there.phase, there.step,
              there.collective == 0 ? "" : fmt::format(", collective {}", there.collective),
              beats(desk, *last.soft) ? "" : " (its process stands still)"),
          .stood = stood};
}

void check_hang(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  // Looked at again by then, also should this not end the generation.
  soft.hang_due = desk.now + interval_of(desk, job.terms);
  tell_stragglers(desk, id);
  const Standstill found = find_standstill(desk, job);
  if (!found.culprit) return;
  ProcessSoft& culprit = desk.processes[found.culprit];
  const Instant due = desk.now + (patience_with(desk, job.terms, culprit) - found.stood);
  if (desk.now < due) {
    soft.hang_due = std::min(*soft.hang_due, due);
    return;
  }
  if (std::exchange(culprit.hang_told, true)) return;
  act(desk, id, found);
}

std::vector<double> straggler_scores(const Desk& desk, const JobRecord& job) {
  std::vector<double> times;
  for (const ProcessId member : job.members) {
    const ProcessSoft* soft = soft_of(desk, member);
    times.push_back(soft == nullptr ? 0 : soft->compute_us);
  }
  std::vector<double> known;
  for (const double time : times) {
    if (time > 0) known.push_back(time);
  }
  std::vector<double> scores(times.size(), 0.0);
  if (known.empty()) return scores;
  // Of two ranks the faster one is the measure.
  const auto middle = known.begin() + static_cast<std::ptrdiff_t>((known.size() - 1) / 2);
  std::nth_element(known.begin(), middle, known.end());
  for (std::size_t rank = 0; rank < times.size(); ++rank) scores[rank] = times[rank] / *middle;
  return scores;
}

}  // namespace tutti::coordinator
