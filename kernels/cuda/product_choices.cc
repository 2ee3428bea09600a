#include "kernels/cuda/product_choices.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>

#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/log.h"
#include "protocol/base/sha256.h"

namespace tutti::kernels::cuda {

namespace {

// A choice takes well under a millisecond; then goes the next in line.
constexpr Duration kLockWithin = std::chrono::seconds(5);
constexpr Duration kBetweenTries = std::chrono::milliseconds(1);
constexpr std::uint64_t kFileBytesMax = 16 << 20;
constexpr std::size_t kHashDigits = 8;

// Held until the descriptor is closed. None, if it could not be had in time: two ranks that start
// together may then choose otherwise, and are refused as a group.
FileDescriptor lock(const std::filesystem::path& file) {
  const std::string path = file.string() + ".lock";
  FileDescriptor held(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  const Instant until = monotonic_now() + kLockWithin;
  while (held && ::flock(held.get(), LOCK_EX | LOCK_NB) != 0) {
    if (monotonic_now() > until) return {};
    std::this_thread::sleep_for(kBetweenTries);
  }
  return held;
}

using Entry = std::pair<ProductChoices::Key, cublasLtMatmulAlgo_t>;

bool is_alignment(std::uint32_t bytes) {
  return bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
}

std::optional<Entry> read_line(const std::string& line) {
  std::istringstream words(line);
  int form = 0;
  int inputs = 0;
  Index n = 0;
  Index k = 0;
  ProductAlignments lie;
  cublasLtMatmulAlgo_t algorithm;
  words >> form >> inputs >> n >> k >> lie.left >> lie.right >> lie.output >> std::hex;
  for (auto& word : algorithm.data) {
    std::uint64_t value = 0;
    words >> value;
    word = value;
  }
  const bool lies = is_alignment(lie.left) && is_alignment(lie.right) && is_alignment(lie.output);
  const bool read = !words.fail() && (words >> std::ws).eof() && lies;
  if (!read || form < 0 || form > 2 || inputs < 0 || inputs >= kProductInputs || n < 1 || k < 1)
    return std::nullopt;
  return Entry{{static_cast<ProductForm>(form), static_cast<ProductInputs>(inputs), n, k, lie},
               algorithm};
}

}  // namespace

ProductChoices::ProductChoices(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  if (!error) return;
  TUTTI_LOG_WARNING("cuda", "choices of product algorithms are not kept: {}: {}", file_.string(),
                    error.message());
  file_.clear();
}

Result<cublasLtMatmulAlgo_t> ProductChoices::take(const Key& key, const Choose& choose) {
  if (const auto found = used_.find(key); found != used_.end()) return found->second;
  if (const auto found = adopted_.find(key); found != adopted_.end()) return use(*found);
  FileDescriptor guard;
  if (!file_.empty() && !stored_.contains(key)) {
    guard = lock(file_);
    read_stored();
  }
  if (const auto found = stored_.find(key); found != stored_.end()) return use(*found);
  auto chosen = choose();
  if (!chosen) return chosen;
  stored_.emplace(key, *chosen);
  if (!file_.empty()) write_stored();
  return use({key, *chosen});
}

Result<> ProductChoices::adopt(const std::string& table) {
  Table adopted;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    const auto entry = read_line(line);
    if (!entry) return Error{ErrorCode::corrupt, "not a choice of a product algorithm: " + line};
    adopted.insert(*entry);
  }
  adopted_ = std::move(adopted);
  used_.clear();
  hash_.clear();
  return {};
}

// Every step asks for the hash, and a new choice is rare.
cublasLtMatmulAlgo_t ProductChoices::use(const Table::value_type& choice) {
  used_.insert(choice);
  hash_ = sha256_hex(used()).substr(0, kHashDigits);
  return choice.second;
}

std::string ProductChoices::text_of(const Table& table) {
  std::string text;
  for (const auto& [key, algorithm] : table) {
    const auto& [form, inputs, n, k, lie] = key;
    text += fmt::format("{} {} {} {} {} {} {}", static_cast<int>(form), static_cast<int>(inputs), n,
                        k, lie.left, lie.right, lie.output);
    for (const auto word : algorithm.data) text += fmt::format(" {:x}", word);
    text += '\n';
  }
  return text;
}

// A line that is none is left out, and gone with the next choice that is stored.
void ProductChoices::read_stored() {
  std::error_code ignored;
  if (!std::filesystem::exists(file_, ignored)) return;
  const auto text = tutti::read_file(file_, kFileBytesMax);
  if (!text) {
    TUTTI_LOG_WARNING("cuda", "choices of product algorithms: {}", text.error().message);
    return;
  }
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (const auto entry = read_line(line)) {
      stored_.insert(*entry);
    } else {
      TUTTI_LOG_WARNING("cuda", "{}: not a choice: {}", file_.string(), line);
    }
  }
}

void ProductChoices::write_stored() const {
  const auto written = write_file_atomically(file_, text_of(stored_));
  if (!written) {
    TUTTI_LOG_WARNING("cuda", "choices of product algorithms are not kept: {}",
                      written.error().message);
  }
}

}  // namespace tutti::kernels::cuda
