#include "tests/golden/portable.h"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <map>

namespace tutti::test {

namespace {

constexpr const char* kFile = "tests/golden/portable.txt";
constexpr std::size_t kHashDigits = 32;

// Lines "hash name", by name.
std::map<std::string, std::string> read_rows() {
  std::map<std::string, std::string> rows;
  std::ifstream file(kFile);
  std::string line;
  while (std::getline(file, line)) {
    if (line.size() > kHashDigits + 1) {
      rows[line.substr(kHashDigits + 1)] = line.substr(0, kHashDigits);
    }
  }
  return rows;
}

}  // namespace

void Golden::check() const {
  const std::string hash = kernels::to_string(kernels::combine_hashes(hashes_));
  auto rows = read_rows();
  const char* const wish = std::getenv("TUTTI_GOLDEN");
  if (wish != nullptr && std::string(wish) == "write") {
    rows[name_] = hash;
    std::ofstream file(kFile);
    for (const auto& [name, bits] : rows) file << bits << ' ' << name << '\n';
    return;
  }
  INFO("portable profile, " << name_ << ": other bits than " << kFile << " holds");
  REQUIRE(rows[name_] == hash);
}

}  // namespace tutti::test
