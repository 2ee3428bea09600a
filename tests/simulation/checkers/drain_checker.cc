// Nodes that are drained, as far as whoever asked for it was told, or set aside: I16.
#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include "tests/simulation/checkers/checkers.h"

namespace tutti::simulation {

namespace {

class DrainChecker final : public Checker {
 public:
  void before_fact(const Observed& seen, const coordinator::Fact& fact) override {
    if (const auto* started = std::get_if<coordinator::GenerationStarted>(&fact)) {
      check_placed(seen, started->gang);
    }
    if (const auto* resized = std::get_if<coordinator::JobReleasing>(&fact)) {
      check_placed(seen, resized->newcomers);
    }
    if (const auto* draining = std::get_if<coordinator::NodeDraining>(&fact)) {
      check_spared(seen, *draining);
    }
    note_paths(seen, fact);
  }

  void looked(const Observed& seen) override {
    if (seen.world.now() - looked_ < 200ms) return;
    looked_ = seen.world.now();
    const SimCoordinator& coordinator = seen.coordinator;
    if (coordinator.state() == nullptr || coordinator.standing_still() ||
        !coordinator.takes_appends()) {
      steady_since_ = seen.world.now();
    }
    steady_since_ = std::max(steady_since_, coordinator.alive_since());
    for (const auto& worker : seen.workers) {
      if (worker->unreachable_since() || !worker->alive()) reachable_[worker->name()] = looked_;
    }
    for (const auto& [node, due] : seen.clients.drained()) check_empty(seen, node, due);
  }

 private:
  // A process that does not end when it is asked has a grace of five seconds, and at most so much
  // more until all know of it; and frames may be lost meanwhile, or be late.
  static Duration grace_of(const ScenarioOptions& options) {
    const bool late = options.network.loss > 0 ||
                      has_fault(options, {"congest-network", "drop-messages", "hold-messages",
                                          "slow-disk", "slow-node", "stop-coordinator"});
    return late ? 12s : 6s;
  }

  static void check_placed(const Observed& seen,
                           const std::vector<coordinator::Placement>& placements) {
    for (const coordinator::Placement& each : placements) {
      const coordinator::WorkerRecord* worker = seen.shadow.worker(each.worker);
      const bool draining =
          seen.clients.drained().contains(each.worker) || (worker != nullptr && worker->draining());
      if (each.survivor || !draining) continue;
      seen.world.violate("I16", "new work is placed on " + each.worker + ", which is drained");
    }
  }

  // Nodes that are set aside leave at least as many that take work.
  static void check_spared(const Observed& seen, const coordinator::NodeDraining& fact) {
    if (fact.drain.cause != coordinator::DrainCause::quarantine) return;
    if (seen.shadow.worker(fact.worker)->draining()) return;
    std::size_t aside = 1;
    std::size_t usable = 0;
    for (const auto& [name, worker] : seen.shadow.workers()) {
      if (name == fact.worker) continue;
      if (worker.drain.cause == coordinator::DrainCause::quarantine) ++aside;
      if (!worker.lost && !worker.draining()) ++usable;
    }
    if (aside <= usable) return;
    seen.world.violate("I16", fact.worker + " is set aside, and " + std::to_string(usable) +
                                  " nodes are left that take work");
  }

  static void note_paths(const Observed& seen, const coordinator::Fact& fact) {
    if (const auto* draining = std::get_if<coordinator::NodeDraining>(&fact)) {
      if (draining->drain.steady_ms != 0) {
        seen.world.reached("a node was set aside for its losses");
      } else if (draining->drain.reason.find("could not be started") != std::string::npos) {
        seen.world.reached("a node was set aside for programs that could not be started");
      }
    }
    const auto* undrained = std::get_if<coordinator::NodeUndrained>(&fact);
    if (undrained != nullptr && undrained->keeps_blames) {
      seen.world.reached("a node that had stayed took work again");
    }
    const auto* refused = std::get_if<coordinator::StartRefused>(&fact);
    if (refused != nullptr && refused->proven) {
      seen.world.reached("a program that could not be started was started elsewhere");
    }
  }

  void check_empty(const Observed& seen, const std::string& node, Instant due) {
    const Instant undisturbed = std::max({due, steady_since_, reachable_[node]});
    if (seen.world.now() - undisturbed < grace_of(seen.options)) return;
    for (const auto& [id, process] : seen.shadow.processes()) {
      if (process.worker != node) continue;
      return seen.world.violate("I16", node + " was to be empty and process " + to_string(id) +
                                           " of job " + to_string(process.job) + " is there");
    }
  }

  Instant looked_;
  Instant steady_since_;
  std::map<std::string, Instant> reachable_;
};

}  // namespace

std::unique_ptr<Checker> make_drain_checker() { return std::make_unique<DrainChecker>(); }

}  // namespace tutti::simulation
