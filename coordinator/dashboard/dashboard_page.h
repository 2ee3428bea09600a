// The dashboard as one page with its style and script in it: the files of ops/dashboard, put
// together by the build. "NONCE" stands where each answer has a nonce of its own.
#pragma once

#include <string_view>

namespace tutti::dashboard {

extern const std::string_view kPage;

}  // namespace tutti::dashboard
