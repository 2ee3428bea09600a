#include <catch2/catch.hpp>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_names.h"
#include "ops/cli/doctor/findings.h"
#include "ops/cli/text/top_text.h"
#include "tests/support/temporary_folder.h"

namespace tutti::cli {
namespace {

namespace json = boost::json;

const char* const kJobs = R"({"jobs": [
  {"id": 7, "name": "kjv", "kind": "train", "state": "running", "step": 20, "steps": 100,
   "ranks": 2},
  {"id": 8, "name": "next", "kind": "run", "state": "queued"}]})";
const char* const kNodes = R"({"nodes": [
  {"name": "a", "state": "ready", "slots": 4, "free_slots": 1, "version": "1"},
  {"name": "b", "state": "lost", "slots": 2, "free_slots": 2, "version": "2"}]})";

TopInput input_at(std::int64_t seconds, const std::string& metrics) {
  return {json::parse(kJobs), json::parse(kNodes), parse_metrics(metrics),
          Instant{std::chrono::seconds(seconds)}};
}

TEST_CASE("top: a frame shows what goes on, with rates between two looks") {
  const TopInput before = input_at(10, "tutti_job_tokens_total{job=\"7\"} 1000\n");
  const TopInput now = input_at(12,
                                "# TYPE tutti_job_loss gauge\n"
                                "tutti_job_loss{job=\"7\"} 2.5\n"
                                "tutti_job_step_duration_seconds{job=\"7\"} 0.25\n"
                                "tutti_job_tokens_total{job=\"7\"} 3000\n"
                                "tutti_jobs{kind=\"run\",state=\"done\"} 41\n"
                                "tutti_jobs{kind=\"train\",state=\"done\"} 1\n"
                                "tutti_jobs{kind=\"train\",state=\"running\"} 1\n"
                                "tutti_jobs_submitted_total 44\n");
  const json::value frame = top_frame(now, &before);
  CHECK(whole_of(frame, "slots") == 6);
  CHECK(whole_of(frame, "free_slots") == 3);
  REQUIRE(list_of(frame, "jobs").size() == 2);
  const json::value& job = list_of(frame, "jobs")[0];
  CHECK(number_of(job, "tokens_per_s") == 1000);
  CHECK(number_of(job, "steps_per_s") == 4);
  CHECK(number_of(job, "loss") == 2.5);
  const std::string page = top_page(frame, WallTime{}, Paint::plain);
  CHECK(page.find("3 of 6 in use") != std::string::npos);
  CHECK(page.find("20/100") != std::string::npos);
  CHECK(page.find("42 done, 1 running\n") != std::string::npos);
  CHECK(page.find("\x1b") == std::string::npos);
  // The first look has no rates.
  CHECK(number_of(list_of(top_frame(now, nullptr), "jobs")[0], "tokens_per_s") == 0);
}

TEST_CASE("doctor: a GPU that is slowed down is a problem, one at its power cap is a note") {
  worker::GpuInventory inventory;
  inventory.driver = "580.65.06";
  const auto gpu = [](const char* uuid, std::uint64_t reasons) {
    return worker::Gpu{.uuid = uuid,
                       .name = "Made-up H100",
                       .memory_bytes = std::uint64_t{80} << 30,
                       .memory_free_bytes = std::uint64_t{79} << 30,
                       .power_limit_watts = 700,
                       .temperature_celsius = 61,
                       .throttle_reasons = worker::throttle_reasons_of(reasons),
                       .nvlinks = {0, 18, 18}};
  };
  inventory.gpus = {gpu("GPU-a", 0x1), gpu("GPU-b", 0x4), gpu("GPU-c", 0x44)};
  const std::vector<Finding> findings = judge_gpus(inventory);
  REQUIRE(findings.size() == 4);
  CHECK(findings[0].found == "3, driver 580.65.06");
  CHECK(findings[1].verdict == Verdict::good);
  CHECK(findings[1].found.find("700 W at most, 61 C, NVLink to 2 others") != std::string::npos);
  CHECK(findings[2].verdict == Verdict::note);
  CHECK(findings[3].verdict == Verdict::problem);
  CHECK(findings[3].found.find("slowed down (power cap; thermal, hardware)") != std::string::npos);
  CHECK(!findings[3].advice.empty());

  CHECK(judge_gpus({.problem = "no NVIDIA driver: it is not there"})[0].verdict == Verdict::good);
  CHECK(judge_gpus({.problem = "the NVIDIA driver does not answer"})[0].verdict ==
        Verdict::problem);
}

