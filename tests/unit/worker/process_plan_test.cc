#include <catch2/catch.hpp>

#include <algorithm>

#include "tests/support/temporary_folder.h"
#include "worker/launcher/data_interface.h"
#include "worker/launcher/process_plan.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

bool has(const LaunchPlan& plan, const std::string& entry) {
  return std::count(plan.environment.begin(), plan.environment.end(), entry) == 1;
}

wire::StartRank start_of(const std::string& spec) {
  wire::StartRank start;
  start.job = JobId{7};
  start.generation = Generation{3};
  start.process = ProcessId{12};
  start.rank = 1;
  start.size = 2;
  start.threads = 2;
  start.spec = spec;
  return start;
}

const PlanSettings kSettings{.rank_binary = "/opt/tutti-rank",
                             .mark = "/state/worker",
                             .environment = {"PATH=/bin", "HOME=/root"}};

}  // namespace

TEST_CASE(
    "process plan: a rank's command line names its job and generation, its environment its "
    "worker") {
  const LaunchPlan plan = plan_rank(kSettings, start_of(""));
  CHECK(plan.command == std::vector<std::string>{"/opt/tutti-rank", "run", "--job", "7",
                                                 "--generation", "3", "--process", "12"});
  CHECK(plan.linked);
  CHECK(has(plan, "TUTTI_JOB=7"));
  CHECK(has(plan, "TUTTI_GENERATION=3"));
  CHECK(has(plan, "TUTTI_PROCESS=12"));
  CHECK(has(plan, "TUTTI_WORKER_MARK=/state/worker"));
  CHECK(has(plan, "HOME=/root"));
}

TEST_CASE(
    "process plan: NCCL takes the interface of the address that ranks agreed on, unless told") {
  constexpr const char* kLoopback = "NCCL_SOCKET_IFNAME==lo";
  const auto plan_on = [](const PlanSettings& settings, const std::string& host) {
    return plan_rank(settings, start_of(""), {.data_host = host, .cores = {}});
  };
  for (const char* const host : {"127.0.0.1", "::1"}) {
    if (interface_of(host).empty()) continue;  // a machine without IPv6
    CHECK(has(plan_on(kSettings, host), kLoopback));
    CHECK(has(plan_on(kSettings, host), std::string("TUTTI_DATA_HOST=") + host));
  }
  CHECK(interface_of("127.0.0.1") == "lo");
  PlanSettings told = kSettings;
  told.environment.emplace_back("NCCL_SOCKET_IFNAME=ib0");
  CHECK(has(plan_on(told, "127.0.0.1"), "NCCL_SOCKET_IFNAME=ib0"));
  CHECK_FALSE(has(plan_on(told, "127.0.0.1"), kLoopback));
  // No address of this machine, and a name, say nothing.
  for (const char* const host : {"192.0.2.1", "localhost"}) CHECK(interface_of(host).empty());
  // Ranks that are all on this machine meet on no other interface; without GPUs they have no NCCL.
  wire::StartRank on_gpu = start_of("");
  on_gpu.device = "GPU-1";
  CHECK(has(plan_rank(kSettings, on_gpu), kLoopback));
  CHECK_FALSE(has(plan_rank(told, on_gpu), kLoopback));
  CHECK_FALSE(has(plan_on(kSettings, ""), kLoopback));
}

TEST_CASE("process plan: a rank is told the cores of its threads; without any, nothing") {
  const auto told = [](const LaunchPlan& plan) {
    return std::count_if(
        plan.environment.begin(), plan.environment.end(),
        [](const std::string& entry) { return entry.starts_with("TUTTI_CORES="); });
  };
  CHECK(has(plan_rank(kSettings, start_of(""), {.data_host = {}, .cores = "2,3"}),
            "TUTTI_CORES=2,3"));
  // Without cores of its own it keeps off the agent's.
  CHECK(plan_rank(kSettings, start_of(""), {.data_host = {}, .cores = "2", .cpus = {1, 2}})
            .cpus.empty());
  CHECK(plan_rank(kSettings, start_of(""), {.data_host = {}, .cores = {}, .cpus = {1, 2}}).cpus ==
        std::vector<int>{1, 2});
  CHECK(told(plan_rank(kSettings, start_of(""))) == 0);
  PlanSettings wished = kSettings;
  wished.environment.emplace_back("TUTTI_CORES=7");
  CHECK(has(plan_rank(wished, start_of("")), "TUTTI_CORES=7"));
}

