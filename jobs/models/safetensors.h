// Files of named tensors in the safetensors format: an 8-byte header length, a JSON header, then
// the bytes.
//
// Reading maps the file and trusts nothing in it: lengths, offsets and shapes are checked against
// the file's size before the first byte is used. A model of several files has
// `model.safetensors.index.json`, which says where each tensor is. Writing streams: the header is
// fixed by the tensors declared up front, then each tensor's bytes follow in that order, so that a
// file larger than memory, or with only some of a model's tensors, can be written.
//
// Ownership: a reader owns its mappings. Threads: reading from any thread; a writer from one at a
// time. Errors: corrupt (bytes that do not check; the message names file and tensor), not_found
// (file, tensor), invalid_argument (another shape than asked for, both named), unsupported (dtype),
// exhausted (disk full).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::models {

// `u8`: bytes that mean something to who wrote them. `f8_e4m3`, `f8_e5m2`, `i32`: codes of weights,
// which mean something with other tensors beside them (stored/stored_matrix.h). `other`: a type
// that files may hold (old writers' buffers) and that is never read.
enum class TensorType : std::uint8_t { f32, bf16, f16, u8, f8_e4m3, f8_e5m2, i32, other };

// One tensor in a mapped file. Its bytes need not be aligned.
struct TensorView {
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;

  std::uint64_t elements() const;
};

// The longest header that is read: far above any real model's, far below what could exhaust memory.
inline constexpr std::uint64_t kSafetensorsHeaderBytesMax = std::uint64_t{100} << 20;

class SafetensorsReader {
 public:
  // One file.
  static Result<SafetensorsReader> open(const std::filesystem::path& file);
  // A model directory: `model.safetensors`, or the files named by `model.safetensors.index.json`.
  static Result<SafetensorsReader> open_folder(const std::filesystem::path& folder);

  SafetensorsReader(SafetensorsReader&&) noexcept;
  SafetensorsReader& operator=(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();

  std::vector<std::string> names() const;  // ascending
  const TensorView* find(std::string_view name) const;

  // Copies a tensor of f32, bf16 or f16, widened to fp32. `out` has as many elements as `shape`;
  // nothing is written on error.
  Result<> read(std::string_view name, std::span<const std::uint64_t> shape,
                std::span<float> out) const;

  // Copies a tensor of bytes, as long as `out`; nothing is written on error.
  Result<> read_bytes(std::string_view name, std::span<std::byte> out) const;

  // The `__metadata__` of the (first) file.
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Impl;
  explicit SafetensorsReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct TensorDeclaration {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> shape;

  std::uint64_t bytes() const;
};

// Writes one new file. The metadata that Transformers asks for is the default. Not atomic by
// itself: the caller writes under a private name and renames after finish().
class SafetensorsWriter {
 public:
  // Creates the file (already_exists if it is there) and writes the header.
  static Result<SafetensorsWriter> create(const std::filesystem::path& file,
                                          std::span<const TensorDeclaration> tensors,
                                          const std::map<std::string, std::string>& metadata = {
                                              {"format", "pt"}});

  // The next bytes of the tensors, in the order declared; pieces may be cut anywhere.
  Result<> append(std::span<const std::byte> bytes);
  Result<> append(std::span<const float> values);

  // All bytes are there (else internal): synced to disk, closed; the size of the file in bytes.
  Result<std::uint64_t> finish();

 private:
  SafetensorsWriter(FileDescriptor file, std::filesystem::path path, std::uint64_t header_bytes,
                    std::uint64_t data_bytes);
  FileDescriptor file_;
  std::filesystem::path path_;
  std::uint64_t written_ = 0;
  std::uint64_t expected_ = 0;
};

// The text of `model.safetensors.index.json`: which file holds which tensor, and the bytes of all.
std::string to_index_json(const std::map<std::string, std::string>& file_of_tensor,
                          std::uint64_t tensor_bytes);

std::string_view to_string(TensorType type);                  // as in files: "F32"
std::string to_string(std::span<const std::uint64_t> shape);  // "[2048, 192]"

}  // namespace tutti::models
