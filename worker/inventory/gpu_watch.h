// Reads the GPUs again and again, from a thread that may hang: a driver that is not well holds up
// whoever asks it.
//
// Threads: start() and the destructor on the owner's thread; `seen` is called on the watch's. A
// thread that hangs in the driver is left behind.
#pragma once

#include <functional>
#include <memory>

#include "protocol/base/clock.h"
#include "worker/inventory/gpus.h"

namespace tutti::worker {

class GpuWatch {
 public:
  // A reading takes some tens of milliseconds of one core, and temperatures move in seconds.
  static constexpr Duration kEvery = std::chrono::seconds(10);
  using Read = std::function<GpuInventory()>;
  using Seen = std::function<void(const GpuInventory& inventory)>;

  GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;
  ~GpuWatch();

  // At once, then every so often, until the destructor.
  void start(Seen seen, Read read, Duration every = kEvery);

 private:
  struct Thread;
  std::shared_ptr<Thread> thread_;
};

}  // namespace tutti::worker
