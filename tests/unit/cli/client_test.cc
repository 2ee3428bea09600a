#include <catch2/catch.hpp>

#include <cstdlib>
#include <deque>

#include "ops/cli/client/api.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_list.h"
#include "ops/cli/client/watch.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"

namespace tutti::cli {
namespace {

// Answers from a list, and remembers what was asked.
class FakeHttp final : public Http {
 public:
  std::deque<Result<HttpReply>> replies;
  std::vector<std::string> targets;
  std::vector<std::string> urls;

  Result<HttpReply> send(const ClusterAddress& to, const HttpRequest& request) override {
    targets.push_back(request.method + ' ' + request.target);
    urls.push_back(to.url);
    if (replies.empty()) return Error{ErrorCode::internal, "no more answers"};
    Result<HttpReply> reply = replies.front();
    replies.pop_front();
    return reply;
  }

  Result<HttpReply> stream(const ClusterAddress& to, const HttpRequest& request,
                           const std::function<void(std::string_view)>& on_bytes) override {
    Result<HttpReply> reply = send(to, request);
    if (reply && reply->status == 200) on_bytes(reply->body);
    return reply;
  }
};

// The environment that finds a cluster, put back afterwards.
class ClusterEnvironment {
 public:
  explicit ClusterEnvironment(const std::string& state) {
    ::setenv("TUTTI_STATE", state.c_str(), 1);
    ::unsetenv("TUTTI_URL");
    ::unsetenv("TUTTI_TOKEN");
  }
  ~ClusterEnvironment() { ::unsetenv("TUTTI_STATE"); }
};

const Error kUnreachable{ErrorCode::unavailable, "cannot connect"};

TEST_CASE("client: the cluster is found in the state folder, and a URL goes before it") {
  const test::TemporaryFolder folder;
  const ClusterEnvironment environment(folder.path().string());
  CHECK(find_cluster().error().code == ErrorCode::unavailable);
  CHECK(find_cluster().error().message.find("start one with `tutti up`") != std::string::npos);
  REQUIRE(write_file_atomically(folder.path() / "address", "http://127.0.0.1:7\n"));
  REQUIRE(write_file_atomically(folder.path() / "token", "secret\n"));
  CHECK(find_cluster()->url == "http://127.0.0.1:7");
  CHECK(find_cluster()->token == "secret");
  // The token of one cluster never goes to another.
  ::setenv("TUTTI_URL", "http://10.0.0.1:1", 1);
  CHECK(find_cluster()->token.empty());
  ::unsetenv("TUTTI_URL");
}

TEST_CASE("client: errors of the API keep their code and message") {
  CHECK(read_reply({404, R"({"error": {"code": "not_found", "message": "no job 7"}})"}).error() ==
        Error{ErrorCode::not_found, "no job 7"});
  CHECK(read_reply({503, R"({"error": {"code": "exhausted", "message": "disk full"}})"}).error() ==
        Error{ErrorCode::exhausted, "disk full"});
  CHECK(read_reply({401, ""}).error().code == ErrorCode::permission_denied);
  CHECK(read_reply({500, "<html>"}).error() ==
        Error{ErrorCode::internal, "the coordinator answered 500"});
  CHECK(read_reply({200, "<html>"}).error().code == ErrorCode::corrupt);
}

TEST_CASE("client: a coordinator that is restarting is asked again at its new address") {
  const test::TemporaryFolder folder;
  const ClusterEnvironment environment(folder.path().string());
  REQUIRE(write_file_atomically(folder.path() / "address", "http://127.0.0.1:7"));
  FakeHttp http;
  Api api(http);
  http.replies = {kUnreachable, HttpReply{200, "{\"jobs\": []}"}};
  CHECK(api.get("/api/v1/jobs").ok());
  CHECK(http.targets.size() == 2);

  // What may not be repeated is not; and no other error is.
  http.replies = {kUnreachable, HttpReply{200, "{}"}};
  CHECK(api.post("/api/v1/faults", {}, Api::Repeat::never).error().code == ErrorCode::unavailable);
  http.replies = {HttpReply{404, ""}, HttpReply{200, "{}"}};
  CHECK(api.get("/api/v1/jobs/9").error().code == ErrorCode::not_found);
}

TEST_CASE("client: a stream is read page by page from cursor to cursor") {
  const test::TemporaryFolder folder;
  const ClusterEnvironment environment(folder.path().string());
  REQUIRE(write_file_atomically(folder.path() / "address", "http://127.0.0.1:7"));
  FakeHttp http;
  Api api(http);
  http.replies = {
      HttpReply{200, R"({"chunks": [{"text": "a"}, {"text": "b"}], "next": "c-2", "end": false})"},
      HttpReply{200, R"({"chunks": [{"text": "c"}], "next": "c-3", "end": true})"},
      HttpReply{200, R"({"chunks": [], "next": "c-3", "end": true})"}};
  std::string text;
  const Result<> read =
      read_stream(api, {"/api/v1/jobs/7/logs", "rank=1", "chunks", Follow::no},
                  [&](const boost::json::value& chunk) { text += text_of(chunk, "text"); });
  CHECK(read.ok());
  CHECK(text == "abc");
  CHECK(http.targets ==
        std::vector<std::string>{"GET /api/v1/jobs/7/logs?after=0&wait_ms=0&rank=1",
                                 "GET /api/v1/jobs/7/logs?after=c-2&wait_ms=0&rank=1",
                                 "GET /api/v1/jobs/7/logs?after=c-3&wait_ms=0&rank=1"});
}

TEST_CASE("client: the list of jobs is put together from its pages") {
  const test::TemporaryFolder folder;
  const ClusterEnvironment environment(folder.path().string());
  REQUIRE(write_file_atomically(folder.path() / "address", "http://127.0.0.1:7"));
  FakeHttp http;
  Api api(http);
  const HttpReply first{200, R"({"jobs": [{"id": 1}, {"id": 2}], "next": 2, "end": false})"};
  const HttpReply last{200, R"({"jobs": [{"id": 9}], "next": 9, "end": true})"};
  http.replies = {first, last};
  const auto all = list_jobs(api, "state=queued");
  REQUIRE(all);
  CHECK(list_of(*all, "jobs").size() == 3);
  CHECK(http.targets == std::vector<std::string>{"GET /api/v1/jobs?state=queued",
                                                 "GET /api/v1/jobs?after=2&state=queued"});
  // The newest two are one page, whatever there is before them; so is what an older one answers.
  http.replies = {first, HttpReply{200, R"({"jobs": [{"id": 1}]})"}};
  CHECK(list_of(*list_jobs(api, "last=2"), "jobs").size() == 2);
  CHECK(list_of(*list_jobs(api), "jobs").size() == 1);
}

TEST_CASE("client: waiting ends with the job, and says so when the time is over") {
  const test::TemporaryFolder folder;
  const ClusterEnvironment environment(folder.path().string());
  REQUIRE(write_file_atomically(folder.path() / "address", "http://127.0.0.1:7"));
  FakeHttp http;
  Api api(http);
  const HttpReply running{200, R"({"id": 7, "state": "running"})"};
  http.replies = {running, HttpReply{200, R"({"events": [{"seq": 1}], "next": 1, "end": false})"},
                  HttpReply{200, R"({"id": 7, "name": "a", "state": "failed", "exit_code": 3})"}};
  const Result<boost::json::value> job = wait_for_end(api, 7, std::nullopt);
  REQUIRE(job);
  CHECK(exit_code_of_job(*job) == 3);
  CHECK(describe_end(*job) == "job 7 a: failed");
  http.replies = {running};
  CHECK(wait_for_end(api, 7, std::chrono::milliseconds(0)).error() ==
        Error{ErrorCode::deadline_exceeded, "job 7 is still running"});
}

}  // namespace
}  // namespace tutti::cli
