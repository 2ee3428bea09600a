// The keys that a rotation replaced, kept while they are good beside the new ones: a coordinator
// that starts anew in the overlap listens with both again.
//
// Errors: those of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "protocol/transport/keys.h"

namespace tutti::coordinator {

struct ReplacedKeys {
  transport::KeyPair keys;
  std::uint16_t control_port = 0;  // where they are good
  WallTime until;
  Duration overlap{0};  // as it was asked for

  bool operator==(const ReplacedKeys&) const = default;
};

// Nothing if there is no such file, and, with a warning, if it says something else or others may
// read it.
std::optional<ReplacedKeys> read_replaced_keys(const std::filesystem::path& file);
Result<> write_replaced_keys(const std::filesystem::path& file, const ReplacedKeys& replaced);

}  // namespace tutti::coordinator
