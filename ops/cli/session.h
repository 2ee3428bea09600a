// One invocation of `tutti`: how to write its output, and how its end is told to the shell.
#pragma once

#include <string>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti::cli {

// Exit codes are a contract that scripts rely on.
enum ExitCode : int {
  kDone = 0,
  kJobFailed = 1,       // by its own fault
  kUsage = 2,           // a wrong argument, a bad spec, no such job
  kInfrastructure = 3,  // unreachable, out of time
  kOwnError = 4,        // Tutti's own, or bits that differ
  kRefused = 5,         // no permission, no room
};

ExitCode exit_code_of(ErrorCode code);

enum class OutputForm { text, json };

struct Session {
  OutputForm output = OutputForm::text;
  bool out_is_terminal = false;
  bool err_is_terminal = false;

  bool json() const { return output == OutputForm::json; }
};

// Writes all of it to standard output at once; a reader that went away ends the program quietly.
void print(std::string_view text);

// `tutti: message` on standard error, and the exit code for it.
int fail(const Error& error);
int fail(ExitCode code, std::string_view message);

}  // namespace tutti::cli
