// A coordinator whose ledger takes no more: what is refused, what goes on, and what readers are
// told.
#include <algorithm>

#include "tests/unit/api/fake_worker.h"
#include "tests/unit/api/hosted_cluster.h"

namespace tutti::coordinator {
namespace {

using test::Hosted;

ClusterHostOptions impatient() {
  ClusterHostOptions options;
  options.answer_within = Duration::zero();  // at the first look
  return options;
}

// A job that runs, on a cluster whose ledger takes no more.
class FullCluster : public Hosted {
 public:
  FullCluster() : Hosted(impatient()) {
    REQUIRE(worker.connected());
    REQUIRE(std::holds_alternative<JobAccepted>(submit(10)));
    worker.say(worker.hello());
    REQUIRE(worker.expect<wire::Welcome>().has_value());
    const auto ordered = worker.expect<wire::StartRank>();
    REQUIRE(ordered.has_value());
    start = *ordered;
    REQUIRE(worker.begin_rank(start));
    REQUIRE(eventually([&] { return job().summary.state == JobState::running; }));
  }

  void fill() {
    AnswerBody answer;
    for (int i = 0; i < 20 && !std::holds_alternative<Error>(answer); ++i) answer = submit(100'000);
    REQUIRE(std::holds_alternative<Error>(answer));
    CHECK(std::get<Error>(answer).code == ErrorCode::unavailable);
    CHECK(std::holds_alternative<Error>(submit(10)));
  }
  void free() {
    REQUIRE(ask([&] { return ledger->limit_pages(100 * test::kHostedPages).ok(); }));
  }

  // Of the job that ran; on the host's strand.
  JobDetail job() { return *cluster->job(start.job); }
  std::vector<JobId> jobs_that(JobState state) {
    JobFilter filter;
    filter.states = {state};
    std::vector<JobId> out;
    for (const JobSummary& each : cluster->jobs(filter).jobs) out.push_back(each.job);
    return out;
  }

  test::FakeWorker worker{join};
  wire::StartRank start;
};

std::string refusal(const AnswerBody& answer) {
  const auto* error = std::get_if<Error>(&answer);
  REQUIRE(error != nullptr);
  CHECK(error->code == ErrorCode::unavailable);
  return error->message;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("coordinator: a full disk refuses submits, and the job that runs goes on") {
  FullCluster full;
  // The folder may be on a disk that hangs: it is the worker's to make.
  CHECK_FALSE(std::filesystem::exists(full.folder.path() / "jobs" / "1"));
  const auto token = full.access.make({.user = "ann"}, std::string(48, 'a'), wall_now().unix_ms);
  REQUIRE(token.ok());
  REQUIRE(std::holds_alternative<Done>(full.change(token->change)));
  REQUIRE(full.access.of_token(token->token, wall_now().unix_ms));
  full.fill();
  full.worker.say(wire::Heartbeat{});
  CHECK(full.worker.expect<wire::HeartbeatAnswered>().has_value());
  CHECK(full.ask([&] { return full.job().summary.state; }) == JobState::running);
  CancelJob cancel;
  cancel.job = full.start.job;
  CHECK(has(refusal(full.request(cancel)), "disk is full"));
  // Nor does anybody wait for ever for what is decided and cannot be made durable.
  DrainNode drain;
  drain.node = "node-a";
  CHECK(has(refusal(full.request(drain)), "is done once there is space"));
  // Who loses access loses it all the same, and is told what that is worth.
  const AnswerBody revoked = full.change({token->change.record, true});
  CHECK_FALSE(full.access.of_token(token->token, wall_now().unix_ms));
  CHECK(has(refusal(revoked), "it is good no more"));
}

TEST_CASE("coordinator: with a full disk nobody is told of an end before that is durable") {
  FullCluster full;
  full.fill();
  full.worker.end_rank(full.start, 0);
  REQUIRE(full.eventually(
      [&] { return is_terminal(full.cluster->settled_state().find_job(full.start.job)->state); }));
  const JobDetail shown = full.ask([&] { return full.job(); });
  CHECK(shown.summary.state == JobState::stopping);
  CHECK_FALSE(shown.summary.exit_code);
  CHECK(shown.summary.ended_unix_ms == 0);
  CHECK(has(shown.waiting, "disk is full"));
  const Explanation why = full.ask([&] { return *full.cluster->explain(full.start.job); });
  CHECK(why.state == JobState::stopping);
  CHECK(why.reason == ExplainReason::disk);
  CHECK(why.lines == std::vector<std::string>{"job 1: " + shown.waiting});
  const std::vector<JobId> only{full.start.job};
  CHECK(full.ask([&] { return full.jobs_that(JobState::stopping); }) == only);
  CHECK(full.ask([&] { return full.jobs_that(JobState::done); }).empty());
  const auto counts = full.ask([&] { return full.cluster->job_counts(); });
  CHECK(counts.contains({"run", JobState::stopping}));
  CHECK_FALSE(counts.contains({"run", JobState::done}));

  full.free();
  REQUIRE(full.eventually([&] { return full.job().summary.state == JobState::done; }));
  CHECK(full.ask([&] { return full.job().summary.exit_code; }) == 0);
  CHECK(full.ask([&] { return full.jobs_that(JobState::done); }) == only);
}

}  // namespace
}  // namespace tutti::coordinator
