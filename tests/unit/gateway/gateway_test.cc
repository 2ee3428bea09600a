#include "coordinator/gateway/gateway.h"

#include <catch2/catch.hpp>

#include <functional>
#include <future>
#include <thread>

#include "coordinator/api/http_client.h"
#include "coordinator/api/http_server.h"
#include "coordinator/api/route.h"
#include "protocol/actor/actor_host.h"
#include "protocol/transport/endpoint.h"
#include "protocol/wire/link.h"
#include "tests/support/event_log.h"
#include "tests/support/on_strand.h"
#include "tests/support/patience.h"

namespace tutti::gateway {
namespace {

using api::HttpAnswer;
using test::on_strand;

// A serving rank that does what the prompt says: "two words" is answered in two pieces, "hang"
// gives one piece and no more, "refuse" an error.
class ScriptedRank {
 public:
  ScriptedRank(actor::Runtime& runtime, test::EventLog& seen) : host_(runtime), seen_(seen) {
    transport::ServerOptions options;
    options.keys = transport::make_keys();
    key_ = options.keys.public_key;
    on_strand(host_, [&] {
      auto opened = transport::open_server(
          host_, options, {.on_frame = [this](const std::string& peer, const std::string& frame) {
            take(peer, frame);
          }});
      REQUIRE(opened.ok());
      server_ = *std::move(opened);
    });
  }
  ~ScriptedRank() {
    on_strand(host_, [&] { server_.reset(); });
  }

  Serving serving(std::uint64_t job) const {
    return {JobId{job}, "scripted", server_->address(), key_};
  }

 private:
  void take(const std::string& peer, const std::string& frame) {
    auto decoded = wire::decode_frame<wire::ToServer>(frame, counters_);
    if (!decoded) return seen_.add("not decoded");
    if (std::holds_alternative<wire::CancelGenerate>(decoded->message)) return seen_.add("cancel");
    const auto& generate = std::get<wire::Generate>(decoded->message);
    seen_.add(generate.prompt);
    wire::Generated piece;
    piece.request = generate.request;
    if (generate.prompt == "refuse") {
      piece.finish = "error";
      piece.error = "too many tokens";
      piece.error_code = "invalid_argument";
      return send(peer, piece);
    }
    piece.text = "one ";
    send(peer, piece);
    if (generate.prompt == "hang") return;
    piece.text = "two";
    piece.finish = "stop";
    piece.prompt_tokens = 4;
    piece.completion_tokens = 2;
    send(peer, piece);
  }
  void send(const std::string& peer, const wire::Generated& piece) {
    const auto frame = wire::encode_frame<wire::FromServer>(piece);
    if (!frame || !server_->send(peer, *frame)) seen_.add("not sent");  // Catch is not for threads
  }

  actor::ActorHost host_;
  test::EventLog& seen_;
  std::string key_;
  wire::FrameCounters counters_;
  std::unique_ptr<transport::ServerEndpoint> server_;
};

struct Service {
  Service() {
    gateway = std::make_unique<Gateway>(runtime);
    auto opened = api::HttpServer::open(runtime, {.access = &access});
    REQUIRE(opened.ok());
    http = *std::move(opened);
    http->start(gateway->routes());
    serving = std::thread([this] { runtime.run(); });
    rank = std::make_unique<ScriptedRank>(runtime, seen);
    gateway->open(rank->serving(1));
  }
  ~Service() {
    http->stop();
    rank.reset();
    runtime.stop();
    serving.join();  // no handler runs any more
    http.reset();
    gateway.reset();
  }

