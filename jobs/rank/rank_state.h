// What a rank does next: a pure state machine between the worker's orders and its own computing
// thread.
//
//   waiting -> setting_up -> listening -> ready -> in_group -> finished
//                               ^                    |  ^          |
//                               +--- between <---- leaving         |
//                               +------------------ Regroup -------+
//
// Orders may come twice or late: those for another process or an older generation change nothing.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "jobs/rank/rank_messages.h"

namespace tutti::rank {

class RankState {
 public:
  enum class Phase { waiting, setting_up, listening, ready, in_group, leaving, between, finished };

  std::vector<Effect> on(const wire::ToRank& order);
  std::vector<Effect> on(const Event& event);

  Phase phase() const { return phase_; }
  // Ids of the process, for progress reports; zero before StartRank.
  JobId job() const { return job_; }
  Generation generation() const { return generation_; }
  ProcessId process() const { return process_; }

 private:
  using Effects = std::vector<Effect>;

  Effects take(const wire::StartRank& order);
  Effects take(const wire::Regroup& order);
  Effects take(const wire::FormGroup& order);
  Effects take(const wire::AbortGeneration& order);
  Effects take(const wire::StopRank& order);
  Effects take(const wire::CommitCheckpoint& order);
  Effects take(const wire::SetFlags& order);

  Effects take(const SetUpDone& event);
  Effects take(const Listening& event);
  Effects take(const Entered& event);
  Effects take(const StepCommitted& event);
  Effects take(const PartWritten& event);
  Effects take(const GroupLeft& event);
  Effects take(const Finished& event);
  Effects take(const CommitDone& event);

  Effects listen();
  template <class Report>
  Report stamped(Generation generation) const;

  Phase phase_ = Phase::waiting;
  JobId job_;
  ProcessId process_;
  Generation generation_;        // the newest that was ordered
  Generation group_generation_;  // of the group that the computing thread is or was in
  Generation aborted_;           // all generations up to this one are over
  std::uint32_t rank_ = 0;
  std::uint32_t size_ = 0;
  bool failed_ = false;    // it said why it cannot go on
  bool stopping_ = false;  // it leaves its group, and then ends
};

}  // namespace tutti::rank
