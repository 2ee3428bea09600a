// Where and when a job may start, judged by what its client asked for: labels, devices, memory, and
// not before its time.
#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

class FitChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      check(seen, started->job, started->gang);
    }
    if (const auto* resized = std::get_if<coordinator::JobReleasing>(&fact)) {
      check(seen, resized->job, resized->newcomers);
    }
  }

 private:
  static void check(const Observed& seen, JobId id,
                    const std::vector<coordinator::Placement>& placements) {
    const JobRecord* job = seen.shadow.job(id);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr) return;
    for (const coordinator::Placement& each : placements) {
      if (each.survivor) continue;
      for (const auto& worker : seen.workers) {
        if (worker->name() != each.worker) continue;
        note_small_device(seen, *worker, each.slot);
        if (suits(*worker, each.slot, planned->spec.resources)) continue;
        seen.world.violate("fit", describe(*job) + " is placed on slot " +
                                      std::to_string(each.slot) + " of " + each.worker +
                                      ", which lacks what it asked for");
      }
    }
    if (!planned->spec.resources.labels.empty()) {
      seen.world.reached("a job was placed by its labels");
    }
    if (planned->spec.resources.device == "gpu") {
      seen.world.reached("a job was placed by its kind of device");
    }
    if (planned->spec.resources.device_memory_bytes != 0) {
      seen.world.reached("a job was placed by its device's memory");
    }
  }

  // Where devices differ, the larger ones are left to those who need them.
  static void note_small_device(const Observed& seen, const SimWorker& worker, std::uint32_t slot) {
    const std::uint64_t has = worker.device_memory_of(slot);
    for (std::uint32_t other = 0; other < worker.slots(); ++other) {
      if (worker.device_memory_of(other) > has) {
        seen.world.reached("a job was given the smaller of a node's devices");
      }
    }
  }
};

// A job that waits in the queue does not leave it before its time, by the coordinator's clock.
class BeginChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* task = std::get_if<coordinator::TaskStarted>(&fact)) check(seen, task->array);
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      check(seen, started->job);
    }
  }

 private:
  static void check(const Observed& seen, JobId id) {
    const JobRecord* job = seen.shadow.job(id);
    const PlannedJob* planned = job == nullptr ? nullptr : planned_of(seen, *job);
    if (planned == nullptr || job->state != JobState::queued || job->array) return;
    auto begin = static_cast<std::int64_t>(planned->spec.begin_unix_ms);
    if (planned->spec.delay_ms != 0) {
      begin = job->submitted_unix_ms + static_cast<std::int64_t>(planned->spec.delay_ms);
    }
    if (begin == 0) return;
    const std::int64_t early_ms = begin - seen.world.wall().unix_ms;
    if (early_ms > 0) {
      seen.world.violate("begin",
                         describe(*job) + " starts " + std::to_string(early_ms) + " ms too early");
    }
    seen.world.reached("a job waited for its time");
  }
};

}  // namespace

bool suits(const SimWorker& worker, std::uint32_t slot, const spec::ResourceSpec& wanted) {
  if (wanted.device != "any" && !worker.has_label("device=" + wanted.device)) return false;
  if (wanted.device_memory_bytes > worker.device_memory_of(slot)) return false;
  for (const auto& [key, value] : wanted.labels) {
    if (!worker.has_label(key + "=" + value)) return false;
  }
  return true;
}

std::uint64_t room_for(const Observed& seen, const JobRecord& job) {
  const PlannedJob* planned = planned_of(seen, job);
  if (planned == nullptr) return 0;
  const spec::ResourceSpec& wanted = planned->spec.resources;
  std::map<std::string, std::uint64_t> room;  // by profile, of which a training job has one
  std::uint64_t most = 0;
  for (const auto& worker : seen.workers) {
    const bool trains = planned->spec.kind == spec::JobKind::train;
    if (trains && !job.terms.profile.empty() && job.terms.profile != worker->profile()) continue;
    std::uint64_t here = 0;
    for (std::uint32_t slot = 0; slot < worker->slots(); ++slot) {
      if (suits(*worker, slot, wanted)) ++here;
    }
    if (wanted.memory_bytes != 0) here = std::min(here, kNodeMemory / wanted.memory_bytes);
    std::uint64_t& sum = room[trains ? worker->profile() : std::string()];
    sum += here;
    most = std::max(most, sum);
  }
  return most;
}

std::unique_ptr<Checker> make_fit_checker() { return std::make_unique<FitChecker>(); }
std::unique_ptr<Checker> make_begin_checker() { return std::make_unique<BeginChecker>(); }

}  // namespace tutti::simulation
