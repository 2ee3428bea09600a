// From a coroutine to an actor and back: run something on the actor's strand, go on here with what
// it gave.
//
// A lambda that captures more than pointers and numbers is made in a variable first, and is moved
// from: gcc 12 destroys such temporaries of a co_await expression twice, so they do not compile.
//
// Heavy: include from .cc files only.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include "protocol/actor/actor_host.h"
#include "protocol/base/result.h"

namespace tutti::api {

// Whether gcc 12 may be given this, by its deduced type, inside a co_await expression.
template <class Deduced>
inline constexpr bool kOutlivesAwait =
    std::is_lvalue_reference_v<Deduced> || std::is_trivially_destructible_v<Deduced>;

// Calls begin(reply) on the host's strand; the coroutine goes on, on its own executor, once
// reply(T) is called, from any thread, once. A host that does not take the message gives its error.
// T must be made by Error, too (Result<...>).
template <class T, class Begin>
boost::asio::awaitable<T> ask_later(actor::ActorHost& host, Begin&& begin) {
  static_assert(kOutlivesAwait<Begin>, "make it in a variable first");
  namespace asio = boost::asio;
  return asio::async_initiate<const asio::use_awaitable_t<>, void(T)>(
      [&host](auto handler, std::remove_cvref_t<Begin> start) {
        // std::function wants copies; the handler is moved out by the one call that is made.
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        auto executor = asio::get_associated_executor(*shared);
        // Both ways without a wake-up: the coroutine waits from here on, and whoever replies has
        // said what others wait for.
        auto reply = [shared, executor](T value) {
          asio::defer(executor, [shared, moved = std::make_shared<T>(std::move(value))]() mutable {
            std::move (*shared)(std::move(*moved));
          });
        };
        const Result<> told =
            host.tell_last([start = std::move(start), reply]() mutable { start(reply); });
        if (!told) reply(T(told.error()));
      },
      asio::use_awaitable, std::move(begin));
}

// The same for what can be answered at once: T question().
template <class T, class Question>
boost::asio::awaitable<T> ask(actor::ActorHost& host, Question&& question) {
  static_assert(kOutlivesAwait<Question>, "make it in a variable first");
  auto begin = [question = std::move(question)](auto reply) mutable { reply(question()); };
  return ask_later<T>(host, begin);
}

}  // namespace tutti::api
