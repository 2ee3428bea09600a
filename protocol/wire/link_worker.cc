#include "protocol/wire/link_codec.h"

namespace tutti::wire {

template Result<std::string> encode_frame<ToWorker>(const ToWorker&, FrameHeader);
template Result<Decoded<ToWorker>> decode_frame<ToWorker>(std::string_view, FrameCounters&);
template std::string_view message_name<ToWorker>(const ToWorker&);
template Result<std::string> encode_frame<FromWorker>(const FromWorker&, FrameHeader);
template Result<Decoded<FromWorker>> decode_frame<FromWorker>(std::string_view, FrameCounters&);
template std::string_view message_name<FromWorker>(const FromWorker&);

}  // namespace tutti::wire
