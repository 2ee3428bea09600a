#include "ops/cli/gpus/gpu_check.h"

#include <fmt/core.h>

#include <catch2/catch.hpp>

#include <algorithm>

namespace tutti::cli {
namespace {

constexpr const char* kProduct = "bf16 product";

// Two cards of one kind, and one of another.
GpuCheck three_cards() {
  GpuCheck check;
  REQUIRE(check.take(R"({"profiles": ["sm_90"], "stack": "CUDA 13.0", "devices": [
    {"uuid": "GPU-a", "name": "H100", "memory_bytes": 80},
    {"uuid": "GPU-b", "name": "H100", "memory_bytes": 80},
    {"uuid": "GPU-c", "name": "L4", "memory_bytes": 24}]})"));
  return check;
}

void measure(GpuCheck& check, const char* name, const char* gpu, const char* peer, double value) {
  const std::size_t number = check.measures.size() + 1;
  REQUIRE(check.take(
      fmt::format(R"({{"begins": {}, "name": "{}", "unit": "TFLOP/s", "gpu": "{}", "peer": "{}"}})",
                  number, name, gpu, peer)));
  REQUIRE(check.open() != nullptr);
  REQUIRE(
      check.take(fmt::format(R"({{"ended": {}, "value": {}, "direct": true}})", number, value)));
  REQUIRE(check.open() == nullptr);
}

std::vector<std::string> problems(const GpuCheck& check) {
  std::vector<std::string> out;
  for (const Finding& each : judge_check(check, {})) {
    if (each.verdict == Verdict::problem) out.push_back(each.subject + ": " + each.found);
  }
  return out;
}

TEST_CASE("gpu check: a GPU far below the best of its kind is named, one of another kind is not") {
  GpuCheck check = three_cards();
  measure(check, kProduct, "GPU-a", "", 700);
  measure(check, kProduct, "GPU-b", "", 610);
  measure(check, kProduct, "GPU-c", "", 100);
  CHECK(problems(check).empty());
  measure(check, "read, memory", "GPU-a", "", 2000);
  measure(check, "read, memory", "GPU-b", "", 3000);
  CHECK(problems(check) ==
        std::vector<std::string>{
            "GPU 0: read, memory: 2000.0 TFLOP/s, the best of its kind has 3000.0"});
}

TEST_CASE("gpu check: links are compared with those that are joined alike") {
  GpuCheck check = three_cards();
  check.readings.gpus = {{.uuid = "GPU-a", .nvlinks = {0, 18, 0}},
                         {.uuid = "GPU-b", .nvlinks = {18, 0, 0}},
                         {.uuid = "GPU-c", .nvlinks = {0, 0, 0}}};
  measure(check, "copy to a peer", "GPU-a", "GPU-b", 380);
  measure(check, "copy to a peer", "GPU-a", "GPU-c", 20);
  CHECK(problems(check).empty());
  measure(check, "copy to a peer", "GPU-b", "GPU-a", 60);
  CHECK(problems(check) ==
        std::vector<std::string>{
            "GPU 1 to 0: copy to a peer: 60.0 TFLOP/s, the best of its kind has 380.0"});
}

TEST_CASE("gpu check: pairs are kept one way each, one that failed as the slowest there is") {
  GpuCheck check = three_cards();
  check.readings.gpus = {{.uuid = "GPU-a", .nvlinks = {0, 18, 0}},
                         {.uuid = "GPU-b", .nvlinks = {18, 0, 0}}};
  measure(check, kProduct, "GPU-a", "", 700);
  measure(check, "copy to a peer", "GPU-a", "GPU-b", 380.25);
  measure(check, "copies both ways", "GPU-a", "GPU-b", 700);
  REQUIRE(check.take(R"({"begins": 4, "name": "copy to a peer", "unit": "GB/s",
                         "gpu": "GPU-c", "peer": "GPU-a"})"));
  REQUIRE(check.take(R"({"ended": 4, "problem": "what arrived is not what was sent"})"));
  CHECK(links_of(check) == std::vector<worker::MeasuredLink>{
                               {.from = "GPU-a", .to = "GPU-b", .count = 18, .mb_per_s = 380'250},
                               {.from = "GPU-c", .to = "GPU-a", .count = 0, .mb_per_s = 1}});
}

TEST_CASE("gpu check: copies both ways are compared with each other, and shown in a row") {
  GpuCheck check = three_cards();
  measure(check, "copy to a peer", "GPU-a", "GPU-b", 380);
  measure(check, "copies both ways", "GPU-a", "GPU-b", 700);
  CHECK(problems(check).empty());
  measure(check, "copies both ways", "GPU-b", "GPU-a", 290);
  CHECK(problems(check) ==
        std::vector<std::string>{
            "GPUs 1 and 0: copies both ways: 290.0 TFLOP/s, the best of its kind has 700.0"});
  CHECK(check_page(check, {}, Paint::plain).find("both ways with gpu 1") != std::string::npos);
}

TEST_CASE("gpu check: what failed, or did not answer, is a problem, and a hot card is one") {
  GpuCheck check = three_cards();
  REQUIRE(check.take(R"({"begins": 1, "name": "x", "unit": "GB/s", "gpu": "GPU-a", "peer": ""})"));
  REQUIRE(check.take(R"({"ended": 1, "problem": "the GPU failed"})"));
  check.readings.gpus = {
      {.uuid = "GPU-a", .throttle_reasons = {"power cap"}},
      {.uuid = "GPU-b", .temperature_celsius = 91, .throttle_reasons = {"thermal, hardware"}}};
  CHECK(problems(check) ==
        std::vector<std::string>{"GPU 1: slowed down (thermal, hardware) at 91 C",
                                 "GPU 0: x: the GPU failed"});
  const std::string page = check_page(check, judge_check(check, {}), Paint::plain);
  CHECK(page.find("failed") != std::string::npos);
  CHECK(page.find("2 problems") != std::string::npos);
}

TEST_CASE("gpu check: lines of others are ignored, and so is an end that nothing began") {
  GpuCheck check = three_cards();
  for (const char* const line :
       {"NCCL INFO something", "{}", "[1]", R"({"ended": 1, "value": 2, "direct": false})",
        R"({"begins": "one"})"}) {
    INFO(line);
    CHECK_FALSE(check.take(line));
  }
  CHECK(check.measures.empty());
}

TEST_CASE("gpu check: of many readings the hottest, all reasons and the highest clock stay") {
  worker::GpuInventory sum{.gpus = {{.uuid = "GPU-a",
                                     .temperature_celsius = 80,
                                     .clock_mhz = 500,
                                     .throttle_reasons = {"power cap"}}}};
  add_reading(sum, {.gpus = {{.uuid = "GPU-a",
                              .temperature_celsius = 70,
                              .clock_mhz = 1980,
                              .throttle_reasons = {"sync boost"}}}});
  add_reading(sum, {.problem = "the driver does not answer"});
  REQUIRE(sum.gpus.size() == 1);
  CHECK(sum.gpus[0].temperature_celsius == 80);
  CHECK(sum.gpus[0].clock_mhz == 1980);
  CHECK(sum.gpus[0].throttle_reasons.size() == 2);
}

}  // namespace
}  // namespace tutti::cli
