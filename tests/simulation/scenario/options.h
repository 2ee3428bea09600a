// A scenario: a cluster, what its clients do, what befalls it. Parsed from YAML
// (scenario_file.h), or made by a test.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/world/mutation.h"
#include "tests/simulation/world/network.h"

namespace tutti::simulation {

// Who is struck at an event: the coordinator around the sync of its next decision, a worker, its
// binary (which another one takes the place of) or a rank by number, or a link.
enum class Victim { coordinator_before_sync, coordinator_after_sync, worker, binary, rank, link };

struct Strike {
  Victim victim = Victim::worker;
  std::uint32_t number = 0;  // of the worker
  std::uint64_t event = 0;
  Duration away = 300ms;  // of who comes back; how long the link is cut
};

struct ScenarioOptions {
  std::string name = "unnamed";
  std::string about;
  std::uint64_t seed = 1;
  std::uint32_t workers = 3;
  std::uint32_t slots = 2;
  std::uint32_t gpus = 0;      // of the workers, the last ones: their slots have GPUs, of two makes
  std::uint32_t refusing = 0;  // of the workers, the first ones: no program can be started there
  NetworkOptions network = {};
  std::vector<std::string> workloads = {};         // names of workloads.h
  std::vector<std::string> faults = {};            // names of faults.h
  std::vector<std::string> when = {};              // states of jobs that each fault waits for
  Duration every = 400ms;                          // one fault, on average
  Duration until = 0ms;                            // no faults after: liveness must follow
  Duration bound = 300s;                           // every job is terminal by then (I17)
  std::uint32_t seeds = 0;                         // that CI runs
  std::uint32_t ended_jobs_max = 1'000;            // the history that is kept (I19)
  std::map<std::string, std::string> quotas = {};  // by user, as the coordinator's configuration
  std::vector<Strike> strikes = {};
  Mutation mutation = Mutation::none;
};

// Of the seeds that CI runs, those that it has at every commit; the others are fresh ones.
inline std::uint32_t fixed_seeds(const ScenarioOptions& options) {
  return options.seeds - options.seeds / 3;
}

// Whether one of these is among the scenario's faults.
bool has_fault(const ScenarioOptions& options, std::initializer_list<std::string_view> any_of);

// The one command that runs it again.
std::string replay_command(const ScenarioOptions& options);

}  // namespace tutti::simulation
