// Each check on a history that holds, and on the same one doctored: a check that cannot fail proves
// nothing.
#include <fmt/core.h>
#include <catch2/catch.hpp>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <functional>
#include <set>

#include "ops/cli/faults/report.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {
namespace {

constexpr std::uint64_t kJob = 3;
constexpr std::uint64_t kSteps = 20;
constexpr std::int64_t kBegan = 1'000'000;

spec::JobSpec training() {
  const auto spec = spec::parse_job_spec(
      "name: a\nkind: train\nmodel: {path: /m}\ndata: {tokens: [/t.npy], sequence: 8}\n"
      "train: {steps: 20, batch: 4, seed: 9}\nresources: {ranks: 2}\n");
  REQUIRE(spec);
  return *spec;
}

InjectedFault injected(FaultKind kind, std::uint64_t step, std::int64_t unix_ms) {
  InjectedFault out;
  out.plan.kind = kind;
  out.plan.clock = FaultClock::step;
  out.plan.at = step;
  out.outcome = InjectionOutcome::injected;
  out.whom = "rank 1";
  out.unix_ms = out.over_unix_ms = unix_ms;
  out.step = step;
  out.orders = 1;
  return out;
}

std::vector<EventSeen> life() {
  std::vector<EventSeen> out;
  std::uint64_t seq = 40;
  for (const char* kind : {"submitted", "placed", "started", "running", "rank_lost", "aborted",
                           "regrouped", "recovered", "checkpoint", "finished"}) {
    ++seq;
    out.push_back({.seq = seq,
                   .unix_ms = kBegan + static_cast<std::int64_t>(seq),
                   .job = kJob,
                   .kind = kind,
                   .message = kind,
                   .generation = seq < 46 ? 1U : 2U});
  }
  return out;
}

// A job of twenty steps whose rank 1 was killed at step 10, and that ended well.
FaultHistory sound() {
  FaultHistory out;
  out.file.name = "storm";
  out.seed = 7;
  out.spec = training();
  out.submitted = true;
  out.repeated = kJob;
  out.accepted_spec = out.kept_spec = spec::to_yaml(*out.spec);
  out.faults = {injected(FaultKind::kill_rank, 10, kBegan + 500)};
  out.states = {{"queued", 0}, {"running", 1}, {"recovering", 2}, {"running", 2}, {"done", 2}};
  out.job.id = kJob;
  out.job.state = "done";
  out.job.generation = 2;
  out.job.step = kSteps;
  out.job.exit_code = 0;
  out.job.charges = {0, 1, 0};
  out.job.recoveries = {{.generation = 2,
                         .cause = "rank 1 was killed",
                         .seen_unix_ms = kBegan + 503,
                         .first_step_ms = 300,
                         .lost_steps = 0,
                         .planned = false}};
  out.job.checkpoints = {10, 20};
  out.events = life();
  out.events_live = {out.events.begin(), out.events.begin() + 6};
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    out.steps.push_back({step, step <= 10 ? 1U : 2U, 2, 32, fmt::format("hash-{}", step)});
    out.reference.weights[step] = fmt::format("hash-{}", step);
  }
  out.steps_live = {out.steps.begin(), out.steps.begin() + 12};
  out.log.text = {{1, "one\n"}, {2, "two\nthree\n"}};
  out.log_resumed = out.log;
  out.log_live.text = {{1, "one\n"}, {2, "two\n"}};
  out.nodes = {{"a", 2, 0, {{0, 11}, {1, 12}}}, {"a", 2, 2, {}}};
  out.node_looks = 9;
  out.answered = 100;
  out.recovered_ms = 400;
  out.end_unix_ms = kBegan + 60'000;
  out.left_known = true;
  out.checkpoints = {{10, ""}, {20, ""}};
  out.ledger = {.problem = "",
                .damaged = false,
                .state = "done",
                .generation = 2,
                .charges = {0, 1, 0},
                .checkpoints = {10, 20},
                .last_event = 50};
  out.reference.job = 4;
  out.reference.state = "done";
  out.reference.first = 1;
  out.reference.last = kSteps;
  return out;
}

CheckFinding finding(const FaultHistory& history, std::string_view check) {
  for (const Judged& one : judge(history)) {
    if (one.check->name == check) return one.finding;
  }
  FAIL("no check " << check);
  return {};
}

struct Doctored {
  std::string_view check;
  std::string_view what;
  std::function<void(FaultHistory&)> doctor;
};

