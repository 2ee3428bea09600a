#include "coordinator/cluster/scheduler.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <vector>

#include "coordinator/cluster/recovery.h"
#include "coordinator/cluster/release.h"
#include "coordinator/life/failures.h"
#include "coordinator/membership/membership.h"

namespace tutti::coordinator {

namespace {

// Beyond its own limit, which the worker watches: a start that was never reported as over.
constexpr Duration kStartSlack = std::chrono::seconds(10);

struct Seat {
  std::string worker;
  std::uint32_t slot = 0;
};

// What is free on each worker, less what this pass has given away.
class Room {
 public:
  explicit Room(const Desk& desk) : desk_(desk) {
    for (const auto& [name, link] : desk.links) {
      const WorkerRecord* record = desk.durable.worker(name);
      if (record == nullptr || record->lost) continue;
      Node node{.record = record,
                .ready = link.open && !link.disconnected && !is_suspect(desk, link) &&
                         !record->draining()};
      for (const auto& [id, slot] : link.strangers) node.taken.insert(slot);
      nodes_.emplace(name, std::move(node));
    }
    for (const auto& [id, process] : desk.durable.processes()) {
      const auto at = nodes_.find(process.worker);
      if (at == nodes_.end()) continue;
      const JobRecord* job = desk.durable.job(process.job);
      at->second.taken.insert(process.slot);
      if (job == nullptr) continue;
      at->second.cores += job->terms.cores;
      at->second.memory += job->terms.memory_bytes;
      if (job->terms.kind == "serve") at->second.endless.insert(process.slot);
    }
  }

  // Ranks that the cluster could hold if nothing else ran; with `keep_endless`, beside serve jobs.
  enum class Beside { nothing, endless };
  std::uint32_t capacity(const JobTerms& terms, Beside beside) const {
    std::uint64_t total = 0;
    for (const auto& [name, node] : nodes_) {
      if (!suits(*node.record, terms)) continue;
      std::uint64_t ranks = node.record->slots;
      if (beside == Beside::endless) ranks -= std::min<std::uint64_t>(ranks, node.endless.size());
      if (terms.cores != 0)
        ranks = std::min<std::uint64_t>(ranks, node.record->cores / terms.cores);
      if (terms.memory_bytes != 0) {
        ranks = std::min(ranks, node.record->memory_bytes / terms.memory_bytes);
      }
      total += ranks;
    }
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(total, kRanksMax));
  }

  // A slot on `worker`, taken; nothing if there is none.
  std::optional<Seat> take(const JobTerms& terms, const std::string& worker) {
    const auto at = nodes_.find(worker);
    return at == nodes_.end() ? std::nullopt : take_from(at->first, at->second, terms);
  }
  std::optional<Seat> take(const JobTerms& terms) {
    for (auto& [name, node] : nodes_) {
      if (auto seat = take_from(name, node, terms)) return seat;
    }
    return std::nullopt;
  }

 private:
  struct Node {
    const WorkerRecord* record = nullptr;
    bool ready = false;
    std::set<std::uint32_t> taken = {};
    std::set<std::uint32_t> endless = {};
    std::uint64_t cores = 0;
    std::uint64_t memory = 0;
  };

  static bool suits(const WorkerRecord& worker, const JobTerms& terms) {
    const auto has = [&](const std::string& label) {
      return std::find(worker.labels.begin(), worker.labels.end(), label) != worker.labels.end();
    };
    if (!std::all_of(terms.labels.begin(), terms.labels.end(), has)) return false;
    if (terms.kind == "run") return worker.runs_programs;
    const auto& profiles = worker.profiles;
    return profiles.empty() ||
           std::find(profiles.begin(), profiles.end(), "portable") != profiles.end();
  }

  std::optional<Seat> take_from(const std::string& name, Node& node, const JobTerms& terms) {
    if (!node.ready || !suits(*node.record, terms)) return std::nullopt;
    if (terms.cores != 0 && node.cores + terms.cores > node.record->cores) return std::nullopt;
    if (terms.memory_bytes != 0 && node.memory + terms.memory_bytes > node.record->memory_bytes) {
      return std::nullopt;
    }
    for (std::uint32_t slot = 0; slot < node.record->slots; ++slot) {
      if (!node.taken.insert(slot).second) continue;
      node.cores += terms.cores;
      node.memory += terms.memory_bytes;
      return Seat{name, slot};
    }
    return std::nullopt;
  }

