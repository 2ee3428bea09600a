// Who waits for news of a job (or of the cluster), and who has some: what long polls are made of.
//
//   seen = notices.version(job); read what there is; if it is nothing: wait_beyond(job, seen, wake)
//
// A version taken before reading makes that no news is lost between reading and waiting. JobId{0}
// stands for the events of the whole cluster.
//
// Threads: any. `wake` is called at most once, on the publisher's thread (or at once, on the
// caller's): it only posts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>

#include "protocol/base/ids.h"

namespace tutti::coordinator {

class Notices {
 public:
  using Ticket = std::uint64_t;  // 0: already woken

  std::uint64_t version(JobId job) const;
  void publish(JobId job);
  Ticket wait_beyond(JobId job, std::uint64_t seen, std::function<void()> wake);
  void cancel(JobId job, Ticket ticket);
  void forget(JobId job);  // wakes those who wait

 private:
  struct Topic {
    std::uint64_t version = 0;
    std::map<Ticket, std::function<void()>> waiting;
  };

  mutable std::mutex guard_;
  std::unordered_map<JobId, Topic> topics_;
  Ticket last_ticket_ = 0;
};

}  // namespace tutti::coordinator
