// CURVE key pairs: made on first start, kept in a file of mode 0600.
#pragma once

#include <filesystem>
#include <string>

#include "protocol/base/result.h"

namespace tutti::transport {

// Both as Z85 text of 40 characters.
struct KeyPair {
  std::string public_key;
  std::string secret_key;

  bool operator==(const KeyPair&) const = default;
};

KeyPair make_keys();

// The pair kept in `file` ("public\nsecret\n"), which is made if it is not there. Errors: those of
// the file; permission_denied if others may read it; corrupt if it holds no pair of keys.
Result<KeyPair> load_or_make_keys(const std::filesystem::path& file);

}  // namespace tutti::transport