  std::unique_ptr<api::HttpClient> client() const {
    return *api::HttpClient::connect_to(
        {.url = "http://127.0.0.1:" + std::to_string(http->port()), .token = "secret"});
  }
  static api::HttpRequest post(const std::string& prompt, const std::string& more = {}) {
    return {.method = "POST",
            .target = "/v1/completions",
            .body = R"({"model": "scripted", "prompt": ")" + prompt + '"' + more + "}"};
  }
  // Also from other threads, so it checks nothing; status 0: no answer.
  HttpAnswer ask(const std::string& prompt) const {
    auto answer = client()->request(post(prompt));
    return answer ? *std::move(answer) : HttpAnswer{0, {}, answer.error().message};
  }
  bool says(const std::string& line) const {
    return gateway->metrics().find(line) != std::string::npos;
  }

  test::EventLog seen;  // by the rank
  coordinator::AccessTable access{"secret", "join"};
  actor::Runtime runtime{1};
  std::thread serving;
  std::unique_ptr<Gateway> gateway;
  std::unique_ptr<api::HttpServer> http;
  std::unique_ptr<ScriptedRank> rank;
};

TEST_CASE("gateway: over HTTP a request is answered whole or in pieces") {
  const Service service;
  const HttpAnswer whole = service.ask("two words");
  CHECK(whole.status == 200);
  CHECK(whole.body.find(R"("text":"one two")") != std::string::npos);
  CHECK(whole.body.find(R"("total_tokens":6)") != std::string::npos);
  std::string streamed;
  const auto answer =
      service.client()->stream(Service::post("two words", R"(, "stream": true)"), [&](auto part) {
        streamed += part;
        return true;
      });
  REQUIRE(answer.ok());
  CHECK(answer->content_type == "text/event-stream");
  CHECK(streamed.find(R"("text":"one ")") != std::string::npos);
  CHECK(streamed.ends_with("data: [DONE]\n\n"));
  const auto models = service.client()->request({.method = "GET", .target = "/v1/models"});
  REQUIRE(models.ok());
  CHECK(models->body.find(R"("id":"scripted")") != std::string::npos);
  CHECK(service.says("tutti_gateway_requests_finished_total 2"));
}

TEST_CASE("gateway: over HTTP a refusal has its status, streamed or not") {
  const Service service;
  CHECK(service.ask("refuse").status == 400);
  const auto streamed = service.client()->stream(Service::post("refuse", R"(, "stream": true)"),
                                                 [](auto) { return true; });
  REQUIRE(streamed.ok());
  CHECK(streamed->status == 400);
  CHECK(streamed->body.find("too many tokens") != std::string::npos);
  CHECK(service.ask(R"(x", "n": 2, "user": ")").status == 400);
}

TEST_CASE("gateway: a client that goes in the middle of a stream cancels its request") {
  Service service;
  const auto answer = service.client()->stream(Service::post("hang", R"(, "stream": true)"),
                                               [](auto) { return false; });
  CHECK(answer.error().code == ErrorCode::aborted);
  CHECK(service.seen.wait_for(2));
  CHECK(service.seen.lines() == std::vector<std::string>{"hang", "cancel"});
}

TEST_CASE("gateway: when the rank stops, whole and streamed requests each end with one error") {
  Service service;
  test::EventLog read;
  std::string streamed;
  auto stream = std::async(std::launch::async, [&] {
    return service.client()->stream(Service::post("hang", R"(, "stream": true)"), [&](auto part) {
      streamed += part;
      read.add("part");
      return true;
    });
  });
  CHECK(read.wait_for(1));
  auto whole = std::async(std::launch::async, [&] { return service.ask("hang"); });
  CHECK(service.seen.wait_for(2));
  service.gateway->close(JobId{1});
  CHECK(whole.get().status == 503);
  REQUIRE(stream.get().ok());
  CHECK(streamed.find("\"error\"") == streamed.rfind("\"error\""));
  CHECK(streamed.find("\"error\"") != std::string::npos);
  CHECK(streamed.find("[DONE]") == std::string::npos);
  // A new request waits for the rank to come back.
  auto held = std::async(std::launch::async, [&] { return service.ask("two words"); });
  service.gateway->open(service.rank->serving(1));
  CHECK(held.get().status == 200);
}

}  // namespace
}  // namespace tutti::gateway
