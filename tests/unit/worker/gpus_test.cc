// What the inventory tells of GPUs, over a stand-in for the driver's library.
#include <catch2/catch.hpp>

#include "worker/inventory/gpus.h"

namespace tutti::worker {

TEST_CASE("gpus: without a driver there are none, and one line says why") {
  const GpuInventory inventory = take_gpu_inventory("libno-such-driver.so.1");
  CHECK(inventory.gpus.empty());
  CHECK(inventory.problem.find("no NVIDIA driver") != std::string::npos);
}

TEST_CASE("gpus: a library that lacks functions is a driver too old") {
  const GpuInventory inventory = take_gpu_inventory("libc.so.6");
  CHECK(inventory.gpus.empty());
  CHECK(inventory.problem.find("too old") != std::string::npos);
}

TEST_CASE("gpus: identity, memory, limits, links and what slows them") {
  const GpuInventory inventory = take_gpu_inventory(TUTTI_FAKE_NVML);
  CHECK(inventory.problem.empty());
  CHECK(inventory.driver == "580.65.06");
  CHECK(inventory.cuda == 13000);
  REQUIRE(inventory.gpus.size() == 2);
  const Gpu& first = inventory.gpus[0];
  CHECK(first.uuid == "GPU-0");
  CHECK(first.name == "Made-up H100");
  CHECK(first.memory_bytes == std::uint64_t{80} << 30);
  CHECK(first.power_limit_watts == 700);
  CHECK(first.throttle_reasons.empty());
  CHECK(first.nvlinks == std::vector<std::uint32_t>{0, 2});
  const Gpu& second = inventory.gpus[1];
  CHECK(second.temperature_celsius == 92);
  CHECK(second.throttle_reasons == std::vector<std::string>{"thermal, hardware"});
  CHECK(second.nvlinks == std::vector<std::uint32_t>{2, 0});
}

}  // namespace tutti::worker