  const Desk& desk_;
  std::map<std::string, Node> nodes_;
};

// What the job waits for; an event says so if it is not just its turn.
enum class Tell { readers, events };
void wait_for(Desk& desk, JobId id, Tell tell, std::string what) {
  JobSoft& soft = desk.soft(id);
  if (soft.waiting == what) return;
  soft.waiting = std::move(what);
  if (tell == Tell::readers) return;
  desk.note({.job = id, .kind = EventKind::waiting, .message = soft.waiting});
}

Placement place(const Desk& desk, ProcessId process, const Seat& seat) {
  return {.process = process,
          .worker = seat.worker,
          .incarnation = desk.durable.worker(seat.worker)->incarnation,
          .slot = seat.slot,
          .survivor = false};
}

// Fills the empty ranks of a job that holds others.
void place_missing(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  JobSoft& soft = desk.soft(id);
  if (soft.settle_until && desk.now < *soft.settle_until) return;
  Room room(desk);
  std::vector<Placement> gang;
  std::uint64_t next = desk.durable.next_process().value;
  for (std::uint32_t rank = 0; rank < job.members.size(); ++rank) {
    if (job.members[rank]) {
      const ProcessRecord& process = *desk.durable.process(job.members[rank]);
      gang.push_back({.process = process.process,
                      .worker = process.worker,
                      .incarnation = process.incarnation,
                      .slot = process.slot,
                      .survivor = true});
      continue;
    }
    // The old place first: what the node has cached, and the survivors' links, are there.
    std::optional<Seat> seat = room.take(job.terms, job.homes[rank]);
    if (!seat && job.terms.of_node != "wait") seat = room.take(job.terms);
    if (!seat && job.terms.of_node == "shrink" && shrink_to_survivors(desk, id)) return;
    if (!seat) {
      wait_for(desk, id, Tell::events,
               fmt::format("waits for a slot for rank {}{}", rank,
                           job.terms.of_node == "wait" ? " on " + job.homes[rank] : ""));
      return;
    }
    gang.push_back(place(desk, ProcessId{next++}, *seat));
  }
  if (charge_interruption(desk, id)) start_generation(desk, id, std::move(gang));
}

// How long the program goes on after its worker lost us, with the grace that ends it; nothing: for
// ever.
std::optional<Duration> stop_after(const Desk& desk, JobId id, const ProcessRecord& process) {
  constexpr std::uint64_t kGraceMs = 3'000;
  constexpr std::uint64_t kOlderMs = 60'000;  // of workers that do not read it from the order
  std::uint64_t ms = desk.job(id).terms.stop_after_ms;
  if (ms == 0) return std::nullopt;
  const WorkerRecord* worker = desk.durable.worker(process.worker);
  if (worker == nullptr || worker->limits.empty()) ms = std::max(ms, kOlderMs);
  return std::chrono::milliseconds(ms + kGraceMs);
}

// Programs of this job that a lost worker may still run: nobody fences their effects but time.
bool is_fenced_off(Desk& desk, JobId id) {
  for (const ProcessId process : desk.durable.processes_of(id)) {
    const ProcessRecord& record = *desk.durable.process(process);
    if (!record.lost) continue;
    const auto at = desk.links.find(record.worker);
    const Instant heard = at == desk.links.end() ? Instant{} : at->second.heard;
    const std::optional<Duration> lasts = stop_after(desk, id, record);
    const Instant until = heard + desk.settings.lease + lasts.value_or(Duration{});
    if (lasts && desk.now >= until) continue;
    if (lasts) desk.soft(id).settle_until = until;
    wait_for(desk, id, Tell::events,
             fmt::format("waits until its programs on {} are surely gone", record.worker));
    return true;
  }
  return false;
}

enum class Turn { passed, placed, blocks };

Turn place_queued(Desk& desk, JobId id) {
  const JobRecord& job = desk.job(id);
  if (is_backing_off(desk, id)) return Turn::passed;
  Room room(desk);
  const std::uint32_t total = room.capacity(job.terms, Room::Beside::nothing);
  const std::uint32_t size = std::min(job.terms.ranks_max, total);
  if (size < job.terms.ranks_min) {
    wait_for(desk, id, Tell::events,
             job.terms.labels.empty()
                 ? fmt::format("needs {} slots, and the cluster has {} that suit it",
                               job.terms.ranks_min, total)
                 : fmt::format("no worker has the label {}", job.terms.labels.front()));
    return Turn::passed;
  }
  if (job.terms.kind == "run" && is_fenced_off(desk, id)) return Turn::passed;
  std::vector<Placement> gang;
  std::uint64_t next = desk.durable.next_process().value;
  while (gang.size() < size) {
    const std::optional<Seat> seat = room.take(job.terms);
    if (!seat) break;
    gang.push_back(place(desk, ProcessId{next++}, *seat));
  }
  if (gang.size() < size) {
    wait_for(desk, id, Tell::readers, fmt::format("waits until {} slots are free", size));
    const bool finite = room.capacity(job.terms, Room::Beside::endless) >= size;
    return finite ? Turn::blocks : Turn::passed;
  }
  std::set<std::string> where;
  for (const Placement& each : gang) where.insert(each.worker);
  std::string names;
  for (const std::string& name : where) names += (names.empty() ? "" : ", ") + name;
  start_generation(desk, id, std::move(gang));
  desk.note({.job = id,
             .kind = EventKind::placed,
             .message = fmt::format("{} ranks on {}", size, names),
             .generation = desk.job(id).generation});
  return Turn::placed;
}

std::vector<JobId> by_turn(const Desk& desk, bool (*belongs)(const JobRecord&)) {
  std::vector<JobId> out;
  for (const auto& [id, soft] : desk.jobs) {
    if (belongs(desk.job(id))) out.push_back(id);
  }
  std::stable_sort(out.begin(), out.end(), [&](JobId left, JobId right) {
    return desk.job(left).terms.priority > desk.job(right).terms.priority;
  });
  return out;
}

}  // namespace

