#include "coordinator/store/notices.h"

#include <utility>

namespace tutti::coordinator {

std::uint64_t Notices::version(JobId job) const {
  const std::lock_guard lock(guard_);
  return versions_[place_of(job)];
}

void Notices::publish(JobId job) {
  std::unordered_map<JobId, Waiting>::node_type woken;
  {
    const std::lock_guard lock(guard_);
    ++versions_[place_of(job)];
    woken = waiting_.extract(job);
  }
  if (woken.empty()) return;
  for (const auto& [ticket, wake] : woken.mapped()) wake();
}

Notices::Ticket Notices::wait_beyond(JobId job, std::uint64_t seen, std::function<void()> wake) {
  {
    const std::lock_guard lock(guard_);
    if (versions_[place_of(job)] == seen) {
      waiting_[job].emplace(++last_ticket_, std::move(wake));
      return last_ticket_;
    }
  }
  wake();
  return 0;
}

void Notices::cancel(JobId job, Ticket ticket) {
  const std::lock_guard lock(guard_);
  const auto found = waiting_.find(job);
  if (found == waiting_.end()) return;
  found->second.erase(ticket);
  if (found->second.empty()) waiting_.erase(found);
}

std::size_t Notices::awaited() const {
  const std::lock_guard lock(guard_);
  return waiting_.size();
}

}  // namespace tutti::coordinator
