#include "jobs/rank/open_group.h"

#include <utility>

namespace tutti::rank {

void OpenGroup::listen(std::unique_ptr<kernels::Listener> listener) {
  end();
  const std::lock_guard lock(mutex_);
  listener_.swap(listener);
  interrupted_.reset();
}

kernels::Communicator& OpenGroup::hold(std::unique_ptr<kernels::Communicator> group) {
  const std::lock_guard lock(mutex_);
  group_ = std::move(group);
  if (interrupted_) group_->abort(*interrupted_);
  return *group_;
}

void OpenGroup::end() {
  std::unique_ptr<kernels::Communicator> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(group_);
  }
}

void OpenGroup::interrupt(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!interrupted_) interrupted_ = reason;
  if (group_) group_->abort(reason);
  if (listener_) listener_->cancel();
}

std::uint64_t OpenGroup::operations() const {
  const std::lock_guard lock(mutex_);
  return group_ ? group_->operations() : 0;
}

}  // namespace tutti::rank
