#include "tests/simulation/workloads/workloads.h"

#include <algorithm>
#include <bit>

namespace tutti::simulation {

namespace {

const WorkloadRow kWorkloads[] = {
    {"pair", plan_pair, "one training job of two ranks"},
    {"training", plan_training, "training jobs of several sizes that checkpoint"},
    {"programs", plan_programs, "programs of one and more ranks"},
    {"long-programs", plan_long_programs, "programs that outlast lease and stop_after together"},
    {"serving", plan_serving, "a served model that is cancelled in the end"},
    {"cancels", plan_cancels, "jobs that are cancelled at any moment, some twice"},
    {"keys", plan_keys, "keys that are used again, with the same spec and with another"},
    {"budgets", plan_budgets, "jobs with next to no budget for the infrastructure's failures"},
    {"failing", plan_failing, "programs, jobs and checkpoints that fail by themselves"},
    {"drains", plan_drains, "nodes that are drained and come back, while jobs run on them"},
    {"elastic", plan_elastic, "training jobs that may have more or fewer ranks"},
    {"limits", plan_limits, "jobs with limits of time and of waiting"},
    {"priorities", plan_priorities, "jobs of different priorities and owners"},
    {"injections", plan_injections, "faults that users order"},
    {"arrays", plan_arrays, "arrays with a limit of tasks at once, some of which fail"},
    {"dependencies", plan_dependencies, "jobs that start after others have ended, well or not"},
    {"preemption", plan_preemption, "more than fits, and urgent jobs that take from it"},
    {"quotas", plan_quotas, "a user who asks for more than its quotas give"},
    {"growing", plan_growing, "training jobs that grow into what programs leave free"},
    {"shorts", plan_shorts, "arrays of tasks so short that they stand in line"},
    {"held-shorts", plan_held_shorts, "tasks in line behind such that hang"},
    {"returning", plan_returning, "training jobs that wait for the nodes they lost"},
    {"moves", plan_moves, "jobs that are drained away to where there is room"},
    {"delayed", plan_delayed, "jobs that are not to start yet"},
    {"picky", plan_picky, "jobs that ask for labels, devices and memory"},
    {"changing-quotas", plan_changing_quotas, "quotas that change meanwhile"},
    {"flapping", plan_flapping, "a worker that is killed again and again"},
    {"users", plan_users, "programs and arrays of several users"},
    {"gangs", plan_gangs, "programs of several ranks, and others that would take their slots"},
    {"fitting", plan_fitting, "wide programs that wait, and small ones that fit before them"},
    {"aging", plan_aging, "users who had much and nothing, a job that waited for a day"},
    {"bereft", plan_bereft, "gangs that lose a node, and find no other place"},
    {"ponderous", plan_ponderous, "a training job with very long steps"},
    {"spoiled", plan_spoiled, "programs of several users that are all killed on one node"},
    {"one-program", plan_one_program, "one program of one rank"},
    {"changes", plan_changes, "an array, a job that grows, a drain"},
    {"handing", plan_handing, "a server's move, a preemption, a job that waits for another"},
    {"crowd", plan_crowd, "many short programs, so that the history overflows"},
};

}  // namespace

std::span<const WorkloadRow> workloads() { return kWorkloads; }

const WorkloadRow* find_workload(std::string_view name) {
  const auto* at = std::find_if(std::begin(kWorkloads), std::end(kWorkloads),
                                [&](const WorkloadRow& row) { return row.name == name; });
  return at == std::end(kWorkloads) ? nullptr : at;
}

Duration Plan::some(Duration min, Duration max) {
  return min + Duration(static_cast<std::int64_t>(
                   rng.below(static_cast<std::uint64_t>((max - min).count()) + 1)));
}

std::uint32_t Plan::some_ranks(std::uint32_t max) {
  const std::uint32_t most = std::min({max, options.workers * options.slots, kShards});
  const int powers = std::bit_width(most);
  return 1U << rng.below(static_cast<std::uint64_t>(powers));
}

PlannedJob& Plan::train(std::string_view name, std::uint32_t ranks, std::uint64_t steps) {
  PlannedJob job;
  job.spec.name = std::string(name) + "-" + std::to_string(jobs.size());
  job.spec.kind = spec::JobKind::train;
  job.spec.resources.ranks_min = ranks;
  job.spec.resources.ranks_max = ranks;
  job.spec.parallel.shards = kShards;
  job.spec.train.steps = steps;
  // The simulated faults are many; the budget is not what is tested here.
  job.spec.retries.infrastructure = 1'000;
  job.load.steps = steps;
  jobs.push_back(std::move(job));
  return jobs.back();
}

PlannedJob& Plan::run(std::string_view name, std::uint32_t ranks, Duration time) {
  PlannedJob job;
  job.spec.name = std::string(name) + "-" + std::to_string(jobs.size());
  job.spec.kind = spec::JobKind::run;
  job.spec.command = {"true"};
  job.spec.resources.ranks_min = ranks;
  job.spec.resources.ranks_max = ranks;
  job.spec.retries.infrastructure = 1'000;
  job.spec.stop_after_ms = 10'000;
  job.load.step_time = time;
  jobs.push_back(std::move(job));
  return jobs.back();
}

}  // namespace tutti::simulation
