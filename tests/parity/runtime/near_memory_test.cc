// Where memory lies: near the thread that made it, in huge pages where they are asked for.
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "kernels/tensor/huge_pages.h"
#include "kernels/tensor/near_memory.h"
#include "tests/parity/harness.h"
#include "tests/support/skip.h"

namespace tutti::kernels::parity {
namespace {

std::string text_of(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Of the mapping that holds `address`, as the kernel writes them: "rd wr mr ...".
std::string flags_of(const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  std::istringstream maps(text_of("/proc/self/smaps"));
  std::string line;
  bool inside = false;
  while (std::getline(maps, line)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) inside = begin <= at && at < end;
    if (inside && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

int first_core() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int core = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(core), &allowed)) ++core;
  return core;
}

// Of the page at that address; negative: the system does not say, as in some containers.
int node_of(const void* address) {
  int node = -1;
  const long failed =
      ::syscall(SYS_get_mempolicy, &node, nullptr, 0, address, MPOL_F_NODE | MPOL_F_ADDR);
  return failed == 0 ? node : -1;
}

// Whether this process may choose where its memory lies; asked of a thread that ends.
bool may_choose_memory() {
  bool may = false;
  std::thread([&] { may = ::syscall(SYS_set_mempolicy, MPOL_LOCAL, nullptr, 0) == 0; }).join();
  return may;
}

}  // namespace

TEST_CASE("near memory: a bound caller is on its core, and its buffers are of that core's node") {
  const int core = first_core();
  const bool may_choose = may_choose_memory();
  if (!may_choose) test::skip_part("this process may not choose a policy of memory");
  // In a thread of its own: a bound thread stays so.
  std::thread([&] {
    // As a process that numactl started would find it.
    const unsigned long nodes = 1;
    if (may_choose) ::syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &nodes, 8 * sizeof nodes);
    ThreadPool pool(1, {core});
    bind_caller(pool);
    unsigned cpu = 0;
    unsigned node = 0;
    REQUIRE(::getcpu(&cpu, &node) == 0);
    CHECK(static_cast<int>(cpu) == core);
    if (may_choose) {
      int mode = -1;
      REQUIRE(::syscall(SYS_get_mempolicy, &mode, nullptr, 0, nullptr, 0) == 0);
      CHECK(mode == MPOL_LOCAL);
    }
    const FloatBuffer buffer(Index{1} << 20);
    for (Index i = 0; i < buffer.size(); i += Index{1} << 14) {
      const int of_page = node_of(buffer.data() + i);
      if (of_page >= 0) CHECK(of_page == static_cast<int>(node));
    }
  }).join();
}

TEST_CASE("near memory: a pool without cores leaves its caller where it was") {
  cpu_set_t before;
  cpu_set_t after;
  CPU_ZERO(&before);
  CPU_ZERO(&after);
  std::thread([&] {
    REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
    ThreadPool pool(2, {});
    bind_caller(pool);
    REQUIRE(::sched_getaffinity(0, sizeof after, &after) == 0);
  }).join();
  CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("near memory: large buffers ask for huge pages, and what asked is counted while held") {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const HugePages before = huge_pages();
  {
    const AlignedBytes large(kBytes);
    const AlignedBytes small(kBytes / 64);
    const HugePages held = huge_pages();
    CHECK(held.asked == before.asked + kBytes);
    const std::string kernel = text_of("/sys/kernel/mm/transparent_hugepage/enabled");
    if (kernel.empty() || kernel.find("[never]") != std::string::npos) {
      test::skip_part("this kernel has no transparent huge pages");
    } else {
      CHECK(flags_of(large.data()).find(" hg ") != std::string::npos);
      // How many it finds is the kernel's: memory may lie in pieces, but not all of 32 pages.
      CHECK(held.given > before.given);
    }
  }
  CHECK(huge_pages().asked == before.asked);
}

}  // namespace tutti::kernels::parity
