#include "ops/cli/text/progress.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <utility>

#include "ops/cli/client/fields.h"
#include "ops/cli/text/table.h"
#include "protocol/base/counted.h"

namespace tutti::cli {

namespace {

constexpr std::size_t kRecentSteps = 20;

struct Phase {
  std::string_view field;
  std::string_view name;
};

constexpr Phase kPhases[] = {{"seen_ms", "seen"},       {"decided_ms", "decided"},
                             {"aborted_ms", "aborted"}, {"regrouped_ms", "regrouped"},
                             {"copied_ms", "copied"},   {"first_step_ms", "first step"}};

// A phase that has not come yet is null or negative.
bool reached(const boost::json::value& recovery, std::string_view phase) {
  return number_of(recovery, phase, -1) >= 0;
}

bool is_over(const boost::json::value& recovery) {
  return flag_of(recovery, "over") || reached(recovery, "first_step_ms");
}

}  // namespace

std::string print_recovery(const boost::json::value& recovery) {
  // Of a program or server, whose recovery ends without a step.
  const bool stepless = is_over(recovery) && !reached(recovery, "first_step_ms");
  std::string phases;
  for (const Phase& phase : kPhases) {
    if (!reached(recovery, phase.field)) continue;
    const bool runs = stepless && phase.field == "copied_ms";
    phases += fmt::format("{}{} {}", phases.empty() ? "" : ", ", runs ? "running" : phase.name,
                          print_duration(number_of(recovery, phase.field) / 1000));
  }
  if (stepless) {
    return fmt::format("generation {}: {}; {}", whole_of(recovery, "generation"),
                       text_of(recovery, "cause"), phases);
  }
  return fmt::format("generation {}: {}; {}; from step {}, {} lost",
                     whole_of(recovery, "generation"), text_of(recovery, "cause"), phases,
                     whole_of(recovery, "from_step"),
                     counted(static_cast<std::uint64_t>(whole_of(recovery, "lost_steps")), "step"));
}

void Progress::add_step(const boost::json::value& record) {
  step_ = whole_of(record, "step", step_);
  ranks_ = whole_of(record, "ranks", ranks_);
  if (has(record, "loss")) {
    loss_ = number_of(record, "loss");
    has_loss_ = true;
  }
  recent_.push_back({number_of(record, "tokens"), number_of(record, "seconds")});
  if (recent_.size() > kRecentSteps) recent_.pop_front();
}

void Progress::set_job(const boost::json::value& job) {
  name_ = text_of(job, "name");
  state_ = text_of(job, "state");
  waiting_ = text_of(job, "waiting");
  steps_ = whole_of(job, "steps", steps_);
  if (ranks_ == 0) ranks_ = whole_of(job, "ranks");
  // A recovery is known by its place in the list: its generation may still change while it goes on.
  const boost::json::array& recoveries = list_of(job, "recoveries");
  for (; recoveries_begun_ < recoveries.size(); ++recoveries_begun_) {
    const boost::json::value& recovery = recoveries[recoveries_begun_];
    if (is_over(recovery)) continue;
    notices_.push_back("recovering: " + text_of(recovery, "cause"));
  }
  for (; recoveries_over_ < recoveries.size(); ++recoveries_over_) {
    const boost::json::value& recovery = recoveries[recoveries_over_];
    const bool last = recoveries_over_ + 1 == recoveries.size();
    if (last && !is_over(recovery)) break;
    notices_.push_back("recovered: " + print_recovery(recovery));
  }
}

std::vector<std::string> Progress::take_notices() { return std::exchange(notices_, {}); }

double Progress::tokens_per_second() const {
  Window sum;
  for (const Window& one : recent_) {
    sum.tokens += one.tokens;
    sum.seconds += one.seconds;
  }
  return sum.seconds > 0 ? sum.tokens / sum.seconds : 0;
}

std::string Progress::line() const {
  std::string line = name_;
  const std::string state = state_ + (waiting_.empty() ? "" : " (" + waiting_ + ")");
  if (step_ == 0) return fmt::format("{}  {}", line, state);
  line += steps_ > 0 ? fmt::format("  step {:>{}}/{}", step_, std::to_string(steps_).size(), steps_)
                     : fmt::format("  step {}", step_);
  if (has_loss_) line += fmt::format("  loss {:.4f}", loss_);
  const double rate = tokens_per_second();
  if (rate > 0) line += fmt::format("  {} tokens/s", print_count(rate));
  line += fmt::format("  {} rank{}", ranks_, ranks_ == 1 ? "" : "s");
  if (state_ != "running" && !state_.empty()) return line + "  " + state;
  double seconds = 0;
  for (const Window& one : recent_) seconds += one.seconds;
  if (steps_ > step_ && seconds > 0) {
    const double each = seconds / static_cast<double>(recent_.size());
    line += "  ETA " + print_duration(each * static_cast<double>(steps_ - step_));
  }
  return line;
}

}  // namespace tutti::cli
