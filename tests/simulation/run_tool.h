// `simulate`, which is built beside the test, in a process of its own.
#pragma once

#include <catch2/catch.hpp>

#include <cstdio>
#include <filesystem>
#include <string>

namespace tutti::simulation {

struct ToolRun {
  bool held = false;  // it ended with 0
  std::string out;    // both streams
};

// With these words behind its name, and before it what its environment has besides.
inline ToolRun run_tool(const std::string& words, const std::string& environment = "") {
  const auto tool = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "simulate";
  const std::string command = environment + " '" + tool.string() + "' " + words + " 2>&1";
  std::FILE* run = ::popen(command.c_str(), "r");
  REQUIRE(run != nullptr);
  ToolRun out;
  for (int c = std::fgetc(run); c != EOF; c = std::fgetc(run)) out.out += static_cast<char>(c);
  out.held = ::pclose(run) == 0;
  return out;
}

}  // namespace tutti::simulation
