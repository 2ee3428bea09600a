#include "protocol/actor/spawn.h"

#include <cstdlib>

#include "protocol/base/log.h"

namespace tutti::actor {

void escaped_exception(std::exception_ptr exception) {
  try {
    std::rethrow_exception(std::move(exception));
  } catch (const std::exception& escaped) {
    TUTTI_LOG_ERROR("actor", "broken invariant: an exception escaped a coroutine: {}",
                    escaped.what());
  } catch (...) {
    TUTTI_LOG_ERROR("actor", "broken invariant: an exception escaped a coroutine");
  }
  std::abort();
}

}  // namespace tutti::actor
