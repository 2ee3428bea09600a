#include "coordinator/api/long_poll.h"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <memory>

namespace tutti::api {

namespace asio = boost::asio;

asio::awaitable<void> wait_for_news(coordinator::Notices& notices, JobId topic, std::uint64_t seen,
                                    Instant until) {
  const auto executor = co_await asio::this_coro::executor;
  const auto timer = std::make_shared<asio::steady_timer>(executor);
  timer->expires_after(std::max(Duration::zero(), until - monotonic_now()));
  // The cancellation is posted to this coroutine's executor, so that it comes after the wait has
  // begun.
  const auto ticket = notices.wait_beyond(
      topic, seen, [timer, executor] { asio::post(executor, [timer] { timer->cancel(); }); });
  boost::system::error_code ignored;
  co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  if (ticket != 0) notices.cancel(topic, ticket);
}

}  // namespace tutti::api
