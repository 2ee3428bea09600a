#include "ops/cli/faults/report.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <algorithm>

#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr std::string_view name_of(CheckVerdict verdict) {
  switch (verdict) {
    case CheckVerdict::held: return "held";
    case CheckVerdict::violated: return "VIOLATED";
    case CheckVerdict::not_checked: return "-";
  }
  return "";
}

constexpr std::string_view name_of(InjectionOutcome outcome) {
  switch (outcome) {
    case InjectionOutcome::waiting: return "not reached";
    case InjectionOutcome::injected: return "injected";
    case InjectionOutcome::missed: return "missed";
  }
  return "";
}

std::string print_ms(std::int64_t ms) {
  return ms < 0 ? "-" : print_duration(static_cast<double>(ms) / 1000);
}

const RecoverySeen* recovery_of(const FaultReport& report, std::optional<std::size_t> at) {
  return at ? &report.history.job.recoveries[*at] : nullptr;
}

struct Counts {
  std::size_t held = 0;
  std::size_t violated = 0;
  std::size_t not_checked = 0;
};

Counts count(const std::vector<Judged>& judged) {
  Counts out;
  for (const Judged& one : judged) {
    ++(one.finding.verdict == CheckVerdict::held       ? out.held
       : one.finding.verdict == CheckVerdict::violated ? out.violated
                                                       : out.not_checked);
  }
  return out;
}

std::uint64_t lost_steps(const FaultHistory& history) {
  std::uint64_t lost = 0;
  for (const RecoverySeen& recovery : history.job.recoveries) lost += recovery.lost_steps;
  return lost;
}

// Of a job that keeps no state in its ranks (a program, a server): that it was started again.
std::string print_restart(const FaultHistory& history, const InjectedFault& fault) {
  for (const EventSeen& event : history.events) {
    if (event.job != history.job.id || event.kind != "restarted") continue;
    const RecoverySeen restart{.cause = event.message, .seen_unix_ms = event.unix_ms};
    if (explains(fault, restart, history.end_unix_ms)) return "started again: " + event.message;
  }
  return "none needed";
}

std::string faults_table(const FaultReport& report, Paint paint) {
  Table table({{"#", Align::right},
               {"DUE", Align::right},
               {"FAULT"},
               {"WHOM"},
               {"STEP", Align::right},
               {"SEEN AFTER", Align::right},
               {"THEN A STEP AFTER", Align::right},
               {"LOST", Align::right},
               {"RECOVERY"}});
  const auto recoveries = recoveries_of_faults(report.history);
  for (std::size_t i = 0; i < report.history.faults.size(); ++i) {
    const InjectedFault& fault = report.history.faults[i];
    const RecoverySeen* recovery = recovery_of(report, recoveries[i]);
    const bool injected = fault.outcome == InjectionOutcome::injected;
    std::string told = injected ? print_restart(report.history, fault) : fault.why;
    std::string seen = injected ? "-" : std::string(name_of(fault.outcome));
    if (fault.away_ms >= 0) told = fmt::format("answered again after {}", print_ms(fault.away_ms));
    if (recovery != nullptr) {
      told = fmt::format("generation {}: {}", recovery->generation, recovery->cause);
      seen = print_ms(std::max<std::int64_t>(0, recovery->seen_unix_ms - fault.unix_ms));
    }
    table.add({std::to_string(fault.plan.number), print_moment(fault.plan),
               std::string(row_of(fault.plan.kind).name), fault.whom,
               injected ? std::to_string(fault.step) : "-", seen,
               recovery == nullptr ? "-" : print_ms(recovery->first_step_ms),
               recovery == nullptr ? "-" : std::to_string(recovery->lost_steps), told});
  }
  return table.print(paint);
}

// What must hold is said of what does not; `tutti help fault run` says it of all.
std::string checks_table(const FaultReport& report, Paint paint) {
  Table table({{""}, {"CHECK"}, {"VERDICT"}, {"SEEN"}});
  for (const Judged& one : report.judged) {
    const bool broken = one.finding.verdict == CheckVerdict::violated;
    table.add({std::string(one.check->invariant), std::string(one.check->name),
               std::string(name_of(one.finding.verdict)),
               broken ? fmt::format("{}; but: {}", one.finding.detail, one.check->holds)
                      : one.finding.detail});
  }
  return table.print(paint);
}

