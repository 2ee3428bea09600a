// The GPUs of this machine, as the driver tells of them; whether a rank can compute on them is for
// ops/gpu/check.
#include <fmt/core.h>

#include <algorithm>

#include "ops/cli/doctor/findings.h"

namespace tutti::cli {

namespace {

Finding judge_gpu(const worker::Gpu& gpu) {
  std::string found = gpu.name + ", " + print_bytes_short(gpu.memory_bytes) + " (" +
                      print_bytes_short(gpu.memory_free_bytes) + " free)";
  if (gpu.power_limit_watts > 0) found += fmt::format(", {} W at most", gpu.power_limit_watts);
  if (gpu.temperature_celsius > 0) found += fmt::format(", {} C", gpu.temperature_celsius);
  const auto links = std::count_if(gpu.nvlinks.begin(), gpu.nvlinks.end(),
                                   [](std::uint32_t count) { return count > 0; });
  if (links > 0) found += fmt::format(", NVLink to {} others", links);
  const std::string trouble = worker::trouble_of(gpu);
  if (trouble.empty()) return {Verdict::good, gpu.uuid, found, ""};
  // A card at its power cap does what it was bought for.
  const bool capped_only = gpu.throttle_reasons == std::vector<std::string>{"power cap"};
  return {capped_only ? Verdict::note : Verdict::problem, gpu.uuid, found + "; " + trouble,
          "a gang waits for its slowest GPU: see to cooling and power, nvidia-smi -q -d "
          "PERFORMANCE,TEMPERATURE"};
}

}  // namespace

std::vector<Finding> judge_gpus(const worker::GpuInventory& inventory) {
  if (inventory.gpus.empty()) {
    const bool without_driver = inventory.problem.find("no NVIDIA driver") == 0;
    if (without_driver) return {{Verdict::good, "gpus", "none", ""}};
    return {{Verdict::problem, "gpus", inventory.problem,
             "see nvidia-smi; until then this machine computes on its CPUs"}};
  }
  std::vector<Finding> out{{Verdict::good, "gpus",
                            fmt::format("{}, driver {}", inventory.gpus.size(), inventory.driver),
                            ""}};
  for (const worker::Gpu& gpu : inventory.gpus) out.push_back(judge_gpu(gpu));
  if (!inventory.problem.empty())
    out.push_back({Verdict::problem, "gpus", inventory.problem, "until then the others are used"});
  return out;
}

}  // namespace tutti::cli
