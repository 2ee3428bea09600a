// What went wrong, as a value: a code that programs decide by and a message that a person can act
// on.
//
// Expected failures are values of this type; broken invariants abort (assert.h); exceptions stop in
// the file that met them. A message is one line, says what was found and what to do about it, and
// names the file, key or peer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace tutti {

enum class ErrorCode : std::uint8_t {
  invalid_argument,   // the caller's input is wrong: a spec, a flag, a shape
  not_found,          // no such job, file, key, tensor
  already_exists,     // taken: an id, a key with another spec, a locked folder
  permission_denied,  // no token, wrong role, unreadable file
  exhausted,          // a limit was reached: queue full, disk full, memory
  unavailable,        // cannot be reached now; trying again may help
  deadline_exceeded,  // it took longer than its limit
  aborted,            // ended from outside: cancel, abort of a group
  stale,              // from an older generation or session
  corrupt,            // bytes that do not check: frame, checkpoint, journal
  unsupported,        // valid, but this build or machine cannot
  internal,           // Tutti's own error
};

struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;

  bool operator==(const Error&) const = default;

  // The same error with `context: ` before its message.
  Error with_context(std::string_view context) && {
    message.insert(0, ": ").insert(0, context);
    return std::move(*this);
  }
};

// The code's name, as in logs and the API ("invalid_argument").
std::string_view to_string(ErrorCode code);

// Error with the text of an errno value behind the message: "cannot open x: No such file or
// directory".
Error errno_error(std::string_view message, int error_number);

}  // namespace tutti
