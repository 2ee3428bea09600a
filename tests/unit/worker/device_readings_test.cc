// What is told of leased devices.
#include <catch2/catch.hpp>

#include "worker/agent/device_readings.h"

namespace tutti::worker {
namespace {

GpuInventory two_gpus(std::uint32_t celsius) {
  GpuInventory inventory;
  inventory.gpus = {{.uuid = "GPU-0",
                     .name = "Made-up H100",
                     .memory_free_bytes = 7,
                     .power_limit_watts = 700,
                     .temperature_celsius = 40,
                     .slowdown_celsius = 90,
                     .nvlinks = {0, 2}},
                    {.uuid = "GPU-1",
                     .name = "Made-up H100",
                     .temperature_celsius = celsius,
                     .slowdown_celsius = 90,
                     .throttle_reasons = {},
                     .nvlinks = {2, 0}}};
  return inventory;
}

wire::DeviceState leased(const std::string& uuid) {
  return {.uuid = uuid, .name = "Made-up H100", .memory_bytes = 80};
}

}  // namespace

TEST_CASE("device readings: leased devices are told of, with their links by UUID") {
  const auto readings = readings_of(two_gpus(50), {leased("GPU-1"), leased("GPU-9")});
  REQUIRE(readings.size() == 1);
  CHECK(readings[0].uuid == "GPU-1");
  CHECK(readings[0].temperature_celsius == 50);
  CHECK(readings[0].slowdown_celsius == 90);
  CHECK(readings[0].links == std::vector<wire::DeviceLink>{{"GPU-0", 2}});
  const auto other = readings_of(two_gpus(50), {leased("GPU-0")});
  CHECK(other.at(0).power_limit_watts == 700);
  CHECK(other.at(0).memory_free_bytes == 7);
}

TEST_CASE("device readings: a device that becomes hot is said once, and again after it was cool") {
  const std::vector<wire::DeviceState> devices{leased("GPU-0"), leased("GPU-1")};
  const auto cool = readings_of(two_gpus(50), devices);
  const auto hot = readings_of(two_gpus(89), devices);
  const auto lines = new_troubles(two_gpus(89), cool, devices);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0] == "Made-up H100 GPU-1 is hot: 89 C, and it slows down at 90 C");
  CHECK(new_troubles(two_gpus(89), hot, devices).empty());
  CHECK(new_troubles(two_gpus(89), {}, devices).size() == 1);
  CHECK(new_troubles(two_gpus(50), hot, devices).empty());
}

}  // namespace tutti::worker
