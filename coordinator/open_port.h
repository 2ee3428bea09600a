// Which port to listen on: the one that was asked for, else the one used before, else any.
//
// Clients and workers of a restarted coordinator find it where it was. A port that was used before
// and is taken by somebody else now is given up, with a warning; one that was asked for is not.
#pragma once

#include <cstdint>

#include "protocol/base/error.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

struct PortChoice {
  std::uint16_t wanted = 0;  // 0: not said
  std::uint16_t before = 0;  // 0: none
};

// open(port) gives a Result; already_exists means that the port is taken.
template <class Open>
auto open_port(PortChoice choice, Open open) {
  auto opened = open(choice.wanted != 0 ? choice.wanted : choice.before);
  if (!opened && choice.wanted == 0 && choice.before != 0 &&
      opened.error().code == ErrorCode::already_exists) {
    TUTTI_LOG_WARNING("coordinator",
                      "port {} was used before and is taken now; another one is chosen",
                      choice.before);
    opened = open(std::uint16_t{0});
  }
  return opened;
}

}  // namespace tutti::coordinator
