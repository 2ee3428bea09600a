// What this machine has, as far as this process may use it.
//
// Cores are those of the affinity mask, lowered by a cgroup's CPU quota (v1 and v2); memory is the
// machine's, lowered by the limits of its cgroups. Nothing here fails: what cannot be read is left
// at its default.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tutti::worker {

struct Inventory {
  std::string host;
  std::string boot_id;
  std::string cpu;  // model name
  std::uint32_t cores = 1;
  std::uint64_t memory_bytes = 0;
  std::vector<std::string> profiles;  // numerics profiles (DESIGN §6) of ranks on the CPU
};

Inventory take_inventory();

// The cores of it alone.
std::uint32_t usable_cores();

// The numerics profiles of a CPU, by what it has and the path that its ranks are told to take
// ($TUTTI_CPU, kernels/ops/cpu_path.h; null: any). Of bf16, the one that is fastest there comes
// before the one that all CPUs have.
enum class Bf16Instructions { none, pairs, tiles };
std::vector<std::string> cpu_profiles(Bf16Instructions has, const char* path);

// The parts that read text, for tests.

// Whole cores that a quota allows, at least 1; 0: no limit. v2: "200000 100000" or "max 100000".
std::uint32_t cores_of_cpu_max(std::string_view cpu_max);
// Bytes; 0: no limit ("max", or v1's very large number).
std::uint64_t bytes_of_memory_max(std::string_view memory_max);
// The value of the first line of /proc/cpuinfo or /proc/meminfo with this key; empty: none.
std::string value_of(std::string_view text, std::string_view key);

}  // namespace tutti::worker
