#include "ops/cli/rank_tools.h"

#include <catch2/catch.hpp>

#include <filesystem>

namespace tutti::cli {
namespace {

std::string binary_name(const std::vector<std::string>& words) {
  return std::filesystem::path(rank_binary(words)).filename().string();
}

TEST_CASE("rank tools: a GPU is asked for by --device with a space or an equals sign") {
  CHECK(binary_name({"generate", "model", "--device", "gpu"}) == "tutti-rank-cuda");
  CHECK(binary_name({"generate", "model", "--device=gpu"}) == "tutti-rank-cuda");
  CHECK(binary_name({"score", "--device=gpu:1", "model"}) == "tutti-rank-cuda");
}

TEST_CASE("rank tools: without a GPU asked for, the CPU's binary runs") {
  CHECK(binary_name({"generate", "model"}) == "tutti-rank");
  CHECK(binary_name({"generate", "model", "--device=cpu"}) == "tutti-rank");
  CHECK(binary_name({"generate", "model", "--device"}) == "tutti-rank");
  CHECK(binary_name({"generate", "model", "--devices=gpu"}) == "tutti-rank");
  CHECK(binary_name({"generate", "--device=gpu", "--device", "cpu"}) == "tutti-rank");
}

}  // namespace
}  // namespace tutti::cli
