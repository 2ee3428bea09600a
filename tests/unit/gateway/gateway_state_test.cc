#include "coordinator/gateway/gateway_state.h"

#include <catch2/catch.hpp>

namespace tutti::gateway {
namespace {

using namespace std::chrono_literals;

constexpr GatewaySettings kSettings{.open_max = 3,
                                    .token_max = 60s,
                                    .held_max = 10s,
                                    .recent_max = 60s,
                                    .recent_models_max = 2,
                                    .start_max = 5s};

// The state machine with a clock, and what it did last, by kind.
class Driver {
 public:
  void tell(Input input) {
    opened.clear();
    closed.clear();
    sent.clear();
    given.clear();
    failed.clear();
    for (const Effect& effect : state.on(now, std::move(input))) {
      std::visit([this](const auto& one) { keep(one); }, effect);
    }
  }
  void wait(Duration by) {
    now = now + by;
    tell(Tick{});
  }
  void open(std::uint64_t job, const std::string& model = "kjv") {
    tell(ServingOpened{JobId{job}, model, "tcp://127.0.0.1:" + std::to_string(job), "key"});
  }
  // A job whose rank is connected.
  LinkId serve(std::uint64_t job, const std::string& model = "kjv") {
    open(job, model);
    const LinkId link = opened.back().link;
    tell(LinkConnected{link});
    return link;
  }
  void start(std::uint64_t request, const std::string& model = "kjv") {
    wire::Generate generate;
    generate.prompt = "prompt " + std::to_string(request);
    tell(StartRequest{RequestId{request}, model, generate});
  }
  void answer(LinkId link, std::uint64_t request, const std::string& finish = {}) {
    wire::Generated generated;
    generated.request = request;
    generated.text = "text";
    generated.finish = finish;
    tell(AnswerArrived{link, generated});
  }
  bool quiet() const {
    return opened.empty() && closed.empty() && sent.empty() && given.empty() && failed.empty();
  }

  Instant now{100s};
  GatewayState state{Instant{0s}, kSettings};
  std::vector<OpenLink> opened;
  std::vector<CloseLink> closed;
  std::vector<SendToServer> sent;
  std::vector<Give> given;
  std::vector<Fail> failed;

