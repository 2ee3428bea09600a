// What is remembered is of something that lives, or of a fixed history: I19.
#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <string_view>

#include "coordinator/life/line.h"
#include "tests/simulation/checkers/checkers.h"
#include "tests/simulation/checkers/memory_bounds.h"

namespace tutti::simulation {

std::optional<std::string> beyond_bounds(const coordinator::SoftSizes& soft, const Living& living) {
  // Of books that the pass keeps, which look at all of the queue, only their end is known.
  const std::size_t by_pass = living.at_rest ? 0 : std::numeric_limits<std::size_t>::max();
  struct Row {
    std::string_view what;
    std::size_t size;
    std::size_t bound;
  };
  const Row rows[] = {{"processes", soft.processes, living.processes},
                      {"processes in line", soft.lined_up, living.processes},
                      {"jobs", soft.jobs, living.jobs},
                      {"deadlines of jobs", soft.job_dues, living.jobs},
                      {"jobs that count", soft.counted, by_pass},
                      {"users that hold or wait", soft.users, by_pass},
                      {"jobs in the queue", soft.queued, by_pass},
                      {"jobs that lost ranks", soft.interrupted, by_pass},
                      {"jobs that may grow", soft.growing, by_pass},
                      {"ends", soft.ends, by_pass},
                      {"jobs that may be preempted", soft.preemptible, by_pass},
                      {"jobs that others depend on", soft.dependents, by_pass},
                      {"links", soft.links, living.workers},
                      {"peers", soft.peers, living.workers},
                      {"deadlines of links", soft.link_dues, living.workers}};
  for (const Row& row : rows) {
    if (row.size <= row.bound) continue;
    return std::to_string(row.size) + " " + std::string(row.what) + " are remembered, and " +
           std::to_string(row.bound) + " live";
  }
  return std::nullopt;
}

namespace {

class MemoryChecker final : public Checker {
 public:
  void decided(const Observed& seen, const coordinator::Decision& decision) override {
    if (decision.facts.empty()) return;
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.recoveries.size() > coordinator::kRecoveriesMax ||
          job.checkpoints.size() > coordinator::kCheckpointsMax) {
        seen.world.violate("I19", describe(job) + " remembers without a bound");
      }
    }
    const std::size_t ended = ended_jobs(seen);
    if (ended > seen.options.ended_jobs_max) {
      seen.world.violate("I19", std::to_string(ended) + " ended jobs are kept; the bound is " +
                                    std::to_string(seen.options.ended_jobs_max));
    }
    const std::size_t slots = seen.options.workers * seen.options.slots;
    const auto lined_up = static_cast<std::size_t>(
        std::count_if(seen.shadow.processes().begin(), seen.shadow.processes().end(),
                      [](const auto& each) { return each.second.lined_up; }));
    if (lined_up != 0) seen.world.reached("tasks stood in line on a slot");
    if (seen.shadow.processes().size() - lined_up > slots) {
      seen.world.violate("I19", "more processes than slots are remembered");
    }
    if (lined_up > seen.options.workers * coordinator::kLinesOfWorkerMax) {
      seen.world.violate("I19", "the lines of the slots have no bound");
    }
    if (seen.shadow.workers().size() > seen.options.workers) {
      seen.world.violate("I19", "more workers than there are are remembered");
    }
    check_soft(seen, living_in(seen));
  }

  // Of what was ever asked for: each key stands once, each user's use is counted once.
  void ended(const Observed& seen) override {
    Living living = living_in(seen);
    living.at_rest = true;
    check_soft(seen, living);
    const coordinator::Snapshot snapshot = seen.shadow.snapshot();
    std::set<std::string> keys;
    for (const coordinator::KeyRecord& each : snapshot.keys) keys.insert(each.key);
    std::set<std::string> owners;
    for (const auto& [name, planned] : seen.clients.jobs()) owners.insert(planned.owner);
    if (keys.size() != snapshot.keys.size() || keys.size() > seen.clients.jobs().size()) {
      seen.world.violate("I19", "more keys of forgotten jobs are kept than were used");
    }
    if (snapshot.usage.size() > owners.size()) {
      seen.world.violate("I19", "the use of more users is kept than there are");
    }
  }

 private:
  static std::size_t ended_jobs(const Observed& seen) {
    const auto& jobs = seen.shadow.jobs();
    return static_cast<std::size_t>(std::count_if(jobs.begin(), jobs.end(), [](const auto& each) {
      return coordinator::is_terminal(each.second.state);
    }));
  }

  static Living living_in(const Observed& seen) {
    return {.processes = seen.shadow.processes().size(),
            .jobs = seen.shadow.jobs().size() - ended_jobs(seen),
            .workers = seen.shadow.workers().size()};
  }

  static void check_soft(const Observed& seen, const Living& living) {
    if (seen.coordinator.state() == nullptr) return;
    const auto beyond = beyond_bounds(seen.coordinator.state()->soft_sizes(), living);
    if (beyond) seen.world.violate("I19", *beyond);
  }
};

}  // namespace

std::unique_ptr<Checker> make_memory_checker() { return std::make_unique<MemoryChecker>(); }

}  // namespace tutti::simulation