std::vector<Doctored> doctored_records() {
  return {
      {"fencing", "a step of generation 1 behind one of 2",
       [](auto& h) { h.steps[14].generation = 1; }},
      {"fencing", "a step of a generation to come", [](auto& h) { h.steps[19].generation = 3; }},
      {"gang", "a step by one rank", [](auto& h) { h.steps[5].ranks = 1; }},
      {"gang", "a step by three ranks", [](auto& h) { h.steps[5].ranks = 3; }},
      {"ledger", "another state", [](auto& h) { h.ledger.state = "running"; }},
      {"ledger", "another generation", [](auto& h) { h.ledger.generation = 1; }},
      {"ledger", "another charge", [](auto& h) { h.ledger.charges.infrastructure = 0; }},
      {"ledger", "a checkpoint less", [](auto& h) { h.ledger.checkpoints.pop_back(); }},
      {"ledger", "an event that was told", [](auto& h) { h.ledger.last_event = 49; }},
      {"ledger", "damage",
       [](auto& h) {
         h.ledger.damaged = true;
         h.ledger.problem = "a page is damaged";
       }},
      {"samples", "a step twice", [](auto& h) { h.steps.insert(h.steps.begin() + 4, h.steps[4]); }},
      {"samples", "a step less", [](auto& h) { h.steps.erase(h.steps.begin() + 4); }},
      {"samples", "half a batch", [](auto& h) { h.steps[4].tokens = 16; }},
      {"samples", "none of its steps", [](auto& h) { h.steps.clear(); }},
      {"samples", "done before its last step", [](auto& h) { h.steps.pop_back(); }},
      {"bits", "another hash", [](auto& h) { h.steps[17].weights = "hash-0"; }},
      {"bits", "no hash",
       [](auto& h) {
         h.steps[17].weights.clear();
         h.reference.weights[18].clear();
       }},
      {"bits", "a step that the other has not", [](auto& h) { h.reference.weights.erase(9); }},
      {"bits", "the other run failed", [](auto& h) { h.reference.state = "failed"; }},
      {"bits", "there was no other run", [](auto& h) { h.reference.problem = "out of time"; }},
      {"checkpoints", "a file is cut", [](auto& h) { h.checkpoints[1].problem = "cut"; }},
      {"events", "a gap", [](auto& h) { h.events.erase(h.events.begin() + 3); }},
      {"events", "two in the wrong order", [](auto& h) { std::swap(h.events[2], h.events[3]); }},
      {"events", "one that was told differently", [](auto& h) { h.events[2].message = "else"; }},
      {"events", "none", [](auto& h) { h.events.clear(); }},
      {"logs", "another line than was told", [](auto& h) { h.log_live.text[2] = "tow\n"; }},
      {"logs", "a process less",
       [](auto& h) {
         h.log.text.erase(1);
         h.log_resumed.text.erase(1);
       }},
      {"logs", "another text from a cursor on", [](auto& h) { h.log_resumed.text[2] = "two\n"; }},
      {"steps", "one taken back", [](auto& h) { h.steps.erase(h.steps.begin() + 2); }},
      {"steps", "one that changed", [](auto& h) { h.steps_live[3].weights = "hash-0"; }},
  };
}

