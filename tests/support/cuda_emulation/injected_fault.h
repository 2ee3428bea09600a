// A device that fails in the middle of a job, as a test says.
//
// TUTTI_EMULATION_FAULT_AT names a file that holds a word and a number n: the n-th launch of a
// kernel with the word in its name does not run, and the device has failed from there on. Whoever
// meets it first takes the file away, so that of all processes of a cluster one fails, once; the
// test writes another one for its next job. With a third word, `hangs`, the launch never ends.
#pragma once

#include <string>

namespace tutti::emulation {

// Of a launch that is about to run: what the device says of its end; empty: it runs.
std::string injected_fault(const char* kernel);

}  // namespace tutti::emulation
