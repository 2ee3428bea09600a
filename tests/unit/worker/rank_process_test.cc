#include "worker/agent/rank_process.h"

#include <catch2/catch.hpp>

#include "tests/support/event_log.h"
#include "tests/support/on_strand.h"

using namespace tutti;
using namespace tutti::worker;

TEST_CASE("rank process: what it left is asked for again, and the thread is free meanwhile") {
  test::EventLog log;
  actor::Runtime runtime(1);
  actor::ActorHost host(runtime);
  runtime.start();
  std::unique_ptr<RankProcess> process;
  int asked = 0;
  test::on_strand(host, [&] {
    auto launched = launch({.command = {"true"},
                            .environment = {"PATH=/bin:/usr/bin"},
                            .folder = {},
                            .linked = false});
    REQUIRE(launched.ok());
    process = std::make_unique<RankProcess>(
        host, *std::move(launched),
        RankProcess::Handlers{.on_frame = [](const std::string&) {},
                              .on_unlinked = [](const Error&) {},
                              .on_output = [](std::string_view) {},
                              .on_dead =
                                  [&] {
                                    log.add("asked");
                                    if (++asked == 1)
                                      static_cast<void>(host.tell([&] { log.add("other work"); }));
                                    return asked == 3;
                                  },
                              .on_exit = [&](ExitStatus) { log.add("ended"); }});
  });
  REQUIRE(log.wait_for(5));
  CHECK(log.lines() == std::vector<std::string>{"asked", "other work", "asked", "asked", "ended"});
  test::on_strand(host, [&] { process.reset(); });
  runtime.stop();
}
