// What the job left behind: I3, I4, I11 to I15.
#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "ops/cli/faults/checks.h"

namespace tutti::cli {

namespace {

constexpr std::string_view kNoSteps = "only training has steps";

bool trains(const FaultHistory& history) {
  return history.spec && history.spec->kind == spec::JobKind::train;
}

std::map<std::uint64_t, const StepSeen*> by_number(const std::vector<StepSeen>& steps) {
  std::map<std::uint64_t, const StepSeen*> out;
  for (const StepSeen& step : steps) out.emplace(step.step, &step);
  return out;
}

std::string print_charges(const Charges& charges) {
  return fmt::format("{}/{}/{}", charges.user, charges.infrastructure, charges.own);
}

// A step record that does not say what the spec does; empty: it does.
std::string wrong_step(const StepSeen& step, std::uint64_t expected, std::uint64_t tokens) {
  if (step.step != expected) {
    return step.step < expected ? fmt::format("step {} is recorded twice", step.step)
                                : fmt::format("step {} is not recorded", expected);
  }
  if (step.tokens != tokens) {
    return fmt::format("step {} has {} tokens, not {}", step.step, step.tokens, tokens);
  }
  return "";
}

// What was told live must be the beginning of what is there at the end.
std::string taken_back(const LogSeen& told, const LogSeen& now) {
  for (const auto& [process, text] : told.text) {
    const auto at = now.text.find(process);
    const std::string_view kept = at == now.text.end() ? std::string_view{} : at->second;
    if (kept.starts_with(text)) continue;
    return fmt::format("output of process {} is not what readers were told", process);
  }
  return "";
}

}  // namespace

CheckFinding check_fencing(const FaultHistory& history) {
  if (!trains(history)) return not_checked(std::string(kNoSteps));
  const StepSeen* before = nullptr;
  std::uint64_t generations = 0;
  for (const StepSeen& step : history.steps) {
    if (before != nullptr && step.generation < before->generation) {
      return violated(fmt::format("step {} is of generation {}, and step {} of generation {}",
                                  before->step, before->generation, step.step, step.generation));
    }
    if (step.generation > history.job.generation) {
      return violated(fmt::format("step {} is of generation {}, and the job is in {}", step.step,
                                  step.generation, history.job.generation));
    }
    generations += before == nullptr || before->generation != step.generation ? 1 : 0;
    before = &step;
  }
  return held(fmt::format("{} steps of {} generation{}", history.steps.size(), generations,
                          generations == 1 ? "" : "s"));
}

CheckFinding check_gang(const FaultHistory& history) {
  if (!trains(history)) return not_checked(std::string(kNoSteps));
  const spec::ResourceSpec& resources = history.spec->resources;
  for (const StepSeen& step : history.steps) {
    if (step.ranks >= resources.ranks_min && step.ranks <= resources.ranks_max) continue;
    return violated(fmt::format("step {} was made by {} ranks; the job has {} to {}", step.step,
                                step.ranks, resources.ranks_min, resources.ranks_max));
  }
  return held(resources.ranks_min == resources.ranks_max
                  ? fmt::format("{} ranks", resources.ranks_min)
                  : fmt::format("{} to {} ranks", resources.ranks_min, resources.ranks_max));
}

CheckFinding check_ledger(const FaultHistory& history) {
  const LedgerSeen& ledger = history.ledger;
  if (ledger.damaged) return violated(ledger.problem);
  if (!ledger.problem.empty()) return not_checked(ledger.problem);
  const JobSeen& job = history.job;
  const std::uint64_t told = history.events.empty() ? 0 : history.events.back().seq;
  if (ledger.last_event < told) {
    return violated(fmt::format("event {} was told and the ledger ends with event {}", told,
                                ledger.last_event));
  }
  if (job.exit_code < 0) {  // it goes on, and the copy is younger
    if (ledger.generation >= job.generation) return held("the job goes on");
    return violated(fmt::format("replayed it is in generation {}; readers saw generation {}",
                                ledger.generation, job.generation));
  }
  if (ledger.state != job.state || ledger.generation != job.generation ||
      ledger.charges != job.charges || ledger.checkpoints != job.checkpoints) {
    return violated(fmt::format(
        "replayed it is {} in generation {}, charged {}, with {} checkpoints; readers see {} in "
        "generation {}, charged {}, with {}",
        ledger.state, ledger.generation, print_charges(ledger.charges), ledger.checkpoints.size(),
        job.state, job.generation, print_charges(job.charges), job.checkpoints.size()));
  }
  return held(fmt::format("{} in generation {}", ledger.state, ledger.generation));
}

CheckFinding check_samples(const FaultHistory& history) {
  if (!trains(history)) return not_checked(std::string(kNoSteps));
  if (history.steps.empty()) {
    return history.job.step == 0 ? not_checked("it made no step") : violated("no step is recorded");
  }
  const spec::JobSpec& spec = *history.spec;
  const std::uint64_t tokens = std::uint64_t{spec.train.batch} * spec.data.sequence;
  // A job that went on from a checkpoint begins behind it.
  std::uint64_t expected = spec.train.resume.empty() ? 1 : history.steps.front().step;
  for (const StepSeen& step : history.steps) {
    if (const std::string wrong = wrong_step(step, expected, tokens); !wrong.empty()) {
      return violated(wrong);
    }
    ++expected;
  }
  const std::uint64_t last = spec.train.stop == 0 ? spec.train.steps : spec.train.stop;
  if (history.job.state == "done" && history.steps.back().step != last) {
    return violated(fmt::format("it is done, and step {} of {} is the last that is recorded",
                                history.steps.back().step, last));
  }
  return held(fmt::format("{} steps, {} samples, {} tokens", history.steps.size(),
                          history.steps.size() * spec.train.batch, history.steps.size() * tokens));
}

CheckFinding check_bits(const FaultHistory& history) {
  if (!trains(history)) return not_checked(std::string(kNoSteps));
  const ReferenceSeen& reference = history.reference;
  if (!reference.why_not.empty()) return not_checked(reference.why_not);
  if (!reference.problem.empty()) return violated("could not be compared: " + reference.problem);
  if (reference.state != "done") {
    return violated(fmt::format("could not be compared: job {}, of the same spec, is {}",
                                reference.job, reference.state));
  }
  const auto steps = by_number(history.steps);
  for (std::uint64_t number = reference.first; number <= reference.last; ++number) {
    const auto step = steps.find(number);
    const auto other = reference.weights.find(number);
    if (step == steps.end() || other == reference.weights.end()) {
      return violated(fmt::format("step {} is missing in job {}", number,
                                  step == steps.end() ? history.job.id : reference.job));
    }
    if (step->second->weights.empty() || step->second->weights != other->second) {
      return violated(
          fmt::format("step {} is the first that differs from job {}", number, reference.job));
    }
  }
  return held(fmt::format("steps {} to {} equal those of job {}", reference.first, reference.last,
                          reference.job));
}

CheckFinding check_checkpoints(const FaultHistory& history) {
  if (!trains(history)) return not_checked("only training has checkpoints");
  if (!history.checkpoints_unseen.empty()) return not_checked(history.checkpoints_unseen);
  if (history.checkpoints.empty()) return not_checked("there are none");
  std::string numbers;
  for (const CheckpointSeen& checkpoint : history.checkpoints) {
    if (!checkpoint.problem.empty()) {
      return violated(fmt::format("step-{}: {}", checkpoint.step, checkpoint.problem));
    }
    numbers += fmt::format("{}{}", numbers.empty() ? "steps " : ", ", checkpoint.step);
  }
  return held(numbers);
}

CheckFinding check_events(const FaultHistory& history) {
  if (history.events.empty()) return violated("there are none");
  std::uint64_t gaps = 0;
  for (std::size_t i = 1; i < history.events.size(); ++i) {
    const EventSeen& event = history.events[i];
    const std::uint64_t before = history.events[i - 1].seq;
    if (event.seq == before + 1) continue;
    if (event.seq <= before || event.kind != "gap") {
      return violated(fmt::format("event {} follows event {}", event.seq, before));
    }
    ++gaps;
  }
  const auto numbered = [](const EventSeen& event, std::uint64_t seq) { return event.seq < seq; };
  for (const EventSeen& told : history.events_live) {
    const auto at =
        std::lower_bound(history.events.begin(), history.events.end(), told.seq, numbered);
    if (at != history.events.end() && *at == told) continue;
    const bool dropped = gaps > 0 && at != history.events.end() && at->kind == "gap";
    if (!dropped) return violated(fmt::format("event {} is not what readers were told", told.seq));
  }
  return held(fmt::format("{} to {}{}", history.events.front().seq, history.events.back().seq,
                          gaps == 0 ? "" : fmt::format(", {} marked gaps", gaps)));
}

CheckFinding check_logs(const FaultHistory& history) {
  std::string wrong = taken_back(history.log_live, history.log);
  // Of a job that goes on, the second reading is the longer one.
  const bool same = history.job.exit_code >= 0
                        ? history.log_resumed.text == history.log.text
                        : taken_back(history.log, history.log_resumed).empty();
  if (wrong.empty() && !same) wrong = "output read in two parts is not what it is in one";
  if (!wrong.empty()) return violated(wrong);
  std::uint64_t bytes = 0;
  for (const auto& [process, text] : history.log.text) bytes += text.size();
  return held(fmt::format("{} bytes of {} processes{}", bytes, history.log.text.size(),
                          history.log.gap_bytes == 0
                              ? ""
                              : fmt::format(", a marked gap of {}", history.log.gap_bytes)));
}

CheckFinding check_told(const FaultHistory& history) {
  if (!trains(history)) return not_checked(std::string(kNoSteps));
  const auto steps = by_number(history.steps);
  for (const StepSeen& told : history.steps_live) {
    const auto at = steps.find(told.step);
    if (at == steps.end()) return violated(fmt::format("step {} is gone", told.step));
    if (*at->second != told) {
      return violated(fmt::format("step {} is not what readers were told", told.step));
    }
  }
  return held(fmt::format("{} of {} steps were read as they came", history.steps_live.size(),
                          history.steps.size()));
}

}  // namespace tutti::cli
