// What the inventory tells of GPUs, over a stand-in for the driver's library.
#include <catch2/catch.hpp>

#include <atomic>
#include <cstdlib>
#include <future>
#include <memory>

#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "worker/inventory/gpu_watch.h"
#include "worker/inventory/gpus.h"

namespace tutti::worker {

TEST_CASE("gpus: without a driver there are none, and one line says why") {
  const GpuInventory inventory = take_gpu_inventory("libno-such-driver.so.1");
  CHECK(inventory.gpus.empty());
  CHECK(inventory.problem.find("no NVIDIA driver") != std::string::npos);
}

TEST_CASE("gpus: what a driver does not tell is left out, and the rest is told") {
  const GpuInventory inventory = take_gpu_inventory(TUTTI_FAKE_NVML_OLD);
  CHECK(inventory.problem.empty());
  CHECK(inventory.driver == "580.65.06");
  CHECK(inventory.cuda == 0);
  REQUIRE(inventory.gpus.size() == 2);
  CHECK(inventory.gpus[1].uuid == "GPU-1");
  CHECK(inventory.gpus[1].name == "Made-up H100");
  CHECK(inventory.gpus[1].memory_bytes == 0);
  CHECK(inventory.gpus[1].nvlinks == std::vector<std::uint32_t>{0, 0});
  CHECK(trouble_of(inventory.gpus[1]).empty());
}

TEST_CASE("gpus: a GPU that is slowed down, or soon will be, is said") {
  CHECK(trouble_of({.temperature_celsius = 86, .slowdown_celsius = 90}).empty());
  CHECK(trouble_of({.temperature_celsius = 87, .slowdown_celsius = 90}) ==
        "hot: 87 C, and it slows down at 90 C");
  CHECK(trouble_of({.temperature_celsius = 84}).empty());
  CHECK(trouble_of({.temperature_celsius = 85}) == "hot: 85 C");
  CHECK(trouble_of({.temperature_celsius = 60, .throttle_reasons = throttle_reasons_of(0x84)}) ==
        "slowed down (power cap; power brake) at 60 C");
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
  CHECK(first.clock_mhz_max == 1980);
  CHECK(first.throttle_reasons.empty());
  CHECK(first.nvlinks == std::vector<std::uint32_t>{0, 2});
  const Gpu& second = inventory.gpus[1];
  CHECK(second.temperature_celsius == 92);
  CHECK(second.slowdown_celsius == 90);
  CHECK(second.clock_mhz == 1200);
  CHECK(trouble_of(first).empty());
  CHECK(trouble_of(second) == "slowed down (thermal, hardware) at 92 C");
  CHECK(second.throttle_reasons == std::vector<std::string>{"thermal, hardware"});
  CHECK(second.nvlinks == std::vector<std::uint32_t>{2, 0});
}

TEST_CASE("gpus: the socket is the system's word for the bus that a GPU is on") {
  const test::TemporaryFolder system;
  const auto device = system.path() / "0000:01:00.0";
  std::filesystem::create_directory(device);
  REQUIRE(write_file_atomically(device / "numa_node", "1\n"));
  const GpuInventory inventory = take_gpu_inventory(TUTTI_FAKE_NVML, system.path());
  REQUIRE(inventory.gpus.size() == 2);
  CHECK(inventory.gpus[0].socket == -1);
  CHECK(inventory.gpus[1].socket == 1);
}

TEST_CASE("gpus: one that is cut into MIG instances is left out, and one line says so") {
  ::setenv("TUTTI_FAKE_MIG", "1", 1);
  const GpuInventory one = take_gpu_inventory(TUTTI_FAKE_NVML);
  ::setenv("TUTTI_FAKE_MIG", "2", 1);
  const GpuInventory none = take_gpu_inventory(TUTTI_FAKE_NVML);
  ::unsetenv("TUTTI_FAKE_MIG");
  REQUIRE(one.gpus.size() == 1);
  CHECK(one.gpus[0].uuid == "GPU-1");
  CHECK(one.gpus[0].nvlinks == std::vector<std::uint32_t>{0});
  CHECK(one.problem ==
        "GPU-0 (Made-up H100) is cut into MIG instances, which are not leased: end that by "
        "`nvidia-smi -i 0 -mig 0`");
  CHECK(none.gpus.empty());
  CHECK(none.problem.find("GPU-1 (Made-up H100) is cut") == 0);
}

TEST_CASE("gpu watch: reads again and again, and says each reading") {
  std::promise<void> thrice;
  std::atomic<int> seen{0};
  GpuWatch watch;
  watch.start(
      [&](const GpuInventory& inventory) {
        if (inventory.driver == "1" && ++seen == 3) thrice.set_value();
      },
      [] { return GpuInventory{.driver = "1"}; }, Duration{0});
  CHECK(thrice.get_future().wait_for(std::chrono::seconds(60)) == std::future_status::ready);
}

TEST_CASE("gpu watch: a driver that hangs holds up nobody, and is not heard any more") {
  const auto hangs = std::make_shared<std::promise<void>>();
  const auto asked = std::make_shared<std::promise<void>>();
  const auto seen = std::make_shared<std::atomic<bool>>(false);
  {
    GpuWatch watch;
    watch.start([seen](const GpuInventory&) { *seen = true; },
                [asked, answer = hangs->get_future().share()] {
                  asked->set_value();
                  answer.wait();
                  return GpuInventory();
                });
    asked->get_future().wait();
  }
  hangs->set_value();
  CHECK_FALSE(*seen);
}

}  // namespace tutti::worker
