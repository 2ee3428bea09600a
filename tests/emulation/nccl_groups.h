// Whether run_ranks of this binary hands out groups over the emulated NCCL, as the suite wants
// them, or plain ones, for cases that make the NCCL group themselves.
#pragma once

namespace tutti::test {

enum class Wrapping { over_nccl, none };
void set_wrapping(Wrapping next);

}  // namespace tutti::test
