// The table of message kinds: one stable number per message type, on whatever link it travels.
//
// A frame's `kind` is looked up here and never is a variant's index, so that peers of different
// versions agree. To add a message: one row with a number that was never used before, and the type
// in its link's variant.
#pragma once

#include <cstdint>

#include "protocol/wire/rank_messages.h"
#include "protocol/wire/serve_messages.h"
#include "protocol/wire/worker_messages.h"

namespace tutti::wire {

template <class Message, std::uint16_t Number>
struct Kind {};

template <class... Rows>
struct KindTable {};

using Kinds = KindTable<
    // The worker's link itself.
    Kind<Hello, 1>, Kind<Welcome, 2>, Kind<Refused, 3>, Kind<Heartbeat, 4>,
    Kind<HeartbeatAnswered, 5>, Kind<OrdersAcked, 6>, Kind<ReportsAcked, 7>, Kind<SpoolData, 8>,
    Kind<SpoolAcked, 9>,
    // Orders.
    Kind<StartRank, 20>, Kind<Regroup, 21>, Kind<FormGroup, 22>, Kind<AbortGeneration, 23>,
    Kind<StopRank, 24>, Kind<CommitCheckpoint, 25>, Kind<SetFlags, 26>, Kind<SignalRank, 27>,
    Kind<BreakWorker, 28>,
    // Reports.
    Kind<RankStarted, 40>, Kind<RankReady, 41>, Kind<GroupFormed, 42>, Kind<GenerationBroken, 43>,
    Kind<FirstStepDone, 44>, Kind<CheckpointPart, 45>, Kind<CheckpointCommitted, 46>,
    Kind<RankFinished, 47>, Kind<RankExited, 48>, Kind<StepReported, 49>, Kind<RankProgress, 50>,
    Kind<WorkerLeaving, 51>,
    // Serving.
    Kind<Generate, 60>, Kind<CancelGenerate, 61>, Kind<Generated, 62>>;

namespace detail {

template <class Message, class Other, std::uint16_t Number>
consteval std::uint16_t number_if_same(Kind<Other, Number>) {
  return std::is_same_v<Message, Other> ? Number : std::uint16_t{0};
}

template <class Message, class... Rows>
consteval std::uint16_t find_kind(KindTable<Rows...>) {
  return static_cast<std::uint16_t>((0 + ... + number_if_same<Message>(Rows{})));
}

template <class Message, std::uint16_t Number>
consteval std::uint16_t number_of(Kind<Message, Number>) {
  return Number;
}

template <class... Rows>
consteval bool numbers_differ(KindTable<Rows...>) {
  const std::uint16_t numbers[] = {number_of(Rows{})...};
  for (std::size_t i = 0; i < sizeof...(Rows); ++i) {
    if (numbers[i] == 0) return false;
    for (std::size_t j = 0; j < i; ++j) {
      if (numbers[i] == numbers[j]) return false;
    }
  }
  return true;
}

}  // namespace detail

static_assert(detail::numbers_differ(Kinds{}), "a kind number is zero or used twice");

// The message's number; a message without a row is a compile error.
template <class Message>
consteval std::uint16_t kind_of() {
  constexpr std::uint16_t number = detail::find_kind<Message>(Kinds{});
  static_assert(number != 0, "the message has no row in Kinds");
  return number;
}

}  // namespace tutti::wire
