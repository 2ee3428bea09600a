// A test that cannot run on this machine says so, and counts as skipped, not as passed.
//
//   if (!disk.mounted()) return test::skip("no right to mount a small disk");
//
// A binary whose test cases were all skipped ends with 77, which ctest shows as skipped. Each
// reason is a line in the file that $TUTTI_SKIPPED names, which ops/test shows at its end.
#pragma once

#include <string_view>

namespace tutti::test {

// The test case that runs now does nothing here; it returns at once.
void skip(std::string_view why);
// One part of it is left out; the rest is tested.
void skip_part(std::string_view what);

}  // namespace tutti::test
