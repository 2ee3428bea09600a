// Who waits for news of a job (or of the cluster), and who has some: what long polls are made of.
//
//   seen = notices.version(job); read what there is; if it is nothing: wait_beyond(job, seen, wake)
//
// A version taken before reading makes that no news is lost between reading and waiting. JobId{0}
// stands for the events of the whole cluster.
//
// Nothing is kept of a job but while somebody waits for it, however many jobs and tasks there have
// been: versions are counted in kCounters places that jobs share by their number. Who shares one
// with a busy job now and then reads once more for nothing.
//
// Threads: any. `wake` is called at most once, on the publisher's thread (or at once, on the
// caller's): it only posts.
#pragma once

#include <array>
#include <cstddef>
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
  static constexpr std::size_t kCounters = 4096;

  std::uint64_t version(JobId job) const;
  void publish(JobId job);
  Ticket wait_beyond(JobId job, std::uint64_t seen, std::function<void()> wake);
  void cancel(JobId job, Ticket ticket);

  // Jobs that somebody waits for.
  std::size_t awaited() const;

 private:
  using Waiting = std::map<Ticket, std::function<void()>>;

  // The cluster's own has a place that no job shares.
  static std::size_t place_of(JobId job) {
    return job.value == 0 ? 0 : 1 + job.value % (kCounters - 1);
  }

  mutable std::mutex guard_;
  std::array<std::uint64_t, kCounters> versions_{};
  std::unordered_map<JobId, Waiting> waiting_;
  Ticket last_ticket_ = 0;
};

}  // namespace tutti::coordinator
