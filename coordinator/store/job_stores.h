// The logs and step records of all jobs: an actor that stores what workers send and outlives them.
//
//   <jobs>/ID/records/   the stores of one job (log_store.h, step_store.h)
//   <jobs>/ID/records.replaced/   the same, of a job of that number in another journal
//   <jobs>/ID/...        what its ranks and programs left there, which is theirs: of a job that is
//                        forgotten only records and empty folders are removed
//
// Storing is slow (it ends with a sync), so it has a strand of its own; everything that has come in
// by the time a turn begins is synced together. Answers go back by callback, on this actor's
// strand.
//
// Threads: as said at each function. Limits: kOpenJobsMax jobs have files open at a time; of
// kKnownJobsMax, what their files hold is known without reading them, as long as the step records
// in memory are kKnownStepsMax in all beside those of the open ones; kPendingMax chunks wait.
#pragma once

#include <atomic>
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
  static constexpr std::size_t kKnownJobsMax = 4096;
  static constexpr std::size_t kKnownStepsMax = 200'000;
  static constexpr std::size_t kPendingMax = 4096;
  // Of an array that is forgotten, in one turn: what is to be stored does not wait for thousands.
  static constexpr std::uint32_t kForgottenPerTurn = 64;
  static constexpr Duration kLookMax = std::chrono::seconds(5);
  using Done = std::function<void(Result<StoreOutcome>)>;

  // Records are below `jobs`; `job_folders` has what ranks and programs write, and may be the same.
  JobStores(actor::Runtime& runtime, std::filesystem::path jobs, std::filesystem::path job_folders,
            Notices& notices);
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

  // Any thread. Removes the records of the job and of so many tasks after it, and its folders as
  // far as they are empty.
  void forget(JobId first, std::uint32_t more = 0);
  void forget_all(std::vector<JobId> jobs);
  // Jobs that have a folder here.
  std::vector<JobId> jobs_on_disk() const;
  // The greatest number of a job that has one, here or where ranks and programs write; where those
  // folders do not answer within kLookMax, here alone.
  JobId newest_left() const;

  // Before the runtime runs. Records of a job that the journal does not come to are kept beside, as
  // records.replaced, for a journal that knows the job.
  void set_aside(JobId job) const;
  void bring_back(JobId job) const;

  // Errors: not_found if nothing was ever stored; invalid_argument for a position that was never
  // given out.
  Result<LogPage> read_log(JobId job, std::uint64_t after, std::optional<std::uint32_t> rank);
  Result<StepsRead> read_steps(JobId job, std::uint64_t after);

  // Any thread. How the jobs go whose steps came since this coordinator began, by job.
  std::map<JobId, StepFigures> figures() const;

  // Whether all streams of all processes that are known have ended.
  bool streams_ended(JobId job);

  // Any thread. How many jobs have streams that have not ended.
  std::size_t jobs_with_streams() const;
  // Any thread. How often a job's files were read to know what is in them.
  std::uint64_t scans() const { return scans_; }

 private:
  struct Records {
    LogStore log;
    StepStore steps;
    std::list<JobId>::iterator place = {};  // in used_
    bool rests = false;                     // it has no file open
    bool named = false;                     // its folder is durable, and the one around it
  };
  struct Pending {
    wire::SpoolData data;
    Done done;
  };
  struct Ended {
    bool log = false;
    bool steps = false;
  };
  struct Taken {
    Result<StoreOutcome> outcome;
    bool log_ended = false;  // that of its process
    bool known = false;      // nothing of it is new
  };
  enum class Missing { make, refuse };

  Result<Records*> open(JobId job, Missing missing);
  // Reads them again when they are next wanted.
  void close(JobId job);
  void trim();
  void remove(JobId job);
  void remove_tasks(JobId array, std::uint32_t next, std::uint32_t count);
  void flush();
  void name_folders(std::map<JobId, Result<>>& synced);
  Taken take(const wire::SpoolData& data);
  void note_end(const wire::SpoolData& data, const Taken& taken);
  std::filesystem::path folder_of(JobId job) const;

  actor::ActorHost host_;
  const std::filesystem::path jobs_;
  const std::filesystem::path job_folders_;
  Notices& notices_;

  std::mutex pending_guard_;
  std::vector<Pending> pending_;
  mutable std::mutex figures_guard_;
  std::map<JobId, StepFigures> figures_;

  // On the strand.
  std::map<JobId, std::unique_ptr<Records>> open_;
  std::list<JobId> used_;          // most recently used first: those that rest are behind
  std::size_t resting_steps_ = 0;  // records of those
  std::atomic<std::uint64_t> scans_ = 0;

  // Of processes whose streams have not both ended.
  mutable std::mutex streams_guard_;
  std::map<JobId, std::map<ProcessId, Ended>> streams_;
};

}  // namespace tutti::coordinator
