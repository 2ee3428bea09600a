// All ranks of a training job share one numerics profile, for good; a slot's GPU is leased by UUID.
#include <fmt/core.h>
#include <catch2/catch.hpp>

#include <set>

#include "coordinator/membership/numerics_profile.h"
#include "coordinator/scheduler/capacity.h"
#include "tests/unit/coordinator/cluster_driver.h"

namespace tutti::coordinator::test {

using enum JobState;

namespace {

constexpr const char* kOld = "sm_80-fp32-cublaslt-130000";
constexpr const char* kNew = "sm_90-fp32-cublaslt-130000";

// What CPU workers tell.
const std::vector<std::string> kTiles{"portable", "amx-bf16", "portable-bf16"};
const std::vector<std::string> kPairs{"portable", "avx512bf16-bf16", "portable-bf16"};
const std::vector<std::string> kPlain{"portable", "portable-bf16"};

std::set<std::string> devices_of(const std::vector<wire::StartRank>& starts) {
  std::set<std::string> out;
  for (const wire::StartRank& start : starts) out.insert(start.device);
  return out;
}

}  // namespace

TEST_CASE("profiles: precision is read from a profile's name, and the first that has it counts") {
  CHECK(precision_of("portable") == "fp32");
  CHECK(precision_of(kNew) == "fp32");
  CHECK(precision_of("sm_90-bf16-cublaslt-1") == "bf16");
  CHECK(precision_of("sm_90-fp8-e4m3_rows-cublaslt-1") == "fp8");
  CHECK(precision_of("odd").empty());
  CHECK(precision_of("portable-bf16") == "bf16");
  CHECK(precision_of("amx-bf16") == "bf16");
  CHECK(profile_for({}, "fp32") == "portable");
  CHECK(profile_for({{}, {}}, "fp32") == "portable");
  CHECK(profile_for({{kNew, "sm_90-bf16-cublaslt-1"}}, "bf16") == "sm_90-bf16-cublaslt-1");
  CHECK(profile_for({kTiles, kTiles}, "bf16") == "amx-bf16");
  CHECK(profile_for({kTiles, kPlain}, "bf16") == "portable-bf16");
}

TEST_CASE("profiles: CPUs of one kind train in their own bf16, mixed ones in what all have") {
  spec::JobSpec spec = train_spec(2);
  spec.train.precision = "bf16";
  const auto profile_on = [&](const std::vector<std::string>& first,
                              const std::vector<std::string>& second) {
    Driver driver;
    driver.join_cpus("a", 1, first);
    driver.join_cpus("b", 1, second);
    driver.submit(spec);
    const auto starts = driver.take<wire::StartRank>();
    REQUIRE(starts.size() == 2);
    CHECK(starts[0].profile == starts[1].profile);
    return starts[0].profile;
  };
  CHECK(profile_on(kTiles, kTiles) == "amx-bf16");
  CHECK(profile_on(kPairs, kPairs) == "avx512bf16-bf16");
  CHECK(profile_on(kTiles, kPairs) == "portable-bf16");
  CHECK(profile_on(kPlain, kTiles) == "portable-bf16");
}

TEST_CASE("profiles: a job in the bf16 of some CPUs waits for those, whoever else joins") {
  Driver driver;
  driver.join_cpus("a", 2, kTiles);
  spec::JobSpec spec = train_spec(2);
  spec.train.precision = "bf16";
  const JobId job = driver.submit(spec);
  REQUIRE(driver.run_up().size() == 2);
  driver.join_cpus("b", 2, kPlain);
  driver.disconnect("a");
  driver.pass(10s);
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.job_state(job) == recovering);
  driver.join_cpus("c", 2, kTiles);
  driver.pass(1s);
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 2);
  CHECK(again[0].profile == "amx-bf16");
}

TEST_CASE("profiles: bf16 waits where the workers are of a version that tells none") {
  Driver driver;
  driver.join("old", 2);
  spec::JobSpec spec = train_spec(2);
  spec.train.precision = "bf16";
  CHECK(driver.job(driver.submit(spec)).waiting == "no worker computes in bf16");
}

