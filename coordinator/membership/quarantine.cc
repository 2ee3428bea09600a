#include "coordinator/membership/quarantine.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <vector>

#include "coordinator/membership/drain.h"
#include "coordinator/scheduler/index.h"
#include "protocol/base/counted.h"

namespace tutti::coordinator {

namespace {

constexpr std::size_t kCauseBytesMax = 120;

std::int64_t minutes_of(Duration time) { return to_ms(time) / 60'000; }

// "lost 5 times in the last 60 min, the last 12 s ago: its connection ended".
std::string losses_line(const NodeScore& score, const NodeBlame& last, std::int64_t now_unix_ms) {
  return fmt::format("lost {} in the last {} min, the last {} s ago: {}",
                     counted(score.losses, "time"), minutes_of(kBlameLife),
                     std::max<std::int64_t>(0, now_unix_ms - last.unix_ms) / 1000, last.cause);
}

// How bad it is in the way that counts; for a comparison between nodes.
enum class Fault { failures, losses };
std::uint32_t count_of(const NodeScore& score, Fault fault) {
  return fault == Fault::losses ? score.losses : score.users;
}

// Where most nodes are as bad, it is not this node's doing.
bool stands_out(const Desk& desk, const std::string& worker, const NodeScore& score, Fault fault) {
  std::size_t others = 0;
  std::size_t better = 0;
  for (const auto& [name, other] : desk.durable.workers()) {
    if (name == worker || other.lost || other.draining()) continue;
    ++others;
    const NodeScore its = score_of(other, desk.wall.unix_ms);
    if (2 * count_of(its, fault) < count_of(score, fault)) ++better;
  }
  return others != 0 && 2 * better >= others;
}

// Whether the job could be placed on the other nodes, were they empty.
bool fits_without(Desk& desk, const JobRecord& job, const std::string& worker) {
  const scheduler::Shape shape = shape_now(desk, job.terms);
  const std::uint64_t here = desk.board.capacity.fit(shape, worker).ever;
  return desk.board.capacity.sum(shape).ever - here >= job.terms.ranks_min;
}

// Whether the job is there, or was when it was last placed.
bool is_at_home(const JobRecord& job, const std::string& worker) {
  return !is_terminal(job.state) &&
         std::find(job.homes.begin(), job.homes.end(), worker) != job.homes.end();
}

// The last usable nodes stay, and those that a job needs which is there.
bool can_be_spared(Desk& desk, const std::string& worker) {
  std::size_t aside = 1;
  std::size_t usable = 0;
  for (const auto& [name, other] : desk.durable.workers()) {
    if (name == worker) continue;
    if (other.drain.cause == DrainCause::quarantine) ++aside;
    if (!other.lost && !other.draining()) ++usable;
  }
  if (aside > usable) return false;
  refresh_board(desk);
  const auto& jobs = desk.durable.jobs();
  return std::none_of(jobs.begin(), jobs.end(), [&](const auto& entry) {
    return is_at_home(entry.second, worker) && !fits_without(desk, entry.second, worker);
  });
}

void consider(Desk& desk, const std::string& worker) {
  const WorkerRecord& record = *desk.durable.worker(worker);
  if (record.draining()) return;
  const NodeScore score = score_of(record, desk.wall.unix_ms);
  const bool flaps = score.losses >= kLossesMax;
  if (!flaps && score.users < kQuarantineUsers) return;
  const Fault fault = score.users < kQuarantineUsers ? Fault::losses : Fault::failures;
  if (!stands_out(desk, worker, score, fault) || !can_be_spared(desk, worker)) return;
  ++(fault == Fault::losses ? desk.counters.quarantines_lost : desk.counters.quarantines);
  // A failure that is the node's own doing does not pass by itself.
  const Duration steady = fault == Fault::losses ? desk.settings.steady : Duration{};
  set_aside(desk, worker, score.message, steady);
}

void blame(Desk& desk, const std::string& worker, NodeBlame blame) {
  blame.cause.resize(std::min(blame.cause.size(), kCauseBytesMax));
  blame.unix_ms = desk.wall.unix_ms;
  desk.record(NodeBlamed{.worker = worker, .blame = std::move(blame)});
  consider(desk, worker);
}

}  // namespace

NodeScore score_of(const WorkerRecord& worker, std::int64_t now_unix_ms) {
  NodeScore score;
  std::set<std::string> users;
  std::string causes;
  const NodeBlame* loss = nullptr;
  for (const NodeBlame& blame : worker.blames) {
    if (now_unix_ms - blame.unix_ms > to_ms(kBlameLife)) continue;
    if (blame.kind == BlameKind::lost) {
      ++score.losses;
      loss = &blame;
      continue;
    }
    ++score.failures;
    users.insert(blame.owner);
    causes += fmt::format("{}job {} of {}: {}", causes.empty() ? "" : "; ", blame.job.value,
                          blame.owner, blame.cause);
  }
  score.users = static_cast<std::uint32_t>(users.size());
  if (score.losses != 0) score.message = losses_line(score, *loss, now_unix_ms);
  if (score.failures == 0) return score;
  score.message += fmt::format("{}{} failures of {} users in the last {} min: {}",
                               score.message.empty() ? "" : "; ", score.failures, score.users,
                               minutes_of(kBlameLife), causes);
  return score;
}

void blame_node(Desk& desk, const std::string& worker, const JobRecord& job, const Loss& loss) {
  const WorkerRecord* record = desk.durable.worker(worker);
  const bool its =
      loss.failure == wire::FailureClass::infrastructure || loss.failure == wire::FailureClass::own;
  if (record == nullptr || record->lost || !its) return;
  blame(desk, worker, {.job = job.job, .owner = job.owner, .cause = loss.message});
}

void blame_for_refusal(Desk& desk, const std::string& worker, const JobRecord& job,
                       const std::string& cause) {
  if (desk.durable.worker(worker) == nullptr) return;
  blame(desk, worker,
        {.job = job.job, .owner = job.owner, .cause = cause, .kind = BlameKind::refused});
}

void blame_for_loss(Desk& desk, const std::string& worker, const std::string& reason) {
  blame(desk, worker, {.job = {}, .owner = {}, .cause = reason, .kind = BlameKind::lost});
}

std::string what_ends(const WorkerRecord& worker) {
  if (worker.drain.cause == DrainCause::none) return {};
  const std::string undrain = fmt::format("by `tutti undrain {}`", worker.worker);
  if (worker.drain.cause == DrainCause::leaving) return "when it is back";
  if (worker.drain.steady_ms == 0) return undrain;
  return fmt::format("once it has stayed for {} s without a loss, or {}",
                     worker.drain.steady_ms / 1000, undrain);
}

std::optional<Instant> steady_due(const Desk& desk, const std::string& worker,
                                  const WorkerLink& link) {
  const WorkerRecord* record = desk.durable.worker(worker);
  if (record == nullptr || record->lost || record->drain.cause != DrainCause::quarantine ||
      record->drain.steady_ms == 0 || record->drain.leaving || !link.open || !link.steady_since) {
    return std::nullopt;
  }
  return *link.steady_since + std::chrono::milliseconds(record->drain.steady_ms);
}

void take_back_steady(Desk& desk) {
  std::vector<std::string> due;
  for (const std::string& name : desk.stirred_links) {
    const auto link = desk.links.find(name);
    if (link == desk.links.end()) continue;
    const auto at = steady_due(desk, name, link->second);
    if (at && desk.now >= *at) due.push_back(name);
  }
  for (const std::string& name : due) {
    const std::uint64_t steady_ms = desk.durable.worker(name)->drain.steady_ms;
    desk.record(NodeUndrained{.worker = name, .keeps_blames = true});
    desk.note({.job = {},
               .kind = EventKind::undrained,
               .message = fmt::format("worker {} takes work again: it has stayed for {} s", name,
                                      steady_ms / 1000),
               .worker = name});
    desk.capacity_changed();
  }
}

}  // namespace tutti::coordinator
