#include "ops/bench/training_links.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/collective/collectives.h"
#include "kernels/collective/communicator.h"
#include "ops/bench/samples.h"

namespace tutti::bench {
namespace {

using kernels::Communicator;
using kernels::Transfer;

constexpr std::uint32_t kRanks = 2;

[[noreturn]] void end(const Error& error) {
  fmt::print(stderr, "bench_training: {}\n", error.message);
  std::exit(2);
}

// Two ranks, each on a thread that stays: what starts a thread is not measured.
class Pair {
 public:
  explicit Pair(std::uint64_t ring_bytes) {
    std::unique_ptr<kernels::Listener> listeners[kRanks];
    kernels::FormOptions form;
    form.ring_bytes = ring_bytes;
    for (auto& listener : listeners) {
      auto opened = kernels::Listener::open({});
      if (!opened) end(opened.error());
      listener = *std::move(opened);
      form.addresses.push_back(listener->address());
    }
    const auto connect = [&](std::uint32_t rank) {
      kernels::FormOptions own = form;
      own.rank = rank;
      auto group = listeners[rank]->connect(own);
      if (!group) end(group.error());
      groups_[rank] = *std::move(group);
    };
    std::thread other(connect, 1U);
    connect(0);
    other.join();
  }

  // Both send `bytes` to the other and receive as many, `times` over.
  enum class By { exchange, all_to_all };
  void send(By by, std::size_t bytes, int times) {
    std::thread other([&] { send_of(by, 1, bytes, times); });
    send_of(by, 0, bytes, times);
    other.join();
  }

 private:
  void send_of(By by, std::uint32_t rank, std::size_t bytes, int times) {
    std::vector<std::byte>& out = out_[rank];
    std::vector<std::byte>& in = in_[rank];
    out.resize(std::max(out.size(), bytes));
    in.resize(std::max(in.size(), bytes));
    const Transfer transfers[] = {
        {Transfer::Direction::send, 1 - rank, std::span(out).first(bytes)},
        {Transfer::Direction::receive, 1 - rank, std::span(in).first(bytes)}};
    std::span<std::byte> blocks_out[kRanks];
    std::span<std::byte> blocks_in[kRanks];
    blocks_out[1 - rank] = std::span(out).first(bytes);
    blocks_in[1 - rank] = std::span(in).first(bytes);
    Communicator& group = *groups_[rank];
    for (int i = 0; i < times; ++i) {
      const auto done = by == By::exchange
                            ? group.exchange(transfers)
                            : kernels::all_to_all(group, {.out = blocks_out, .in = blocks_in});
      if (!done) end(done.error());
    }
  }

  std::unique_ptr<Communicator> groups_[kRanks];
  std::vector<std::byte> out_[kRanks];
  std::vector<std::byte> in_[kRanks];
};

struct Size {
  const char* name;
  Pair::By by;
  std::size_t bytes;
  int times;  // in one sample, so that the start of a thread does not show
};

}  // namespace

void measure_links(double seconds) {
  Pair rings(kernels::kRingBytes);
  Pair sockets(0);
  constexpr Size kSizes[] = {{"exchange of 1 KiB", Pair::By::exchange, 1 << 10, 4096},
                             {"exchange of 64 KiB", Pair::By::exchange, 64 << 10, 512},
                             {"exchange of 1 MiB", Pair::By::exchange, 1 << 20, 64},
                             {"exchange of 64 MiB", Pair::By::exchange, 64 << 20, 4},
                             {"all-to-all of 64 MiB", Pair::By::all_to_all, 64 << 20, 4}};
  for (const Size& size : kSizes) {
    const std::vector<std::function<void()>> both = {
        [&] { rings.send(size.by, size.bytes, size.times); },
        [&] { sockets.send(size.by, size.bytes, size.times); }};
    auto samples = measure(both, seconds);
    for (Samples& each : samples) {
      for (double& time : each.seconds) time /= size.times;
    }
    print_line({.bench = "training/links",
                .name = fmt::format("{}, 2 ranks, each way", size.name),
                .ours = &samples[0],
                .peer = "our Unix socket path",
                .theirs = &samples[1],
                .gbps = static_cast<double>(size.bytes) * 1e-9 / samples[0].median()});
  }
}

}  // namespace tutti::bench
