#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

#include "jobs/models/safetensors.h"

namespace tutti::models {

namespace json = boost::json;

namespace {

// The header of the file: 8 bytes of length, then JSON padded with spaces so that the data is
// aligned for mapping.
std::string header_of(std::span<const TensorDeclaration> tensors,
                      const std::map<std::string, std::string>& metadata) {
  constexpr std::size_t kDataAlignment = 64;
  json::object header;
  if (!metadata.empty()) {
    json::object& object = header["__metadata__"].emplace_object();
    for (const auto& [key, value] : metadata) object[key] = value;
  }
  std::uint64_t offset = 0;
  for (const TensorDeclaration& tensor : tensors) {
    TUTTI_ASSERT(tensor.type != TensorType::other && !header.contains(tensor.name));
    const std::uint64_t end = offset + tensor.bytes();
    header[tensor.name] =
        json::object{{"dtype", to_string(tensor.type)},
                     {"shape", json::array(tensor.shape.begin(), tensor.shape.end())},
                     {"data_offsets", json::array{offset, end}}};
    offset = end;
  }
  std::string text(sizeof(std::uint64_t), '\0');
  text += json::serialize(header);
  text.resize((text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  const std::uint64_t length = text.size() - sizeof(std::uint64_t);
  std::memcpy(text.data(), &length, sizeof length);
  return text;
}

Result<> write_all(int descriptor, std::span<const std::byte> bytes,
                   const std::filesystem::path& file) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_error("cannot write " + file.string(), errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

std::uint64_t bytes_of(TensorType type) {
  switch (type) {
    case TensorType::f32:
    case TensorType::i32: return 4;
    case TensorType::bf16:
    case TensorType::f16: return 2;
    default: return 1;
  }
}

}  // namespace

std::uint64_t TensorDeclaration::bytes() const {
  std::uint64_t bytes = bytes_of(type);
  for (const std::uint64_t extent : shape) bytes *= extent;
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(FileDescriptor file, std::filesystem::path path,
                                     std::uint64_t header_bytes, std::uint64_t data_bytes)
    : file_(std::move(file)),
      path_(std::move(path)),
      written_(header_bytes),
      expected_(header_bytes + data_bytes) {}

Result<SafetensorsWriter> SafetensorsWriter::create(
    const std::filesystem::path& file, std::span<const TensorDeclaration> tensors,
    const std::map<std::string, std::string>& metadata) {
  FileDescriptor descriptor(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!descriptor) return errno_error("cannot create " + file.string(), errno);
  const std::string header = header_of(tensors, metadata);
  if (auto written = write_all(descriptor.get(), std::as_bytes(std::span(header)), file);
      !written) {
    return written.error();
  }
  std::uint64_t data_bytes = 0;
  for (const TensorDeclaration& tensor : tensors) data_bytes += tensor.bytes();
  return SafetensorsWriter(std::move(descriptor), file, header.size(), data_bytes);
}

Result<> SafetensorsWriter::append(std::span<const std::byte> bytes) {
  TUTTI_ASSERT(file_ && bytes.size() <= expected_ - written_);
  if (auto written = write_all(file_.get(), bytes, path_); !written) return written;
  written_ += bytes.size();
  return {};
}

Result<> SafetensorsWriter::append(std::span<const float> values) {
  return append(std::as_bytes(values));
}

Result<std::uint64_t> SafetensorsWriter::finish() {
  TUTTI_ASSERT(file_.get() >= 0);
  if (written_ != expected_) {
    return Error{ErrorCode::internal, fmt::format("{}: {} bytes written of {} declared",
                                                  path_.string(), written_, expected_)};
  }
  if (::fsync(file_.get()) != 0) return errno_error("cannot sync " + path_.string(), errno);
  if (::close(file_.release()) != 0) return errno_error("cannot close " + path_.string(), errno);
  return written_;
}

std::string to_index_json(const std::map<std::string, std::string>& file_of_tensor,
                          std::uint64_t tensor_bytes) {
  json::object map;
  for (const auto& [tensor, file] : file_of_tensor) map[tensor] = file;
  const json::object index = {{"metadata", json::object{{"total_size", tensor_bytes}}},
                              {"weight_map", std::move(map)}};
  return json::serialize(index) + "\n";
}

std::string_view to_string(TensorType type) {
  switch (type) {
    case TensorType::f32: return "F32";
    case TensorType::bf16: return "BF16";
    case TensorType::f16: return "F16";
    case TensorType::u8: return "U8";
    case TensorType::f8_e4m3: return "F8_E4M3";
    case TensorType::f8_e5m2: return "F8_E5M2";
    case TensorType::i32: return "I32";
    case TensorType::other: return "other";
  }
  return {};
}

std::string to_string(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (const std::uint64_t extent : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace tutti::models
