// What a training job looks like while one waits for it: a line that says where it is, and notices
// of what happened.
//
//   kjv  step 812/2000  loss 3.2140  7.4k tokens/s  2 ranks  ETA 1 m 12 s
//
// Pure: fed with the API's step records and jobs, asked for text.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace tutti::cli {

class Progress {
 public:
  void add_step(const boost::json::value& record);
  void set_job(const boost::json::value& job);

  std::string line() const;

  // Recoveries that began or ended and checkpoints made since the last call, one line each.
  std::vector<std::string> take_notices();

  double tokens_per_second() const;
  std::int64_t step() const { return step_; }

 private:
  struct Window {
    double tokens = 0;
    double seconds = 0;
  };

  std::string name_;
  std::string state_;
  std::string waiting_;  // for what, where the state is not running
  std::int64_t step_ = 0;
  std::int64_t steps_ = 0;
  std::int64_t ranks_ = 0;
  double loss_ = 0;
  bool has_loss_ = false;
  std::deque<Window> recent_;         // newest steps, for a rate that follows changes
  std::size_t recoveries_begun_ = 0;  // told of
  std::size_t recoveries_over_ = 0;
  std::vector<std::string> notices_;
};

// One recovery with its phases: `rank 1 lost (killed by signal 9): seen 3 ms, aborted 12 ms, ...`.
std::string print_recovery(const boost::json::value& recovery);

}  // namespace tutti::cli
