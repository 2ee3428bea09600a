#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"
#include "worker/agent/rank_devices.h"

using namespace tutti;
using namespace tutti::worker;

namespace {

std::filesystem::path script(const test::TemporaryFolder& folder, const std::string& text) {
  const auto path = folder.path() / "rank";
  std::ofstream(path) << "#!/bin/sh\n" << text;
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

}  // namespace

TEST_CASE("rank devices: a binary's answer is taken, whatever its libraries print before it") {
  const test::TemporaryFolder folder;
  const auto binary =
      script(folder,
             "[ \"$1\" = devices ] && echo 'a library says hello' && echo '{\"profiles\":[\"p\"],"
             "\"stack\":\"CUDA 13.0\",\"devices\":[{\"uuid\":\"GPU-1\",\"name\":\"H100\","
             "\"memory_bytes\":80}]}'\n");
  const auto found = ask_rank_devices(binary, {"PATH=/bin"}, std::chrono::seconds(20));
  REQUIRE(found);
  RankDevices expected{.profiles = {"p"},
                       .stack = "CUDA 13.0",
                       .exchange = {},  // that of an earlier version does not say it
                       .devices = {{"GPU-1", "H100", 80}}};
  CHECK(*found == expected);
  const auto newer =
      parse_rank_devices(R"({"profiles":["p"],"stack":"CUDA 13.0","exchange":"nccl-2.27.3",)"
                         R"("devices":[{"uuid":"GPU-1","name":"H100","memory_bytes":80}]})");
  expected.exchange = "nccl-2.27.3";
  REQUIRE(newer);
  CHECK(*newer == expected);
}

TEST_CASE("rank devices: a problem is its line; silence and nonsense are errors of their own") {
  const auto problem = parse_rank_devices("{\"problem\":\"no NVIDIA driver is loaded\"}\n");
  REQUIRE_FALSE(problem);
  CHECK(problem.error() == Error{ErrorCode::unsupported, "no NVIDIA driver is loaded"});
  for (const char* text : {"", "{", "[]", "{}", "{\"profiles\":7}"}) {
    CHECK(parse_rank_devices(text).error().code == ErrorCode::corrupt);
  }
  const test::TemporaryFolder folder;
  const auto mute = script(folder, "exec sleep 60\n");
  const auto late = ask_rank_devices(mute, {"PATH=/bin"}, std::chrono::milliseconds(20));
  REQUIRE_FALSE(late);
  CHECK(late.error().code == ErrorCode::deadline_exceeded);
  CHECK_FALSE(ask_rank_devices("/nowhere/tutti-rank", {}, std::chrono::seconds(1)));
}

TEST_CASE(
    "rank devices: of a binary that cannot be loaded, or breaks, the last line is the reason") {
  const test::TemporaryFolder folder;
  const auto reason = [&](const std::string& text) {
    const auto found =
        ask_rank_devices(script(folder, text), {"PATH=/bin"}, std::chrono::seconds(20));
    REQUIRE_FALSE(found);
    return found.error();
  };
  const std::string loader =
      "tutti-rank-cuda: error while loading shared libraries: libnccl.so.2: cannot open shared "
      "object file: No such file or directory";
  CHECK(reason("echo '" + loader + "' >&2\nexit 127\n") == Error{ErrorCode::unsupported, loader});
  CHECK(reason("echo begins\necho 'it broke' >&2\nexit 1\n") ==
        Error{ErrorCode::corrupt, "it broke"});
  CHECK(reason("exit 1\n").code == ErrorCode::corrupt);
}
