#include "ops/bench/training_links.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

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

  // Both send and receive `bytes`, `times` over.
  void exchange(std::size_t bytes, int times) {
    std::thread other([&] { exchange_of(1, bytes, times); });
    exchange_of(0, bytes, times);
    other.join();
  }

 private:
  void exchange_of(std::uint32_t rank, std::size_t bytes, int times) {
    std::vector<std::byte>& out = out_[rank];
    std::vector<std::byte>& in = in_[rank];
    out.resize(std::max(out.size(), bytes));
    in.resize(std::max(in.size(), bytes));
    const Transfer transfers[] = {
        {Transfer::Direction::send, 1 - rank, std::span(out).first(bytes)},
        {Transfer::Direction::receive, 1 - rank, std::span(in).first(bytes)}};
    for (int i = 0; i < times; ++i) {
      auto exchanged = groups_[rank]->exchange(transfers);
      if (!exchanged) end(exchanged.error());
    }
  }

  std::unique_ptr<Communicator> groups_[kRanks];
  std::vector<std::byte> out_[kRanks];
  std::vector<std::byte> in_[kRanks];
};

struct Size {
  const char* name;
  std::size_t bytes;
  int times;  // in one sample, so that the start of a thread does not show
};

}  // namespace

void measure_links(double seconds) {
  Pair rings(kernels::kRingBytes);
  Pair sockets(0);
  constexpr Size kSizes[] = {{"1 KiB", 1 << 10, 4096},
                             {"64 KiB", 64 << 10, 512},
                             {"1 MiB", 1 << 20, 64},
                             {"64 MiB", 64 << 20, 4}};
  for (const Size& size : kSizes) {
    const std::vector<std::function<void()>> both = {
        [&] { rings.exchange(size.bytes, size.times); },
        [&] { sockets.exchange(size.bytes, size.times); }};
    auto samples = measure(both, seconds);
    for (Samples& each : samples) {
      for (double& time : each.seconds) time /= size.times;
    }
    const double rate = static_cast<double>(size.bytes) / samples[0].at(0.5) / 1e9;
    print_line({.bench = "training",
                .name = fmt::format("exchange of {}, 2 ranks, {:.2f} GB/s a rank each way",
                                    size.name, rate),
                .ours = &samples[0],
                .peer = "our Unix socket path",
                .theirs = &samples[1]});
  }
}

}  // namespace tutti::bench
