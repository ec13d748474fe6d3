#include "lib/io/ordered_digests.h"

namespace moelora {

void OrderedDigests::add(size_t tensor, uint64_t offset, uint64_t total,
                         std::span<const std::byte> bytes) {
  if (bytes.size() == total) {
    hex_[tensor] = digest_hex(bytes);
    return;
  }
  Stream& stream = wait_for_turn(tensor, offset);
  stream.digest.update(bytes);
  const std::lock_guard lock(mutex_);
  stream.done += bytes.size();
  if (stream.done == total) {
    hex_[tensor] = stream.digest.hex();
    streams_.erase(tensor);
  }
  moved_.notify_all();
}

OrderedDigests::Stream& OrderedDigests::wait_for_turn(size_t tensor, uint64_t offset) {
  std::unique_lock lock(mutex_);
  Stream& stream = streams_[tensor];
  moved_.wait(lock, [&] { return stopped_ || stream.done == offset; });
  if (stopped_) throw Stopped{};
  return stream;
}

void OrderedDigests::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  moved_.notify_all();
}

}  // namespace moelora
