// SHA-256 (FIPS 180-4), for what is kept as a hash only: tokens; and HMAC (RFC 2104), by which one
// who knows a secret proves it without showing it.
//
// Not for passwords: a secret that people choose needs a slow hash; ours are random and long.
#pragma once

#include <string>
#include <string_view>

namespace tutti {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

std::string hmac_sha256_hex(std::string_view key, std::string_view message);

}  // namespace tutti
