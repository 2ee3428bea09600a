#include "protocol/base/error.h"

#include <cerrno>
#include <system_error>

namespace tutti {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::already_exists: return "already_exists";
    case ErrorCode::permission_denied: return "permission_denied";
    case ErrorCode::exhausted: return "exhausted";
    case ErrorCode::unavailable: return "unavailable";
    case ErrorCode::deadline_exceeded: return "deadline_exceeded";
    case ErrorCode::aborted: return "aborted";
    case ErrorCode::stale: return "stale";
    case ErrorCode::corrupt: return "corrupt";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

namespace {

ErrorCode code_of(int error_number) {
  switch (error_number) {
    case ENOENT: return ErrorCode::not_found;
    case EEXIST: return ErrorCode::already_exists;
    case EACCES:
    case EPERM:
    case EROFS: return ErrorCode::permission_denied;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE: return ErrorCode::exhausted;
    case EINVAL:
    case EISDIR:
    case ENOTDIR: return ErrorCode::invalid_argument;
    default: return ErrorCode::unavailable;
  }
}

}  // namespace

Error errno_error(std::string_view message, int error_number) {
  return {code_of(error_number),
          std::string(message) + ": " + std::generic_category().message(error_number)};
}

}  // namespace tutti
