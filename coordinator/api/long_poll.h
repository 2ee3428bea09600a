// Waiting for news of a job, from a coroutine. Heavy: include from .cc files only.
#pragma once

#include <boost/asio/awaitable.hpp>

#include <cstdint>

#include "coordinator/store/notices.h"
#include "protocol/base/clock.h"
#include "protocol/base/ids.h"

namespace tutti::api {

// Returns once there is news beyond version `seen`, or at `until`.
boost::asio::awaitable<void> wait_for_news(coordinator::Notices& notices, JobId topic,
                                           std::uint64_t seen, Instant until);

}  // namespace tutti::api
