#include "coordinator/store/notices.h"

#include <utility>

namespace tutti::coordinator {

std::uint64_t Notices::version(JobId job) const {
  const std::lock_guard lock(guard_);
  const auto found = topics_.find(job);
  return found == topics_.end() ? 0 : found->second.version;
}

void Notices::publish(JobId job) {
  std::map<Ticket, std::function<void()>> woken;
  {
    const std::lock_guard lock(guard_);
    Topic& topic = topics_[job];
    ++topic.version;
    woken.swap(topic.waiting);
  }
  for (const auto& [ticket, wake] : woken) wake();
}

Notices::Ticket Notices::wait_beyond(JobId job, std::uint64_t seen, std::function<void()> wake) {
  {
    const std::lock_guard lock(guard_);
    Topic& topic = topics_[job];
    if (topic.version == seen) {
      topic.waiting.emplace(++last_ticket_, std::move(wake));
      return last_ticket_;
    }
  }
  wake();
  return 0;
}

void Notices::cancel(JobId job, Ticket ticket) {
  const std::lock_guard lock(guard_);
  if (const auto found = topics_.find(job); found != topics_.end())
    found->second.waiting.erase(ticket);
}

void Notices::forget(JobId job) {
  std::unordered_map<JobId, Topic>::node_type gone;
  {
    const std::lock_guard lock(guard_);
    gone = topics_.extract(job);
  }
  if (gone.empty()) return;
  for (const auto& [ticket, wake] : gone.mapped().waiting) wake();
}

}  // namespace tutti::coordinator
