#include <catch2/catch.hpp>

#include "worker/inventory/inventory.h"

using namespace tutti::worker;

TEST_CASE("inventory: this machine has a name, cores and memory") {
  const Inventory inventory = take_inventory();
  CHECK_FALSE(inventory.host.empty());
  CHECK(inventory.cores >= 1);
  CHECK(inventory.memory_bytes > 0);
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
