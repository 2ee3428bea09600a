#include <catch2/catch.hpp>

#include "worker/inventory/inventory.h"

using namespace tutti::worker;

TEST_CASE("inventory: this machine has a name, cores and memory") {
  const Inventory inventory = take_inventory();
  CHECK_FALSE(inventory.host.empty());
  CHECK(inventory.cores >= 1);
  CHECK(inventory.memory_bytes > 0);
}

TEST_CASE("inventory: a CPU tells the profiles of the path that its ranks take, fastest first") {
  using Profiles = std::vector<std::string>;
  const Profiles tiles{"portable", "amx-bf16", "portable-bf16", "portable-fp16"};
  CHECK(cpu_profiles(Bf16Instructions::tiles, nullptr) == tiles);
  CHECK(cpu_profiles(Bf16Instructions::tiles, "") == tiles);
  CHECK(cpu_profiles(Bf16Instructions::tiles, "avx512bf16") == tiles);
  CHECK(cpu_profiles(Bf16Instructions::pairs, nullptr) ==
        Profiles{"portable", "avx512bf16-bf16", "portable-bf16", "portable-fp16"});
  const Profiles plain{"portable", "portable-bf16", "portable-fp16"};
  CHECK(cpu_profiles(Bf16Instructions::none, nullptr) == plain);
  CHECK(cpu_profiles(Bf16Instructions::tiles, "avx512") == plain);
  CHECK(take_inventory().profiles.front() == "portable");
}

TEST_CASE("inventory: limits of cgroups are read") {
  CHECK(cores_of_cpu_max("200000 100000\n") == 2);
  CHECK(cores_of_cpu_max("50000 100000\n") == 1);
  CHECK(cores_of_cpu_max("max 100000\n") == 0);
  CHECK(cores_of_cpu_max("") == 0);
  CHECK(bytes_of_memory_max("1073741824\n") == 1073741824);
  CHECK(bytes_of_memory_max("max\n") == 0);
  CHECK(bytes_of_memory_max("9223372036854771712\n") == 0);
  CHECK(value_of("processor\t: 0\nmodel name\t: AMD EPYC\n", "model name") == "AMD EPYC");
  CHECK(value_of("a: b\n", "c").empty());
}
