// What clients do in a scenario: one file a workload, one row a workload in the table.
//
// A workload plans: jobs that are submitted at some time, and acts of clients on them. It draws
// from the plan's generator only, so that a seed gives one plan whatever else happens.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/rng.h"
#include "protocol/spec/job_spec.h"
#include "tests/simulation/cluster/rank_world.h"
#include "tests/simulation/scenario/options.h"

namespace tutti::simulation {

class Clients;

// How a job must end, whatever befalls the cluster.
enum class Must {
  be_done,    // nothing that happens may fail it
  end,        // it may fail by its own fault, or be cancelled
  be_refused  // it is never accepted, and never runs
};

struct PlannedAfter {
  std::string job;  // its name
  std::string on;   // ok | failed | any
};

struct PlannedJob {
  spec::JobSpec spec;
  Load load;
  Duration at{0};
  Must must = Must::be_done;
  std::string owner = "tester";
  std::string key = {};                  // its name, unless it is said
  std::vector<PlannedAfter> after = {};  // submitted once those are accepted
};

struct PlannedDrain {
  Duration deadline{0};
  Duration lasts{0};
};

struct PlannedAct {
  Duration at{0};
  std::function<void(Clients&)> act;
};

struct Plan {
  const ScenarioOptions& options;
  Rng rng;
  std::vector<PlannedJob> jobs = {};
  std::vector<PlannedAct> acts = {};

  Duration some(Duration min, Duration max);
  // Ranks of a training job: a power of two, so that the shards divide.
  std::uint32_t some_ranks(std::uint32_t max);
  // With a name that is its own.
  PlannedJob& train(std::string_view name, std::uint32_t ranks, std::uint64_t steps);
  PlannedJob& run(std::string_view name, std::uint32_t ranks, Duration time);
  void at(Duration when, std::function<void(Clients&)> act) { acts.push_back({when, act}); }
};

struct WorkloadRow {
  std::string_view name;
  void (*plan)(Plan& plan);
  std::string_view about;
};

std::span<const WorkloadRow> workloads();
const WorkloadRow* find_workload(std::string_view name);

// One file each.
void plan_training(Plan& plan);
void plan_pair(Plan& plan);
void plan_programs(Plan& plan);
void plan_long_programs(Plan& plan);
void plan_serving(Plan& plan);
void plan_cancels(Plan& plan);
void plan_keys(Plan& plan);
void plan_failing(Plan& plan);
void plan_limits(Plan& plan);
void plan_drains(Plan& plan);
void plan_elastic(Plan& plan);
void plan_priorities(Plan& plan);
void plan_injections(Plan& plan);
void plan_crowd(Plan& plan);
void plan_arrays(Plan& plan);
void plan_dependencies(Plan& plan);
void plan_preemption(Plan& plan);
void plan_growing(Plan& plan);
void plan_quotas(Plan& plan);
void plan_shorts(Plan& plan);
void plan_held_shorts(Plan& plan);
void plan_returning(Plan& plan);
void plan_moves(Plan& plan);
void plan_changes(Plan& plan);
void plan_handing(Plan& plan);
void plan_delayed(Plan& plan);
void plan_picky(Plan& plan);
void plan_changing_quotas(Plan& plan);
void plan_budgets(Plan& plan);
void plan_flapping(Plan& plan);
void plan_users(Plan& plan);
void plan_one_program(Plan& plan);
void plan_gangs(Plan& plan);
void plan_fitting(Plan& plan);
void plan_aging(Plan& plan);
void plan_spoiled(Plan& plan);
void plan_bereft(Plan& plan);
void plan_ponderous(Plan& plan);

}  // namespace tutti::simulation
