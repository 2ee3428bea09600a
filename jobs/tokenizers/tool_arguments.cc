#include "jobs/tokenizers/tool_arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

namespace tutti::tokenizers {
namespace {

template <class Number>
bool take_number(const std::string& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

Error usage(std::string message) { return {ErrorCode::invalid_argument, std::move(message)}; }

}  // namespace

int tool_failed(std::string_view name, std::string_view message) {
  fmt::print(stderr, "tutti {}: {}\n", name, message);
  return kExitUsage;
}

void ToolArguments::option(std::string_view option, std::string& value) {
  known_.push_back({option, [&value](const std::string& text) {
                      value = text;
                      return true;
                    }});
}

void ToolArguments::option(std::string_view option, std::optional<std::string>& value) {
  known_.push_back({option, [&value](const std::string& text) {
                      value = text;
                      return true;
                    }});
}

void ToolArguments::option(std::string_view option, std::vector<std::string>& values) {
  known_.push_back({option, [&values](const std::string& text) {
                      values.push_back(text);
                      return true;
                    }});
}

void ToolArguments::option(std::string_view option, std::uint32_t& value) {
  known_.push_back(
      {option, [&value](const std::string& text) { return take_number(text, value); }});
}

void ToolArguments::option(std::string_view option, std::uint64_t& value) {
  known_.push_back(
      {option, [&value](const std::string& text) { return take_number(text, value); }});
}

void ToolArguments::option(std::string_view option, double& value) {
  known_.push_back(
      {option, [&value](const std::string& text) { return take_number(text, value); }});
}

void ToolArguments::flag(std::string_view option, bool& value) {
  known_.push_back({option, {}, &value});
}

std::optional<int> ToolArguments::parse(std::span<const std::string> args) {
  for (const std::string& arg : args) {
    if (arg == "--help" || arg == "-h") {
      fmt::print("{}", help_);
      return kExitOk;
    }
    if (arg == "--") break;
  }
  const Result<> taken = take_all(args);
  if (taken) return std::nullopt;
  return tool_failed(name_, taken.error().message + "; --help shows the usage");
}

Result<> ToolArguments::take_all(std::span<const std::string> args) {
  bool only_positional = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (!only_positional && arg == "--") {
      only_positional = true;
      continue;
    }
    if (only_positional || arg.size() < 2 || arg[0] != '-') {
      if (positional_ == nullptr) return usage(fmt::format("\"{}\" is too much", arg));
      positional_->push_back(arg);
      continue;
    }
    const std::size_t equals = arg.starts_with("--") ? arg.find('=') : std::string::npos;
    const std::string_view name = std::string_view(arg).substr(0, equals);
    const auto known = std::find_if(known_.begin(), known_.end(),
                                    [&](const Known& each) { return each.option == name; });
    if (known == known_.end()) return usage(fmt::format("unknown option {}", name));
    if (known->flag != nullptr) {
      if (equals != std::string::npos) return usage(fmt::format("{} takes no value", name));
      *known->flag = true;
      continue;
    }
    std::string value;
    if (equals != std::string::npos) {
      value = arg.substr(equals + 1);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return usage(fmt::format("{} needs a value", name));
    }
    if (!known->take(value)) {
      return usage(fmt::format("{} does not take \"{}\"", name, value));
    }
  }
  return {};
}

}  // namespace tutti::tokenizers
