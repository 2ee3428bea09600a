// Tasks for one thread, done in the order given.
//
// Threads: push from any; run on the thread that does them. Limits: the state machine has a few
// tasks open at most.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace tutti::rank {

class TaskQueue {
 public:
  void push(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    arrived_.notify_one();
  }

  // Does tasks until stop().
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
      if (stopped_) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  // Tasks that did not begin are dropped.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    arrived_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
};

}  // namespace tutti::rank
