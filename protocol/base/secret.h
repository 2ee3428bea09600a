// Secrets: bytes from the system's random source, and their comparison in constant time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tutti {

// `bytes` random bytes as lower-case hexadecimal (2 characters a byte). Aborts if the system has no
// randomness.
std::string random_hex(std::size_t bytes);

// Whether both are equal; the time taken depends on the length only.
bool equal_secrets(std::string_view a, std::string_view b);

}  // namespace tutti