TEST_CASE("process plan: a rank sees the GPU that was leased with its slot, and no other") {
  wire::StartRank start = start_of("");
  start.device = "GPU-1";
  PlanSettings settings = kSettings;
  settings.environment.insert(settings.environment.end(),
                              {"TUTTI_DEVICE=gpu", "CUDA_VISIBLE_DEVICES=0,1"});
  const LaunchPlan plan = plan_rank(settings, start);
  CHECK(has(plan, "TUTTI_DEVICE=gpu:GPU-1"));
  CHECK(has(plan, "CUDA_VISIBLE_DEVICES=GPU-1"));
  CHECK_FALSE(has(plan, "TUTTI_DEVICE=gpu"));
}

TEST_CASE("process plan: a program sees the GPUs of its local ranks, in their order, no others") {
  SpecCache specs;
  PlanSettings settings = kSettings;
  settings.environment.emplace_back("CUDA_VISIBLE_DEVICES=0,1,2");
  const auto planned = [&](std::vector<std::string> devices) {
    ProgramGroup group;
    group.group.addresses = {"127.0.0.1:1"};
    group.local_devices = std::move(devices);
    return plan_program(settings, specs,
                        start_of("name: x\nkind: run\ncommand: [a]\n"
                                 "env: {CUDA_VISIBLE_DEVICES: all}\n"),
                        group);
  };
  const auto leased = planned({"GPU-7", "GPU-2"});
  REQUIRE(leased);
  CHECK(has(*leased, "CUDA_VISIBLE_DEVICES=GPU-7,GPU-2"));
  CHECK_FALSE(has(*leased, "CUDA_VISIBLE_DEVICES=all"));
  const auto none = planned({});
  REQUIRE(none);
  CHECK(has(*none, "CUDA_VISIBLE_DEVICES=all"));
}

TEST_CASE("process plan: a program gets torchrun's environment and its own") {
  const test::TemporaryFolder folder;
  wire::StartRank start = start_of(
      "name: x\nkind: run\ncommand: [python3, train.py]\nenv: {A: b, HOME: /home/x}\n"
      "resources: {ranks: {min: 2, max: 2}}\n");
  start.folder = (folder.path() / "job-7").string();
  ProgramGroup group;
  group.group.addresses = {"10.0.0.1:4001", "10.0.0.2:4002"};
  group.local_rank = 0;
  group.local_size = 1;
  SpecCache specs;
  const auto plan = plan_program(kSettings, specs, start, group);
  REQUIRE(plan);
  CHECK(plan->command == std::vector<std::string>{"python3", "train.py"});
  CHECK_FALSE(plan->linked);
  CHECK(plan->folder == start.folder);
  for (const char* entry :
       {"MASTER_ADDR=10.0.0.1", "MASTER_PORT=4001", "RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=0",
        "LOCAL_WORLD_SIZE=1", "TORCHELASTIC_RESTART_COUNT=2", "GROUP_RANK=1", "GROUP_WORLD_SIZE=2",
        "ROLE_RANK=1", "ROLE_WORLD_SIZE=2", "TORCHELASTIC_RUN_ID=tutti-7", "TUTTI_GENERATION=3",
        "TUTTI_RANK=1", "A=b", "HOME=/home/x", "OMP_NUM_THREADS=2"}) {
    INFO(entry);
    CHECK(has(*plan, entry));
  }
}

TEST_CASE("process plan: a task of an array finds its index where its spec asks for it") {
  SpecCache specs;
  wire::StartRank start = start_of(
      "name: x\nkind: run\ncommand: [a, \"${index}\", \"x${index}y${index}\"]\n"
      "env: {SEED: \"1${index}\"}\n");
  start.array_index = 42;
  ProgramGroup group;
  group.group.addresses = {"127.0.0.1:1"};
  const auto plan = plan_program(kSettings, specs, start, group);
  REQUIRE(plan);
  CHECK(plan->command == std::vector<std::string>{"a", "42", "x42y42"});
  CHECK(has(*plan, "SEED=142"));
  CHECK(has(*plan, "TUTTI_ARRAY_INDEX=42"));
}

TEST_CASE("process plan: a spec that does not parse and a group without addresses are errors") {
  SpecCache specs;
  CHECK(plan_program(kSettings, specs, start_of("kind: what"), {}).error().code ==
        ErrorCode::invalid_argument);
  CHECK(plan_program(kSettings, specs, start_of("name: x\nkind: run\ncommand: [a]\n"), {})
            .error()
            .code == ErrorCode::invalid_argument);
}