TEST_CASE("profiles: a training gang of mixed profiles is refused with the reason") {
  Driver driver;
  driver.join_gpus("a", 1, kOld);
  driver.join_gpus("b", 1, kNew);
  driver.join("c", 1);
  const JobId job = driver.submit(train_spec(2));
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.job_state(job) == queued);
  const std::string why =
      "needs 2 slots, and the cluster has 1 that suit it; its ranks share one numerics profile: "
      "portable has 1, sm_80-fp32-cublaslt-130000 has 1, sm_90-fp32-cublaslt-130000 has 1";
  CHECK(driver.job(job).waiting == why);
  CHECK(driver.happened(job, EventKind::waiting));
  driver.join_gpus("d", 1, kNew);
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 2);
  CHECK(devices_of(starts) == std::set<std::string>{"b-0", "d-0"});
  for (const auto& start : starts) CHECK(start.profile == kNew);
}

TEST_CASE("profiles: a gang of two versions of NCCL, CUDA or driver is refused, naming nodes") {
  Driver driver;
  const auto [of_a, of_b] =
      GENERATE(std::pair("nccl-2.27.3 cuda-13.0", "nccl-2.28.3 cuda-13.0"),
               std::pair("nccl-2.27.3 cuda-12.9", "nccl-2.27.3 cuda-13.0"),
               std::pair("nccl-2.27.3", "nccl-2.27.3 cuda-13.0"),
               std::pair("nccl-2.27.3 cuda-13.0 driver-13.0", "nccl-2.27.3 cuda-13.0 driver-13.1"));
  driver.exchange_by("a", of_a);
  driver.exchange_by("b", of_b);
  driver.join_gpus("a", 1, kNew);
  driver.join_gpus("b", 1, kNew);
  const JobId job = driver.submit(train_spec(2));
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(
      driver.job(job).waiting ==
      fmt::format("needs 2 slots, and the cluster has 1 that suit it; its ranks share one numerics "
                  "profile and one version of NCCL, CUDA and driver: sm_90-fp32-cublaslt-130000 by "
                  "{} (a) has 1, sm_90-fp32-cublaslt-130000 by {} (b) has 1",
                  of_a, of_b));
  CHECK(driver.happened(job, EventKind::waiting));
  driver.exchange_by("c", of_b);
  driver.join_gpus("c", 1, kNew);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"b-0", "c-0"});
}

TEST_CASE("profiles: a lost rank comes back by the version of NCCL that the others have") {
  Driver driver;
  for (const char* const worker : {"a", "b"}) {
    driver.exchange_by(worker, "nccl-2.27.3");
    driver.join_gpus(worker, 1, kNew);
  }
  const JobId job = driver.submit(train_spec(2));
  REQUIRE(driver.run_up().size() == 2);
  driver.exchange_by("c", "nccl-2.28.3");
  driver.join_gpus("c", 2, kNew);
  driver.disconnect("b");
  driver.live(8s);
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.job_state(job) == recovering);
  driver.exchange_by("d", "nccl-2.27.3");
  driver.join_gpus("d", 1, kNew);
  driver.live(1s, {"a", "c", "d"});
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"d-0"});
}

TEST_CASE("profiles: who is behind the head takes a profile that has room beside what it keeps") {
  Driver driver;
  driver.join("c", 1);
  driver.join("d", 1);
  driver.submit(run_spec(1));
  driver.run_up();
  const JobId head = driver.submit(train_spec(2));
  driver.join_gpus("b", 1, kNew);
  REQUIRE(driver.job_state(head) == queued);
  const JobId next = driver.submit(train_spec(1));
  CHECK(driver.job_state(next) == placed);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"b-0"});
}

TEST_CASE("profiles: a program's gang may be mixed") {
  Driver driver;
  driver.join_gpus("a", 1, kOld);
  driver.join("c", 1);
  driver.submit(run_spec(2));
  const auto starts = driver.take<wire::StartRank>();
  REQUIRE(starts.size() == 2);
  CHECK(devices_of(starts) == std::set<std::string>{"a-0", ""});
  CHECK(starts[0].profile.empty());
}