std::vector<Doctored> doctored_lives() {
  return {
      {"accepted", "another spec is kept", [](auto& h) { h.kept_spec += "priority: 3\n"; }},
      {"accepted", "the job is forgotten", [](auto& h) { h.job.id = 0; }},
      {"key", "a second job of the key", [](auto& h) { h.repeated = 9; }},
      {"room", "a free slot that is used",
       [](auto& h) {
         h.nodes.insert({"a", 2, 1, {{0, 1}, {1, 2}}});
       }},
      {"slots", "two processes on one slot",
       [](auto& h) {
         h.nodes.insert({"b", 4, 3, {{0, 21}, {0, 22}}});
       }},
      {"life", "an end that was none",
       [](auto& h) {
         h.states.push_back({"running", 2});
       }},
      {"life", "a generation that goes back", [](auto& h) { h.states[3].generation = 0; }},
      {"life", "two ends", [](auto& h) { h.events.push_back(h.events.back()); }},
      {"life", "no end", [](auto& h) { h.events.pop_back(); }},
      {"life", "running behind the end",
       [](auto& h) {
         h.events.push_back({.seq = 51, .job = kJob, .kind = "running", .message = ""});
       }},
      {"budgets", "the user is charged", [](auto& h) { h.job.charges.user = 1; }},
      {"budgets", "one fault is charged twice", [](auto& h) { h.job.charges.infrastructure = 2; }},
      {"budgets", "a fault of Tutti's own", [](auto& h) { h.job.charges.own = 1; }},
      {"budgets", "an interruption for nothing", [](auto& h) { h.job.charges.infrastructure = 0; }},
      {"causes", "a recovery before the fault",
       [](auto& h) { h.job.recoveries[0].seen_unix_ms = kBegan - 5'000; }},
      {"causes", "a recovery long after it",
       [](auto& h) { h.job.recoveries[0].seen_unix_ms = kBegan + 50'000; }},
      {"causes", "a recovery from a killed coordinator",
       [](auto& h) { h.faults[0].plan.kind = FaultKind::kill_coordinator; }},
      {"liveness", "not within the bound", [](auto& h) { h.recovered_ms = 60'001; }},
      {"liveness", "never", [](auto& h) { h.recovered_ms.reset(); }},
      {"answers", "one without", [](auto& h) { h.unanswered = "GET /x: no answer"; }},
      {"processes", "one that stayed", [](auto& h) { h.left = {4711}; }},
      {"schedule", "a fault that was missed",
       [](auto& h) { h.faults[0].outcome = InjectionOutcome::missed; }},
      {"end", "failed", [](auto& h) { h.job.state = "failed"; }},
  };
}

std::vector<Doctored> doctored() {
  std::vector<Doctored> out = doctored_lives();
  std::vector<Doctored> records = doctored_records();
  for (Doctored& one : records) out.push_back(std::move(one));
  return out;
}

TEST_CASE("fault checks: all of them hold for a run in which everything held") {
  const FaultHistory history = sound();
  for (const Judged& one : judge(history)) {
    INFO(one.check->name << ": " << one.finding.detail);
    CHECK(one.finding.verdict == CheckVerdict::held);
    CHECK_FALSE(one.finding.detail.empty());
  }
}

TEST_CASE("fault checks: each fails when what it is for is broken") {
  std::set<std::string_view> broken;
  for (const Doctored& one : doctored()) {
    FaultHistory history = sound();
    one.doctor(history);
    const CheckFinding found = finding(history, one.check);
    INFO(one.check << ": " << one.what << ": " << found.detail);
    CHECK(found.verdict == CheckVerdict::violated);
    broken.insert(one.check);
  }
  for (const FaultCheck& check : fault_checks()) {
    INFO(check.name);
    CHECK(broken.contains(check.name));
  }
}

TEST_CASE("fault checks: a gap that is marked, and a job that runs on, break nothing") {
  FaultHistory gap = sound();
  gap.events.erase(gap.events.begin() + 1, gap.events.begin() + 3);
  gap.events.insert(gap.events.begin() + 1, {.seq = 43, .kind = "gap", .message = "dropped"});
  CHECK(finding(gap, "events").verdict == CheckVerdict::held);

  FaultHistory on = sound();
  on.file.expect = on.job.state = "running";
  on.job.exit_code = -1;
  on.states.pop_back();
  on.events.pop_back();
  on.left_known = false;
  on.steps.pop_back();
  on.reference.last = kSteps - 1;
  on.ledger.state = "running";
  on.ledger.generation = 3;  // read a moment later
  on.log_resumed.text[2] += "four\n";
  on.checkpoints_unseen = "the job goes on";
  for (const Judged& one : judge(on)) {
    INFO(one.check->name << ": " << one.finding.detail);
    CHECK(one.finding.verdict != CheckVerdict::violated);
  }
}

TEST_CASE("fault checks: what has no meaning for a program is said to be unchecked") {
  FaultHistory program = sound();
  const auto spec = spec::parse_job_spec("name: p\nkind: run\ncommand: [sleep, \"9\"]\n");
  REQUIRE(spec);
  program.spec = *spec;
  program.steps.clear();
  program.steps_live.clear();
  program.accepted_spec = program.kept_spec = spec::to_yaml(*spec);
  program.reference = {};
  program.reference.why_not = "no step is recorded";
  for (const char* check : {"samples", "bits", "fencing", "gang", "checkpoints", "steps"}) {
    CHECK(finding(program, check).verdict == CheckVerdict::not_checked);
  }
  CHECK(finding(program, "life").verdict == CheckVerdict::held);
}

TEST_CASE("fault history: a fault is followed by its own recovery, or joins one under way") {
  FaultHistory history = sound();
  history.faults = {injected(FaultKind::kill_rank, 5, kBegan),
                    injected(FaultKind::kill_rank, 5, kBegan + 200),
                    injected(FaultKind::kill_coordinator, 5, kBegan + 300),
                    injected(FaultKind::kill_rank, 9, kBegan + 30'000)};
  history.job.recoveries = {{.generation = 2,
                             .cause = "a",
                             .seen_unix_ms = kBegan + 2,
                             .first_step_ms = 900,
                             .lost_steps = 0,
                             .planned = false},
                            {.generation = 4,
                             .cause = "b",
                             .seen_unix_ms = kBegan + 30'003,
                             .first_step_ms = 200,
                             .lost_steps = 1,
                             .planned = false}};
  const auto found = recoveries_of_faults(history);
  REQUIRE(found.size() == 4);
  CHECK(found[0] == 0U);
  CHECK(found[1] == 0U);
  CHECK_FALSE(found[2]);
  CHECK(found[3] == 1U);

  // One that was stopped for a while and went on is not blamed for what was killed later.
  history.faults = {injected(FaultKind::stop_rank, 5, kBegan + 29'000),
                    injected(FaultKind::kill_rank, 9, kBegan + 30'000)};
  CHECK_FALSE(recoveries_of_faults(history)[0]);
  CHECK(recoveries_of_faults(history)[1] == 1U);
}

TEST_CASE("fault report: says what held, what did not, and how to do it again") {
  FaultHistory history = sound();
  std::vector<Judged> judged = judge(history);
  const FaultReport report{history, judged, "tutti fault run f.yaml --seed 7"};
  CHECK(report_code(report) == kDone);
  const std::string text = report_text(report, Paint::plain);
  CHECK(text.find("held: 21 checks; 0 steps lost\n") != std::string::npos);
  CHECK(text.find("again: tutti fault run f.yaml --seed 7\n") != std::string::npos);
  const boost::json::object json = report_json(report);
  CHECK(json.at("held") == boost::json::value(true));
  CHECK(json.at("faults").at(0).at("recovery").at("seen_ms") == boost::json::value(3));
  CHECK(json.at("checks").as_array().size() == judged.size());

  history.reference.weights[10] = "hash-0";
  judged = judge(history);
  CHECK(report_code(report) == kOwnError);
  CHECK(report_text(report, Paint::plain).find("VIOLATED: 1 of 21 checks") != std::string::npos);
  CHECK(report_json(report).at("held") == boost::json::value(false));
}

TEST_CASE("fault report: a run that was not what its file says has the job's exit code") {
  FaultHistory history = sound();
  history.faults[0].outcome = InjectionOutcome::missed;
  history.job.recoveries.clear();
  history.job.charges = {};
  history.ledger.charges = {};
  std::vector<Judged> judged = judge(history);
  const FaultReport report{history, judged, ""};
  CHECK(report_code(report) == kJobFailed);
  history.job.state = "failed";
  history.job.exit_code = 3;
  history.states.back().state = "failed";
  history.events.back().kind = "failed";
  history.events.back().message = "failed";
  history.ledger.state = "failed";
  judged = judge(history);
  CHECK(report_code(report) == kInfrastructure);
}

TEST_CASE("fault history: reads the API's answers, and what is not there is its default") {
  const JobSeen job = job_seen(boost::json::parse(
      R"({"id": 7, "state": "running", "generation": 3, "step": 12, "exit_code": null,
          "failure": null, "budgets": {"user": {"used": 1}, "infrastructure": {"used": 2},
          "own": {"used": 0}}, "checkpoints": [{"step": 10, "folder": "/c"}],
          "recoveries": [{"generation": 2, "cause": "c", "seen_unix_ms": 5, "first_step_ms": null,
          "lost_steps": 1, "planned": true}]})"));
  CHECK(job.id == 7);
  CHECK(job.exit_code == -1);
  CHECK(job.charges == Charges{1, 2, 0});
  CHECK(job.checkpoints == std::vector<std::uint64_t>{10});
  REQUIRE(job.recoveries.size() == 1);
  CHECK(job.recoveries[0].first_step_ms == -1);
  CHECK(job.recoveries[0].planned);

  LogSeen log;
  add_log(log, boost::json::parse(R"({"process": 4, "text": "aé\u0001b"})"));
  add_log(log, boost::json::parse(R"({"process": 4, "text": "c"})"));
  add_log(log, boost::json::parse(R"({"gap_bytes": 12})"));
  CHECK(log.text.at(4) == "a\001bc");
  CHECK(log.gap_bytes == 12);

  const NodeSeen node = node_seen(boost::json::parse(
      R"({"name": "a", "slots": 2, "free_slots": 1, "processes": [{"slot": 1, "process": 9}]})"));
  CHECK(node == NodeSeen{"a", 2, 1, {{1, 9}}});
}

}  // namespace
}  // namespace tutti::cli
