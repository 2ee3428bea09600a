#include "protocol/wire/untaken.h"

namespace tutti::wire {

std::optional<FrameHeader> header_of_untaken(std::string_view bytes) {
  const Result<FrameHeader> header = decode_header(bytes);
  if (!header || !header->sequence) return std::nullopt;
  if (bytes.size() - kFrameHeaderBytes != header->length) return std::nullopt;
  return *header;
}

}  // namespace tutti::wire
