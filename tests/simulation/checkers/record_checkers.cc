// The auditor of what jobs leave behind: I12, I13, I14, I15.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

using coordinator::JobRecord;
using coordinator::JobState;

bool is_finished_training(const JobRecord& job) {
  return job.terms.kind == "train" && job.state == JobState::done;
}

// The step records that the coordinator stores: step -> hash. Two for one step agree (sim_stores).
std::map<std::uint64_t, std::string> stored_steps(const Observed& seen, JobId job) {
  std::map<std::uint64_t, std::string> out;
  for (const auto& worker : seen.workers) {
    for (const auto& [process, spool] : worker->spools()) {
      if (spool.start.job != job) continue;
      const auto at = seen.coordinator.stored().find({process, wire::Stream::steps});
      if (at == seen.coordinator.stored().end()) continue;
      std::istringstream lines(at->second);
      std::uint64_t step = 0;
      std::string hash;
      while (lines >> step >> hash) out.emplace(step, hash);
    }
  }
  return out;
}

class SampleChecker final : public Checker {
 public:
  void ended(const Observed& seen) override {
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (!is_finished_training(job)) continue;
      const auto at = seen.ranks.history.find(id);
      const std::size_t committed =
          at == seen.ranks.history.end() ? 0 : at->second.committed.size();
      if (committed < job.terms.steps) {
        seen.world.violate("I12", describe(job) + " is done and " + std::to_string(committed) +
                                      " of " + std::to_string(job.terms.steps) +
                                      " steps were committed");
      }
      const auto steps = stored_steps(seen, id);
      for (std::uint64_t step = 1; step <= job.terms.steps; ++step) {
        if (steps.contains(step)) continue;
        seen.world.violate("I12", describe(job) + " has no record of step " + std::to_string(step));
        break;
      }
    }
  }
};

class HashChecker final : public Checker {
 public:
  void ended(const Observed& seen) override {
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.terms.kind != "train") continue;
      for (const auto& [step, hash] : stored_steps(seen, id)) {
        if (hash == std::to_string(value_at(step))) continue;
        seen.world.violate("I13", describe(job) + ": the hash of step " + std::to_string(step) +
                                      " is not that of an undisturbed run");
        break;
      }
    }
  }
};

class CheckpointChecker final : public Checker {
 public:
  void ended(const Observed& seen) override {
    const bool storage_fails =
        std::any_of(seen.options.faults.begin(), seen.options.faults.end(),
                    [](const std::string& fault) { return fault.starts_with("storage"); });
    for (const auto& [id, job] : seen.shadow.jobs()) {
      if (job.terms.kind != "train") continue;
      if (!job.checkpoints.empty()) {
        const std::uint64_t step = job.checkpoints.back().step;
        const auto at = seen.ranks.storage.committed.find({id, step});
        if (at == seen.ranks.storage.committed.end() || at->second != value_at(step)) {
          seen.world.violate("I14", describe(job) + ": its newest checkpoint, of step " +
                                        std::to_string(step) + ", cannot be loaded");
        }
      }
      const auto planned = seen.clients.jobs().find(job.terms.name);
      if (planned == seen.clients.jobs().end()) continue;
      const bool must = is_finished_training(job) && planned->second.must == Must::be_done &&
                        planned->second.load.save_failure == 0 && !storage_fails;
      if (!must) continue;
      if (job.checkpoints.empty() || job.checkpoints.back().step != job.terms.steps) {
        seen.world.violate("I14", describe(job) + " is done and its last step is not saved");
      }
    }
  }
};

class RecordChecker final : public Checker {
 public:
  void ended(const Observed& seen) override {
    check_events(seen);
    for (const auto& worker : seen.workers) {
      for (const auto& [process, spool] : worker->spools()) {
        if (!seen.coordinator.state()->knows(spool.start.job)) continue;  // forgotten
        check_stream(seen, spool, process, wire::Stream::log);
        check_stream(seen, spool, process, wire::Stream::steps);
      }
    }
  }

 private:
  static void check_events(const Observed& seen) {
    std::uint64_t last = 0;
    for (const std::uint64_t event : seen.coordinator.journal().events()) {
      if (event != last + 1) {
        return seen.world.violate(
            "I15", "event " + std::to_string(event) + " follows event " + std::to_string(last));
      }
      last = event;
    }
  }

  static void check_stream(const Observed& seen, const SimSpool& spool, ProcessId process,
                           wire::Stream stream) {
    const bool log = stream == wire::Stream::log;
    const std::string& left = log ? spool.log : spool.steps;
    const std::string& whole = log ? spool.whole_log : spool.whole_steps;
    // A loss of power may have come before or after the coordinator had the end of it.
    const std::string& written = left.size() < whole.size() ? whole : left;
    const auto at = seen.coordinator.stored().find({process, stream});
    const std::string stored = at == seen.coordinator.stored().end() ? "" : at->second;
    const std::string who = "process " + to_string(process) + " of job " +
                            to_string(spool.start.job) + (log ? " (log)" : " (steps)");
    if (!written.starts_with(stored)) {
      return seen.world.violate("I15", "what is stored of " + who + " is not what it wrote");
    }
    if (log && spool.released && stored.size() < written.size()) {
      if (!seen.coordinator.cut_logs().contains(process)) {
        return seen.world.violate("I15", "the end of " + who + " is missing without a mark");
      }
      seen.world.reached("a log said that its end was missing");
    }
    if (stored.size() >= left.size() && spool.released) return;
    seen.world.violate("I15", "of " + who + " only " + std::to_string(stored.size()) + " of " +
                                  std::to_string(left.size()) + " bytes have arrived" +
                                  (spool.released ? ", and the rest was given up" : ""));
  }
};

}  // namespace

std::unique_ptr<Checker> make_sample_checker() { return std::make_unique<SampleChecker>(); }
std::unique_ptr<Checker> make_hash_checker() { return std::make_unique<HashChecker>(); }
std::unique_ptr<Checker> make_checkpoint_checker() { return std::make_unique<CheckpointChecker>(); }
std::unique_ptr<Checker> make_record_checker() { return std::make_unique<RecordChecker>(); }

}  // namespace tutti::simulation
