// Runs an action on an actor's strand and waits for it: how a test touches what belongs there.
#pragma once

#include <catch2/catch.hpp>

#include <functional>
#include <future>

#include "protocol/actor/actor_host.h"
#include "tests/support/patience.h"

namespace tutti::test {

inline void on_strand(actor::ActorHost& host, const std::function<void()>& action) {
  std::promise<void> done;
  // Actions assert, too, and Catch's assertions are one thread's at a time: none of this thread's
  // is open meanwhile.
  const bool told = host.tell([&] {
                          action();
                          done.set_value();
                        })
                        .ok();
  const bool acted = told && done.get_future().wait_for(patient(std::chrono::seconds(20))) ==
                                 std::future_status::ready;
  REQUIRE(acted);
}

}  // namespace tutti::test
