// The logs and step records of all jobs: an actor that stores what workers send and outlives them.
//
//   <jobs>/ID/records/   the stores of one job (log_store.h, step_store.h)
//
// Storing is slow (it ends with a sync), so it has a strand of its own; everything that has come in
// by the time a turn begins is synced together. Answers go back by callback, on this actor's
// strand.
//
// Threads: as said at each function. Limits: kOpenJobsMax jobs have files open at a time;
// kPendingMax chunks wait.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/store/log_store.h"
#include "coordinator/store/notices.h"
#include "coordinator/store/step_store.h"
#include "protocol/actor/actor_host.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::coordinator {

struct StoreOutcome {
  wire::SpoolAcked ack;
  StepsTaken steps;  // of the step stream
};

class JobStores {
 public:
  static constexpr std::size_t kOpenJobsMax = 128;
  static constexpr std::size_t kPendingMax = 4096;
  using Done = std::function<void(Result<StoreOutcome>)>;

  JobStores(actor::Runtime& runtime, std::filesystem::path jobs, Notices& notices);
  ~JobStores();

  // For asking and for posting; its strand is where the functions below run, unless they say
  // otherwise.
  actor::ActorHost& host() { return host_; }

  // Any thread. `done` is called once the data is on disk, or with the error. Errors: exhausted
  // when too much waits.
  Result<> store(wire::SpoolData data, Done done);

  // Any thread. Streams of the process will come (so the job's log is not at its end before them).
  void expect(JobId job, ProcessId process);

  // Any thread. The process has ended without a word: no stream of it will come.
  void expect_nothing(JobId job, ProcessId process);

  // Any thread. Removes the job's records.
  void forget(JobId first, std::uint32_t more = 0);

  // Errors: not_found if nothing was ever stored; invalid_argument for a position that was never
  // given out.
  Result<LogPage> read_log(JobId job, std::uint64_t after, std::optional<std::uint32_t> rank);
  Result<StepsRead> read_steps(JobId job, std::uint64_t after);

  // Any thread. How the jobs go whose steps came since this coordinator began, by job.
  std::map<JobId, StepFigures> figures() const;

  // Whether all streams of all processes that are known have ended.
  bool streams_ended(JobId job);

 private:
  struct Records {
    LogStore log;
    StepStore steps;
  };
  struct Pending {
    wire::SpoolData data;
    Done done;
  };
  struct Ended {
    bool log = false;
    bool steps = false;
  };
  enum class Missing { make, refuse };

  Result<Records*> open(JobId job, Missing missing);
  // Reads them again when they are next wanted.
  void close(JobId job);
  void trim();
  void remove(JobId job);
  void flush();
  Result<StoreOutcome> take(const wire::SpoolData& data);
  std::filesystem::path folder_of(JobId job) const;

  actor::ActorHost host_;
  const std::filesystem::path jobs_;
  Notices& notices_;

  std::mutex pending_guard_;
  std::vector<Pending> pending_;
  mutable std::mutex figures_guard_;
  std::map<JobId, StepFigures> figures_;

  // On the strand.
  std::map<JobId, std::unique_ptr<Records>> open_;
  std::list<JobId> used_;  // most recently used first

  std::mutex streams_guard_;
  std::map<JobId, std::map<ProcessId, Ended>> streams_;
};

}  // namespace tutti::coordinator