 private:
  void keep(const OpenLink& effect) { opened.push_back(effect); }
  void keep(const CloseLink& effect) { closed.push_back(effect); }
  void keep(const SendToServer& effect) { sent.push_back(effect); }
  void keep(const Give& effect) { given.push_back(effect); }
  void keep(const Fail& effect) { failed.push_back(effect); }
};

TEST_CASE("gateway: a request is sent to the model's rank and its pieces are given in order") {
  Driver it;
  const LinkId link = it.serve(1);
  it.start(7);
  REQUIRE(it.sent.size() == 1);
  CHECK(it.sent[0].link == link);
  const auto& generate = std::get<wire::Generate>(it.sent[0].message);
  CHECK(generate.request == 7);
  CHECK(generate.prompt == "prompt 7");
  it.answer(link, 7);
  CHECK(it.given.size() == 1);
  it.answer(link, 7, "stop");
  CHECK(it.given.size() == 1);
  CHECK(it.state.open_requests() == 0);
  it.answer(link, 7);  // nothing follows the end
  CHECK(it.quiet());
  CHECK(it.state.counters().stray_answers == 1);
  CHECK_FALSE(it.state.next_due());
}

TEST_CASE("gateway: a model that nobody serves is an error at once, but not right after a start") {
  Driver it;
  it.start(1, "other");
  REQUIRE(it.failed.size() == 1);
  CHECK(it.failed[0].error.code == ErrorCode::not_found);
  Driver young;
  young.now = Instant{1s};
  young.start(1);
  CHECK(young.quiet());
  young.start(2, "other");
  young.serve(3);
  CHECK(young.sent.size() == 1);
  young.wait(5s);
  REQUIRE(young.failed.size() == 1);
  CHECK(young.failed[0].request == RequestId{2});
  CHECK(young.failed[0].error.code == ErrorCode::not_found);
}

TEST_CASE("gateway: a lost connection fails each request that was sent, once") {
  Driver it;
  const LinkId link = it.serve(1);
  it.start(1);
  it.start(2);
  it.answer(link, 1);
  it.tell(LinkLost{link});
  REQUIRE(it.failed.size() == 2);
  for (const Fail& fail : it.failed) CHECK(fail.error.code == ErrorCode::unavailable);
  CHECK(it.sent.empty());
  it.tell(LinkLost{link});
  CHECK(it.quiet());
  it.tell(ServingClosed{JobId{1}});
  CHECK(it.failed.empty());
  CHECK(it.closed == std::vector<CloseLink>{{link}});
  it.answer(link, 1, "stop");
  CHECK(it.quiet());
}

TEST_CASE("gateway: a job that stops serving fails its requests and leaves the others") {
  Driver it;
  const LinkId one = it.serve(1);
  const LinkId two = it.serve(2);
  it.start(1);
  it.start(2);  // to the one with fewer
  CHECK(it.sent[0].link == two);
  it.tell(ServingClosed{JobId{1}});
  REQUIRE(it.failed.size() == 1);
  CHECK(it.failed[0].request == RequestId{1});
  it.answer(two, 2, "length");
  CHECK(it.given.size() == 1);
  CHECK(one != two);
}

TEST_CASE("gateway: a rank whose successor serves finishes what is open, and gets nothing new") {
  Driver it;
  const LinkId old = it.serve(1);
  it.start(1);
  it.start(2);
  it.tell(ServingOpened{JobId{1}, "kjv", "tcp://successor", "key"});
  CHECK(it.failed.empty());
  REQUIRE(it.opened.size() == 1);
  const LinkId next = it.opened[0].link;
  it.start(3);  // the successor is not connected yet
  CHECK(it.quiet());
  it.tell(LinkConnected{next});
  REQUIRE(it.sent.size() == 1);
  CHECK(it.sent[0].link == next);
  it.answer(old, 1, "stop");
  CHECK(it.given.size() == 1);
  CHECK(it.closed.empty());
  it.answer(old, 2, "length");
  CHECK(it.given.size() == 1);
  REQUIRE(it.closed.size() == 1);
  CHECK(it.closed[0].link == old);
  it.tell(LinkLost{old});  // nothing of it is left
  CHECK(it.quiet());
  CHECK(it.state.links() == 1);
}

TEST_CASE("gateway: what a replaced rank did not finish before its end is an error each") {
  Driver it;
  const LinkId old = it.serve(1);
  it.start(1);
  it.start(2);
  it.tell(ServingOpened{JobId{1}, "kjv", "tcp://successor", "key"});
  const LinkId next = it.opened[0].link;
  it.tell(LinkLost{old});
  REQUIRE(it.failed.size() == 2);
  CHECK(it.failed[0].error.code == ErrorCode::unavailable);
  CHECK(it.closed.size() == 1);
  CHECK(it.state.open_requests() == 0);
  // The end of the job ends a link that only finishes, too.
  it.tell(LinkConnected{next});
  it.start(3);
  it.tell(ServingOpened{JobId{1}, "kjv", "tcp://third", "key"});
  it.tell(ServingClosed{JobId{1}});
  CHECK(it.failed.size() == 1);
  CHECK(it.closed.size() == 2);
  CHECK(it.state.links() == 0);
}

TEST_CASE("gateway: requests wait for a rank that is being replaced, and are sent to the new one") {
  Driver it;
  it.serve(1);
  it.tell(ServingClosed{JobId{1}});
  CHECK(it.state.models().empty());
  it.start(1);
  it.start(2);
  CHECK(it.quiet());
  it.tell(CancelRequest{RequestId{2}});
  CHECK(it.quiet());
  it.wait(1s);
  it.open(1);
  REQUIRE(it.opened.size() == 1);
  const LinkId link = it.opened[0].link;
  it.tell(LinkConnected{link});
  REQUIRE(it.sent.size() == 1);
  CHECK(std::get<wire::Generate>(it.sent[0].message).prompt == "prompt 1");
  it.answer(link, 1, "stop");
  CHECK(it.given.size() == 1);
}

TEST_CASE("gateway: nobody waits longer than the limits") {
  Driver it;
  const LinkId link = it.serve(1);
  SECTION("for a rank") {
    it.tell(ServingClosed{JobId{1}});
    it.start(1);
    CHECK(it.state.next_due() == it.now + 10s);
    it.wait(9s);
    CHECK(it.quiet());
    it.wait(1s);
    REQUIRE(it.failed.size() == 1);
    CHECK(it.failed[0].error.code == ErrorCode::unavailable);
    it.wait(60s);  // by now it is not expected back
    it.start(2);
    REQUIRE(it.failed.size() == 1);
    CHECK(it.failed[0].error.code == ErrorCode::not_found);
  }
  SECTION("for the next piece") {
    it.start(1);
    it.wait(59s);
    it.answer(link, 1);
    it.wait(59s);
    CHECK(it.quiet());
    it.wait(1s);
    REQUIRE(it.failed.size() == 1);
    CHECK(it.failed[0].error.code == ErrorCode::deadline_exceeded);
    REQUIRE(it.sent.size() == 1);
    CHECK(std::get<wire::CancelGenerate>(it.sent[0].message).request == 1);
  }
  CHECK(it.state.open_requests() == 0);
  CHECK_FALSE(it.state.next_due());
}

TEST_CASE("gateway: a client that goes cancels its request and hears nothing more") {
  Driver it;
  const LinkId link = it.serve(1);
  it.start(1);
  it.tell(CancelRequest{RequestId{1}});
  REQUIRE(it.sent.size() == 1);
  CHECK(std::get<wire::CancelGenerate>(it.sent[0].message).request == 1);
  CHECK(it.failed.empty());
  it.answer(link, 1, "cancelled");
  CHECK(it.quiet());
  it.tell(CancelRequest{RequestId{1}});
  CHECK(it.quiet());
  CHECK(it.state.counters().cancelled == 1);
}

TEST_CASE("gateway: beyond the limit of open requests the answer is: too many") {
  Driver it;
  const LinkId link = it.serve(1);
  for (std::uint64_t id = 1; id <= 3; ++id) it.start(id);
  it.start(4);
  REQUIRE(it.failed.size() == 1);
  CHECK(it.failed[0].error.code == ErrorCode::exhausted);
  it.answer(link, 2, "stop");
  it.start(5);
  CHECK(it.sent.size() == 1);
  it.tell(ServingClosed{JobId{1}});
  for (std::uint64_t id = 6; id <= 9; ++id) it.start(id);  // wait for the model
  REQUIRE(it.failed.size() == 1);
  CHECK(it.failed[0].request == RequestId{9});
  CHECK(it.failed[0].error.code == ErrorCode::exhausted);
}

TEST_CASE("gateway: errors of the rank reach the client with their code") {
  Driver it;
  const LinkId link = it.serve(1);
  it.start(1);
  it.tell(AnswerArrived{link,
                        {.request = 1,
                         .text = {},
                         .tokens = {},
                         .chosen = {},
                         .finish = "error",
                         .error = "too long",
                         .error_code = "invalid_argument"}});
  CHECK(it.failed == std::vector<Fail>{{RequestId{1}, {ErrorCode::invalid_argument, "too long"}}});
  it.start(2);
  it.tell(SendRefused{RequestId{2}, {ErrorCode::exhausted, "the queue is full"}});
  CHECK(it.failed.size() == 1);
  it.start(3);
  it.answer(link, 3, "cancelled");  // by the rank, unasked
  REQUIRE(it.failed.size() == 1);
  CHECK(it.failed[0].error.code == ErrorCode::aborted);
}

TEST_CASE("gateway: a job that serves elsewhere gets a new link, the same news again does not") {
  Driver it;
  const LinkId old = it.serve(1);
  it.open(1);
  CHECK(it.quiet());
  it.tell(ServingOpened{JobId{1}, "kjv", "tcp://127.0.0.1:999", "key"});
  CHECK(it.closed == std::vector<CloseLink>{{old}});  // nothing is open there
  CHECK(it.opened.size() == 1);
  CHECK(it.state.links() == 1);
  it.tell(LinkConnected{old});
  CHECK(it.quiet());
}

}  // namespace
}  // namespace tutti::gateway
