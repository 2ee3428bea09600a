// What ops stand on: the pool's loops, the arena, the choice of a path.
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <string>

#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

TEST_CASE("thread pool: every index is visited once, whatever the grain") {
  ThreadPool pool(3);
  for (const Index count : {0, 1, 2, 3, 100, 1001}) {
    for (const Index grain : {1, 7, 2000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      pool.parallel_for(count, grain, [&](int thread, Index begin, Index end) {
        if (thread < 0 || thread >= 3) std::abort();
        for (Index i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (const auto& visit : visits) REQUIRE(visit.load() == 1);
    }
  }
}

TEST_CASE("thread pool: thousands of short loops, with threads falling asleep between some") {
  ThreadPool pool(3);
  std::atomic<Index> sum{0};
  for (int loop = 0; loop < 20000; ++loop) {
    pool.parallel_for(5, 1, [&](int, Index begin, Index) { sum += begin; });
  }
  REQUIRE(sum.load() == 20000 * 10);
}

TEST_CASE("thread pool: worker threads keep denormal numbers and round to nearest") {
  ThreadPool pool(3);
  std::atomic<bool> right{true};
  pool.parallel_for(1000, 1, [&](int, Index, Index) {
    if ((_mm_getcsr() & 0xffc0U) != 0x1f80U) right = false;
  });
  REQUIRE(right.load());
}

TEST_CASE("arena: what was handed out stays, and after the first round nothing is allocated") {
  Arena arena;
  std::byte* first = nullptr;
  for (int round = 0; round < 3; ++round) {
    {
      const ArenaScope scope(arena);
      std::byte* const small = arena.take(100);
      small[99] = std::byte{42};
      std::byte* const large = arena.take(3 << 20);
      large[0] = std::byte{1};
      REQUIRE(small[99] == std::byte{42});
      REQUIRE(reinterpret_cast<std::uintptr_t>(large) % 64 == 0);
      if (round == 1) first = small;
      if (round == 2) REQUIRE(small == first);
    }
    REQUIRE(arena.used() == 0);
    REQUIRE(arena.reserved() >= arena.used_max());
  }
}

TEST_CASE("cpu path: a path that the machine lacks is an error, never a silent swap") {
  const CpuPath before = cpu_path();
  for (const CpuPath path : kCpuPaths) {
    const auto chosen = choose_cpu_path(path);
    REQUIRE(chosen.ok() == cpu_has(path));
    if (!chosen) REQUIRE(chosen.error().code == ErrorCode::unsupported);
    if (chosen) REQUIRE(cpu_path() == path);
  }
  REQUIRE(choose_cpu_path(before));
}

// This binary again, as a process of its own: the choice is made once.
TEST_CASE("cpu path: a TUTTI_CPU that is none ends the process with one line that lists them") {
  std::array<char, 4096> self = {};
  REQUIRE(::readlink("/proc/self/exe", self.data(), self.size() - 1) > 0);
  const auto run = [&](const std::string& value) {
    const std::string command = "TUTTI_CPU='" + value + "' '" + self.data() +
                                "' 'cpu path: a path that the machine lacks*' 2>&1";
    FILE* const pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string said;
    for (int c = 0; (c = std::fgetc(pipe)) != EOF;) said += static_cast<char>(c);
    return std::pair(::pclose(pipe), said);
  };
  for (const CpuPath path : kCpuPaths) {
    if (cpu_has(path)) CHECK(run(std::string(to_string(path))).first == 0);
  }
  CHECK(run("").first == 0);
  for (const char* const wrong : {"AVX2", "avx", "avx512 ", "fastest"}) {
    const auto [status, said] = run(wrong);
    INFO(said);
    CHECK(status != 0);
    const std::string line = "TUTTI_CPU=" + std::string(wrong) + ": this machine has no such path";
    const auto at = said.find(line);
    REQUIRE(at != std::string::npos);
    CHECK(said.find(line, at + 1) == std::string::npos);
    for (const CpuPath path : kCpuPaths) {
      CHECK(said.find(to_string(path), at + line.size()) != std::string::npos);
    }
  }
}

}  // namespace tutti::kernels::parity