TEST_CASE("profiles: a lost rank comes back on a worker of the job's profile only") {
  Driver driver;
  driver.join_gpus("a", 2, kNew);
  const JobId job = driver.submit(train_spec(2));
  const auto starts = driver.run_up();
  REQUIRE(starts.size() == 2);
  CHECK(devices_of(starts) == std::set<std::string>{"a-0", "a-1"});
  driver.join_gpus("b", 2, kOld);
  driver.join("c", 2);
  driver.disconnect("a");
  driver.pass(10s);
  CHECK(driver.take<wire::StartRank>().empty());
  CHECK(driver.job_state(job) == recovering);
  driver.join_gpus("d", 2, kNew);
  driver.pass(1s);
  const auto again = driver.take<wire::StartRank>();
  REQUIRE(again.size() == 2);
  CHECK(devices_of(again) == std::set<std::string>{"d-0", "d-1"});
  CHECK(again[0].profile == kNew);
}

TEST_CASE("profiles: a job starts where most of its ranks have room") {
  Driver driver;
  driver.join_gpus("a", 1, kOld);
  driver.join_gpus("b", 3, kNew);
  spec::JobSpec spec = train_spec(1);
  spec.resources.ranks_max = 8;
  spec.parallel.data = 0;
  spec.parallel.shards = 8;
  driver.submit(spec);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"b-0", "b-1", "b-2"});
}

TEST_CASE("devices: a rank that asks for memory of its device gets one that has as much") {
  Driver driver;
  driver.join("cpu", 2);
  driver.join_gpus("small", 2, kNew, std::uint64_t{24} << 30);
  driver.join_gpus("large", 1, kNew);
  spec::JobSpec spec = run_spec(1);
  spec.resources.device_memory_bytes = std::uint64_t{40} << 30;
  driver.submit(spec);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"large-0"});
  // Its slot is taken now, and the others never do.
  const JobId second = driver.submit(spec);
  CHECK(driver.job_state(second) == queued);
  const auto told = driver.state().explain(second);
  REQUIRE(told);
  CHECK(told->ranks_possible == 1);
  std::string lines;
  for (const std::string& line : told->lines) lines += line + '\n';
  INFO(lines);
  CHECK(lines.find("small: its devices have 24.0 GiB of memory, a rank needs 40.0") !=
        std::string::npos);
  CHECK(lines.find("cpu: has no device with memory of its own") != std::string::npos);
  spec.resources.device_memory_bytes = std::uint64_t{200} << 30;
  const JobId never = driver.submit(spec);
  CHECK(driver.job(never).waiting ==
        "no worker that suits it has a device with 200.0 GiB of memory");
  spec.resources.device_memory_bytes = std::uint64_t{20} << 30;
  driver.submit(spec);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"small-0"});
}

TEST_CASE("devices: memory is what a job waits for only where nothing else is missing") {
  Driver driver;
  driver.join("cpu", 2);
  driver.join_gpus("small", 1, kNew, std::uint64_t{24} << 30);
  spec::JobSpec spec = run_spec(1);
  spec.resources.device_memory_bytes = std::uint64_t{8} << 30;
  spec.resources.labels = {{"zone", "moon"}};
  CHECK(driver.job(driver.submit(spec)).waiting == "no worker has the label zone=moon");
  spec.resources.labels = {};
  spec.resources.device_memory_bytes = std::uint64_t{40} << 30;
  CHECK(driver.job(driver.submit(spec)).waiting ==
        "no worker that suits it has a device with 40.0 GiB of memory");
}

TEST_CASE("devices: on a node of unequal ones, a job with little leaves the large one to others") {
  Driver driver;
  driver.join_gpus("mixed", {std::uint64_t{80} << 30, std::uint64_t{24} << 30}, kNew);
  const JobId small = driver.submit(run_spec(1));
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"mixed-1"});
  spec::JobSpec spec = run_spec(1);
  spec.resources.device_memory_bytes = std::uint64_t{40} << 30;
  driver.submit(spec);
  CHECK(devices_of(driver.take<wire::StartRank>()) == std::set<std::string>{"mixed-0"});
  // The next one waits for who holds the large one, not for `small`.
  const JobId next = driver.submit(spec);
  const auto told = driver.state().explain(next);
  REQUIRE(told);
  REQUIRE(told->must_end.size() == 1);
  CHECK(told->must_end.front() != small);
}

}  // namespace tutti::coordinator::test