json::value number_or_null(std::int64_t ms) { return ms < 0 ? json::value() : json::value(ms); }

json::object fault_json(const FaultReport& report, const InjectedFault& fault,
                        std::optional<std::size_t> at) {
  const RecoverySeen* recovery = recovery_of(report, at);
  json::object out{{"number", fault.plan.number},
                   {"fault", row_of(fault.plan.kind).name},
                   {"due", print_moment(fault.plan)},
                   {"whom", fault.whom},
                   {"outcome", name_of(fault.outcome)},
                   {"why", fault.why},
                   {"unix_ms", fault.unix_ms},
                   {"step", fault.step},
                   {"away_ms", number_or_null(fault.away_ms)},
                   {"recovery", nullptr}};
  if (recovery != nullptr) {
    out["recovery"] = json::object{{"generation", recovery->generation},
                                   {"cause", recovery->cause},
                                   {"seen_ms", recovery->seen_unix_ms - fault.unix_ms},
                                   {"first_step_ms", number_or_null(recovery->first_step_ms)},
                                   {"lost_steps", recovery->lost_steps}};
  }
  return out;
}

}  // namespace

std::string print_injection(const InjectedFault& fault) {
  const FaultKindRow& row = row_of(fault.plan.kind);
  std::string text = row.target == FaultTarget::coordinator
                         ? std::string(row.done)
                         : fmt::format("{} {}", row.done, fault.whom);
  if (row.lasts == FaultLasts::yes && fault.plan.lasts_ms != 0) {
    text += " for " + spec::print_duration(fault.plan.lasts_ms);
  }
  return fault.step == 0 ? text : fmt::format("{} at step {}", text, fault.step);
}

std::string report_text(const FaultReport& report, Paint paint) {
  const FaultHistory& history = report.history;
  const Counts counts = count(report.judged);
  std::string text =
      fmt::format("\n{}: job {}, seed {}\n\n{}\n{}\n", history.file.name, history.job.id,
                  history.seed, faults_table(report, paint), checks_table(report, paint));
  text += counts.violated == 0 ? fmt::format("held: {} checks", counts.held)
                               : fmt::format("VIOLATED: {} of {} checks", counts.violated,
                                             counts.violated + counts.held);
  if (counts.not_checked > 0) text += fmt::format(", {} not checked", counts.not_checked);
  const std::uint64_t lost = lost_steps(history);
  return text +
         fmt::format("; {} step{} lost\nagain: {}\n", lost, lost == 1 ? "" : "s", report.replay);
}

json::object report_json(const FaultReport& report) {
  const FaultHistory& history = report.history;
  json::array faults;
  const auto recoveries = recoveries_of_faults(history);
  for (std::size_t i = 0; i < history.faults.size(); ++i) {
    faults.push_back(fault_json(report, history.faults[i], recoveries[i]));
  }
  json::array checks;
  for (const Judged& one : report.judged) {
    json::value verdict;
    if (one.finding.verdict != CheckVerdict::not_checked) {
      verdict = one.finding.verdict == CheckVerdict::held;
    }
    checks.push_back(json::object{{"invariant", one.check->invariant},
                                  {"check", one.check->name},
                                  {"held", verdict},
                                  {"holds", one.check->holds},
                                  {"seen", one.finding.detail}});
  }
  return {{"name", history.file.name},
          {"seed", history.seed},
          {"job", history.job.id},
          {"state", history.job.state},
          {"generation", history.job.generation},
          {"lost_steps", lost_steps(history)},
          {"reference",
           history.reference.job == 0 ? json::value() : json::value(history.reference.job)},
          {"held", count(report.judged).violated == 0},
          {"faults", std::move(faults)},
          {"checks", std::move(checks)},
          {"again", report.replay}};
}

ExitCode report_code(const FaultReport& report) {
  ExitCode code = kDone;
  for (const Judged& one : report.judged) {
    if (one.finding.verdict != CheckVerdict::violated) continue;
    if (one.check->of == CheckOf::promise) return kOwnError;
    const std::int64_t exit = report.history.job.exit_code;
    code = exit > 0 && exit <= kRefused ? static_cast<ExitCode>(exit) : kJobFailed;
  }
  return code;
}

}  // namespace tutti::cli
