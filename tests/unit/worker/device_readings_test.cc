// What is told of leased devices.
#include <catch2/catch.hpp>

#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "worker/agent/device_readings.h"
#include "worker/inventory/measured_links.h"

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

TEST_CASE("device readings: what was measured is told as long as as many links join the two") {
  GpuInventory inventory = two_gpus(50);
  const std::vector<MeasuredLink> links{
      {.from = "GPU-0", .to = "GPU-1", .count = 2, .mb_per_s = 380'000},
      {.from = "GPU-1", .to = "GPU-0", .count = 1, .mb_per_s = 190'000},
      {.from = "GPU-1", .to = "GPU-9", .count = 0, .mb_per_s = 20'000}};
  add_measured_links(inventory, links);
  const auto readings = readings_of(inventory, {leased("GPU-0"), leased("GPU-1")});
  CHECK(readings.at(0).links == std::vector<wire::DeviceLink>{{"GPU-1", 2, 380'000}});
  CHECK(readings.at(1).links == std::vector<wire::DeviceLink>{{"GPU-0", 2, 0}});
  // Of a pair without links, too.
  inventory.gpus[1].nvlinks = {};
  add_measured_links(inventory, {{.from = "GPU-1", .to = "GPU-0", .count = 0, .mb_per_s = 21'000}});
  CHECK(readings_of(inventory, {leased("GPU-1")}).at(0).links ==
        std::vector<wire::DeviceLink>{{"GPU-0", 0, 21'000}});
}

TEST_CASE("device readings: measured links are kept in a file, and one that is none is refused") {
  const std::vector<MeasuredLink> links{
      {.from = "GPU-0", .to = "GPU-1", .count = 2, .mb_per_s = 380'000}};
  const auto parsed = parse_measured_links(print_measured_links(links));
  REQUIRE(parsed);
  CHECK(*parsed == links);
  for (const char* const text : {"", "{}", R"({"links": [{"from": "GPU-0"}]})",
                                 R"({"links": [{"from": "a", "to": "b", "count": -1,
                                                "mb_per_s": 1}]})"}) {
    INFO(text);
    REQUIRE_FALSE(parse_measured_links(text));
    CHECK(parse_measured_links(text).error().code == ErrorCode::corrupt);
  }
  const test::TemporaryFolder folder;
  CHECK(read_measured_links(folder.path() / kMeasuredLinksFile).error().code ==
        ErrorCode::not_found);
  REQUIRE(write_file_atomically(folder.path() / kMeasuredLinksFile, print_measured_links(links)));
  const auto kept = read_measured_links(folder.path() / kMeasuredLinksFile);
  REQUIRE(kept);
  CHECK(*kept == links);
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
