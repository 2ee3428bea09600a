#include "worker/inventory/gpu_watch.h"

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace tutti::worker {

// Shared with its thread, which may outlive the watch.
struct GpuWatch::Thread {
  Seen seen;
  Read read;
  Duration every;
  std::mutex guard;
  std::condition_variable news;
  bool over = false;

  void serve() {
    std::unique_lock lock(guard);
    while (!over) {
      lock.unlock();
      const GpuInventory inventory = read();
      lock.lock();
      if (over) return;
      seen(inventory);
      news.wait_for(lock, every, [this] { return over; });
    }
  }
};

GpuWatch::GpuWatch() = default;

GpuWatch::~GpuWatch() {
  if (!thread_) return;
  const std::lock_guard lock(thread_->guard);
  thread_->over = true;
  thread_->news.notify_one();
}

void GpuWatch::start(Seen seen, Read read, Duration every) {
  thread_ = std::make_shared<Thread>();
  thread_->seen = std::move(seen);
  thread_->read = std::move(read);
  thread_->every = every;
  // Signals are the main thread's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([thread = thread_] { thread->serve(); }).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace tutti::worker
