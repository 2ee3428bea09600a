// The arguments of an offline tool: `--name value`, `--name=value`, flags, and what stands alone.
//
//   ToolArguments arguments("usage: tutti tokenize ...");
//   arguments.option("--out", out);
//   if (auto done = arguments.parse(args)) return *done;     help shown, or an error printed
//
// Ownership: refers to the variables until parse returns. Errors: printed as one line; exit code 2.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::tokenizers {

inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 2;

// Prints `tutti NAME: message` to standard error; gives the exit code of bad input.
int tool_failed(std::string_view name, std::string_view message);

class ToolArguments {
 public:
  // `help` is printed by --help; its first words after "usage: tutti" name the tool.
  ToolArguments(std::string_view name, std::string_view help) : name_(name), help_(help) {}

  void option(std::string_view option, std::string& value);
  void option(std::string_view option, std::optional<std::string>& value);
  void option(std::string_view option, std::vector<std::string>& values);  // may be repeated
  void option(std::string_view option, std::uint32_t& value);
  void option(std::string_view option, std::uint64_t& value);
  void option(std::string_view option, double& value);
  void flag(std::string_view option, bool& value);
  void positional(std::vector<std::string>& values) { positional_ = &values; }

  // The exit code, if the tool is to end here.
  std::optional<int> parse(std::span<const std::string> args);

 private:
  // Takes a value; says whether it is one.
  using Take = std::function<bool(const std::string&)>;
  struct Known {
    std::string_view option;
    Take take;
    bool* flag = nullptr;
  };

  Result<> take_all(std::span<const std::string> args);

  std::string_view name_;
  std::string_view help_;
  std::vector<Known> known_;
  std::vector<std::string>* positional_ = nullptr;
};

}  // namespace tutti::tokenizers