void start_generation(Desk& desk, JobId id, std::vector<Placement> gang) {
  JobSoft& soft = desk.soft(id);
  soft.waiting.clear();
  soft.wait_due.reset();
  soft.queued_due.reset();
  soft.settle_until.reset();
  soft.regroup_due.reset();
  soft.start_due.reset();
  soft.hang_due.reset();
  soft.first_step.reset();
  bool survivors = false;
  bool starters = false;
  for (const Placement& each : gang) (each.survivor ? survivors : starters) = true;
  if (survivors) soft.regroup_due = desk.now + desk.settings.regroup_max;
  if (starters) soft.start_due = desk.now + desk.settings.start_max + kStartSlack;
  desk.record(GenerationStarted{.job = id,
                                .generation = Generation{desk.job(id).generation.value + 1},
                                .gang = std::move(gang),
                                .unix_ms = desk.wall.unix_ms});
}

void schedule(Desk& desk) {
  desk.schedule_due = false;
  // Nothing could be ordered before it is durable: whoever finds room would hold it in vain.
  if (!desk.ledger_failure.empty()) return;
  const auto interrupted = [](const JobRecord& job) {
    return job.generation && !job.generation_alive && !is_releasing(job) &&
           (job.state == JobState::placed || job.state == JobState::starting ||
            job.state == JobState::recovering);
  };
  for (const JobId id : by_turn(desk, interrupted)) place_missing(desk, id);
  const auto queued = [](const JobRecord& job) { return job.state == JobState::queued; };
  JobId blocker;
  for (const JobId id : by_turn(desk, queued)) {
    if (desk.soft(id).decision > desk.durable_through) {
      desk.schedule_next = true;
      continue;
    }
    if (blocker) {
      wait_for(desk, id, Tell::readers, fmt::format("waits behind job {}", blocker.value));
      continue;
    }
    if (place_queued(desk, id) == Turn::blocks) blocker = id;
  }
}

std::uint32_t free_slots(const Desk& desk, const std::string& worker) {
  const WorkerRecord* record = desk.durable.worker(worker);
  if (record == nullptr || record->lost) return 0;
  std::set<std::uint32_t> taken;
  for (const auto& [id, process] : desk.durable.processes()) {
    if (process.worker == worker) taken.insert(process.slot);
  }
  const auto at = desk.links.find(worker);
  if (at != desk.links.end()) {
    for (const auto& [id, slot] : at->second.strangers) taken.insert(slot);
  }
  const auto used = static_cast<std::uint32_t>(
      std::count_if(taken.begin(), taken.end(), [&](auto slot) { return slot < record->slots; }));
  return record->slots - used;
}

}  // namespace tutti::coordinator