TEST_CASE("doctor: each finding that is not good says what to do") {
  std::vector<Finding> findings = judge_nodes(json::parse(kNodes));
  for (Finding& each : judge_metrics("tutti_ledger_failing 1\ntutti_ledger_size_bytes 4096\n"))
    findings.push_back(each);
  CHECK(any_problem(findings));
  std::size_t problems = 0;
  for (const Finding& each : findings) {
    INFO(each.subject << ": " << each.found);
    if (each.verdict != Verdict::good) CHECK_FALSE(each.advice.empty());
    problems += each.verdict == Verdict::problem;
  }
  CHECK(problems == 2);  // a lost node, a full disk
  const std::string page = findings_page(findings, Paint::plain);
  CHECK(page.find("b is lost") != std::string::npos);
  CHECK(page.ends_with("2 problems\n"));
  CHECK(flag_of(findings_json(findings), "problems"));
}

TEST_CASE("doctor: a cluster that does not answer is a problem, unless nobody said there was one") {
  const Error silent{ErrorCode::unavailable, "cannot reach it"};
  CHECK(judge_silence(silent, Expected::cluster).verdict == Verdict::problem);
  CHECK(judge_silence(silent, Expected::nothing).verdict == Verdict::note);
  const Error refused{ErrorCode::permission_denied, "no"};
  CHECK(judge_silence(refused, Expected::nothing).verdict == Verdict::problem);
}

TEST_CASE("doctor: this machine is looked at, and nothing is left in the state folder") {
  const test::TemporaryFolder folder;
  const std::vector<Finding> findings = examine_machine(folder.path());
  CHECK(findings.size() >= 10);
  for (const Finding& each : findings) {
    INFO(each.subject);
    CHECK_FALSE(each.found.empty());
  }
  CHECK(std::filesystem::is_empty(folder.path()));
}

// All jobs, or those of the name that is asked for.
class TwoJobs final : public Http {
 public:
  Result<HttpReply> send(const ClusterAddress&, const HttpRequest& request) override {
    const std::size_t asked = request.target.find("name=");
    if (asked == std::string::npos) return HttpReply{200, kJobs};
    const std::string name = request.target.substr(asked + 5);
    json::array jobs;
    const json::value all = json::parse(kJobs);
    for (const json::value& job : list_of(all, "jobs")) {
      if (text_of(job, "name") == name) jobs.push_back(job);
    }
    return HttpReply{200, json::serialize(json::object{{"jobs", std::move(jobs)}})};
  }
  Result<HttpReply> stream(const ClusterAddress&, const HttpRequest&,
                           const std::function<void(std::string_view)>&) override {
    return HttpReply{};
  }
};

TEST_CASE("jobs: a name stands for the newest job that has it, a wrong one is told the nearest") {
  ::setenv("TUTTI_URL", "http://127.0.0.1:1", 1);
  TwoJobs http;
  Api api(http);
  CHECK(*find_job(api, "12") == 12);
  CHECK(*find_job(api, "kjv") == 7);
  const auto wrong = find_job(api, "kvj");
  REQUIRE_FALSE(wrong.ok());
  CHECK(wrong.error().code == ErrorCode::not_found);
  CHECK(wrong.error().message.find("\"kjv\"") != std::string::npos);
  ::unsetenv("TUTTI_URL");
}

}  // namespace
}  // namespace tutti::cli
